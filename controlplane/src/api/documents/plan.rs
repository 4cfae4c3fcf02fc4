//! What a document asks for, compared with what there is: every edit that is needed, and everything that is wrong, by path.
//!
//! Writes nothing and asks the database nothing: what it compares with was read before. Called by `write`.

use std::collections::BTreeMap;

use mcp_gateway::{
    document::{check, fault},
    proto::{
        admin::v1::{self as admin, OrganizationDocument},
        config::v1::Subjects,
    },
    snapshot::check_org,
};
use uuid::Uuid;

use super::super::{caller::Caller, error::Error, organizations, policies, rate_limits, servers};
use super::{current::Current, people::People};
use crate::{
    domain::{
        ApiKey, Membership, Organization, Policy, RateLimit, Role, Server, User, Violation,
        bundle::{OrgRows, credential_context, org_bundles},
    },
    keys::Custody,
};

/// On whose behalf a document is written.
#[derive(Debug, Clone, Copy)]
pub struct Authority {
    /// May create organisations and users, and move organisations to other pools.
    pub platform: bool,
    /// May change the organisation itself and its owners.
    pub owner: bool,
    /// The caller, if a person is.
    pub user: Option<Uuid>,
}

/// How a document is meant.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Keep what it does not name.
    pub keep_unlisted: bool,
    pub authority: Authority,
}

/// One row: new without `before`, gone without `after`.
#[derive(Debug, Clone)]
pub struct Edit<T> {
    pub before: Option<T>,
    pub after: Option<T>,
}

/// Everything that has to be written. Nothing in it is as it was.
#[derive(Debug)]
pub struct Plan {
    pub organization: Organization,
    /// What the organisation was, if it is to be written at all.
    pub organization_edit: Option<Edit<Organization>>,
    pub users: Vec<User>,
    pub members: Vec<Edit<Membership>>,
    pub keys: Vec<Edit<ApiKey>>,
    pub servers: Vec<Edit<Server>>,
    pub policies: Vec<Edit<Policy>>,
    pub limits: Vec<Edit<RateLimit>>,
    /// What is valid and may still surprise.
    pub notes: Vec<String>,
}

/// Collects while it compares.
pub(super) struct Planner<'a> {
    pub document: &'a OrganizationDocument,
    pub current: &'a Current,
    pub how: &'a How,
    pub custody: &'a Custody,
    pub violations: Vec<Violation>,
    pub notes: Vec<String>,
}

impl Authority {
    /// What a caller may.
    pub fn of(caller: &Caller) -> Self {
        Self { platform: caller.platform_admin, owner: caller.role() == Some(Role::Owner), user: Some(caller.user) }
    }

    /// This process itself.
    pub fn system() -> Self {
        Self { platform: true, owner: true, user: None }
    }

    pub(super) fn owns(&self) -> bool {
        self.platform || self.owner
    }
}

impl<T: PartialEq> Edit<T> {
    fn is_one(&self) -> bool {
        self.before != self.after
    }
}

/// Compares, and says everything that is wrong at once.
pub fn plan(document: &OrganizationDocument, current: &Current, how: &How, custody: &Custody) -> Result<Plan, Error> {
    let violations = check(document).into_iter().map(|fault| Violation::new(fault.path, fault.expected)).collect();
    let mut planner = Planner { document, current, how, custody, violations, notes: Vec::new() };
    let organization = planner.organization()?;
    let people = planner.people(&organization)?;
    let keys = planner.keys(&organization, &people)?;
    let servers = planner.servers(organization.id)?;
    let policies = planner.policies(organization.id, &people)?;
    let limits = planner.limits(organization.id, &people)?;
    planner.compile(&organization, &servers, &policies, &limits);
    let Planner { mut violations, notes, .. } = planner;
    if !violations.is_empty() {
        // What two rules say of one field, the first has said.
        let mut seen = std::collections::BTreeSet::new();
        violations.retain(|violation| seen.insert(violation.field.clone()));
        return Err(Error::Invalid(violations));
    }
    let edit = Edit { before: current.organization.clone(), after: Some(organization.clone()) };
    let plan = Plan {
        organization_edit: Some(edit).filter(Edit::is_one),
        organization,
        users: people.users,
        members: people.members.into_iter().filter(Edit::is_one).collect(),
        keys: keys.into_iter().filter(Edit::is_one).collect(),
        servers: servers.into_iter().filter(Edit::is_one).collect(),
        policies: policies.into_iter().filter(Edit::is_one).collect(),
        limits: limits.into_iter().filter(Edit::is_one).collect(),
        notes,
    };
    plan.permitted(&how.authority)?;
    Ok(plan)
}

impl Plan {
    /// Refuses what the role table cannot: it knows calls, not what is in a document.
    fn permitted(&self, authority: &Authority) -> Result<(), Error> {
        let denied = |why: &str| Err(Error::Denied(why.into()));
        if let Some(edit) = &self.organization_edit {
            let moved = edit.before.as_ref().is_some_and(|before| before.pool != self.organization.pool);
            if moved && !authority.platform {
                return denied("only platform administrators move an organisation to another pool");
            }
            if !authority.owns() {
                return denied("only owners change the organisation itself: its settings in the document must be what they are");
            }
        }
        let owners = |edit: &Edit<Membership>| [&edit.before, &edit.after].into_iter().flatten().any(|it| it.role == Role::Owner);
        if !authority.owns() && self.members.iter().any(owners) {
            return denied("only owners make, change and remove owners");
        }
        Ok(())
    }
}

impl Planner<'_> {
    pub fn violate(&mut self, path: impl Into<String>, expected: impl Into<String>) {
        self.violations.push(Violation::new(path, expected));
    }

    /// Takes note of violations of a resource's own rules, by their path in the document; other errors end the plan.
    pub fn judged<T>(&mut self, result: Result<T, Error>, noun: &str, path: &str) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid(violations)) => {
                for Violation { field, expected } in violations {
                    let below = field.strip_prefix(noun).unwrap_or(&field);
                    let field = format!("{path}{below}");
                    self.violate(if path.is_empty() { field.trim_start_matches('.') } else { &field }, expected);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn organization(&mut self) -> Result<Organization, Error> {
        let slug = &self.document.organization;
        let before = self.current.organization.clone();
        let base = before.unwrap_or_else(|| Organization { id: Uuid::now_v7(), slug: slug.clone(), ..organizations::blank() });
        let given = admin::Organization {
            display_name: self.document.display_name.clone(),
            allowed_origins: self.document.allowed_origins.clone(),
            audit_full: self.document.audit_full,
            audit_sync: self.document.audit_sync,
            capture: self.document.capture.clone(),
            pool: self.document.pool.clone(),
            request_log_retention_days: self.document.request_log_retention_days,
            audit_log_retention_days: self.document.audit_log_retention_days,
            ..Default::default()
        };
        let named = |field: &&&str| **field != "pool" || !self.document.pool.is_empty();
        let fields: Vec<&str> = organizations::FIELDS.iter().filter(named).copied().collect();
        // What is wrong here does not hide what a node would refuse.
        let as_given = Organization { allowed_origins: given.allowed_origins.clone(), ..base.clone() };
        let applied = organizations::apply(base, given, &fields);
        Ok(self.judged(applied, "organization", "")?.unwrap_or(as_given))
    }

    fn servers(&mut self, org: Uuid) -> Result<Vec<Edit<Server>>, Error> {
        let mut edits = Vec::new();
        for (slug, given) in &self.document.servers {
            let before = self.current.servers.get(slug).cloned();
            let mut after = before.clone().unwrap_or_else(|| servers::fields::new(org, slug));
            let given = self.without_known_secret(given, before.as_ref())?;
            let applied = servers::fields::apply(&mut after, &given, &servers::fields::ALL, self.custody);
            self.judged(applied, "server", &format!("servers.{slug}"))?;
            edits.push(Edit { before, after: Some(after) });
        }
        edits.extend(unlisted(&self.current.servers, &self.document.servers, self.how));
        Ok(edits)
    }

    /// The server with a credential that says "as stored", if that is what it is: sealed anew it would look like another one.
    fn without_known_secret(&self, given: &admin::Server, before: Option<&Server>) -> Result<admin::Server, Error> {
        let mut given = given.clone();
        let (Some(credential), Some(server)) = (&mut given.upstream_credential, before) else { return Ok(given) };
        if let Some(stored) = server.credential.as_ref().filter(|_| !credential.value.is_empty()) {
            let known = self.custody.open(&credential_context(&server.id.to_string()), &stored.wrapped)?;
            if known.as_slice() == credential.value.as_bytes() {
                credential.value.clear();
            }
        }
        Ok(given)
    }

    fn policies(&mut self, org: Uuid, people: &People) -> Result<Vec<Edit<Policy>>, Error> {
        let mut edits = Vec::new();
        for (name, given) in &self.document.policies {
            let before = self.current.policies.get(name).cloned();
            let mut after = before.clone().unwrap_or_else(|| policies::fields::new(org, name));
            let mut given = given.clone();
            self.by_id(given.subjects.as_mut(), people, &format!("policies.{name}"));
            let applied = policies::fields::apply(&mut after, &given, &policies::fields::ALL);
            self.judged(applied, "policy", &format!("policies.{name}"))?;
            edits.push(Edit { before, after: Some(after) });
        }
        edits.extend(unlisted(&self.current.policies, &self.document.policies, self.how));
        Ok(edits)
    }

    fn limits(&mut self, org: Uuid, people: &People) -> Result<Vec<Edit<RateLimit>>, Error> {
        let mut edits = Vec::new();
        for (name, given) in &self.document.limits {
            let before = self.current.limits.get(name).cloned();
            let mut after = before.clone().unwrap_or_else(|| rate_limits::fields::new(org, name));
            let mut given = given.clone();
            self.by_id(given.subjects.as_mut(), people, &format!("limits.{name}"));
            let applied = rate_limits::fields::apply(&mut after, &given, &rate_limits::fields::ALL);
            self.judged(applied, "rate_limit", &format!("limits.{name}"))?;
            edits.push(Edit { before, after: Some(after) });
        }
        edits.extend(unlisted(&self.current.limits, &self.document.limits, self.how));
        Ok(edits)
    }

    /// Users by their ids where the document names them by their email addresses.
    fn by_id(&mut self, subjects: Option<&mut Subjects>, people: &People, path: &str) {
        for (index, user) in subjects.into_iter().flat_map(|subjects| &mut subjects.users).enumerate() {
            match people.ids.get(&user.to_lowercase()) {
                Some(id) => *user = id.to_string(),
                None if user.contains('@') => self.notes.push(format!(
                    "{path}.subjects.users[{index}]: {user} is no member: taken as the subject of somebody else's tokens"
                )),
                None => {}
            }
        }
    }

    /// What a node would refuse of the organisation as it will be.
    fn compile(
        &mut self,
        organization: &Organization,
        servers: &[Edit<Server>],
        policies: &[Edit<Policy>],
        limits: &[Edit<RateLimit>],
    ) {
        let rows = OrgRows {
            organization: organization.clone(),
            servers: will_be(servers, &self.current.servers, &self.document.servers, self.how),
            policies: will_be(policies, &self.current.policies, &self.document.policies, self.how),
            limits: will_be(limits, &self.current.limits, &self.document.limits, self.how),
        };
        let faults: Vec<_> = check_org(&org_bundles(&rows)).iter().map(fault).collect();
        self.violations.extend(faults.into_iter().map(|fault| Violation::new(fault.path, fault.expected)));
    }
}

/// What there is and the document does not name, unless that is to be kept.
fn unlisted<T: Clone, G>(current: &BTreeMap<String, T>, given: &BTreeMap<String, G>, how: &How) -> Vec<Edit<T>> {
    let gone = current.iter().filter(|(name, _)| !how.keep_unlisted && !given.contains_key(*name));
    gone.map(|(_, row)| Edit { before: Some(row.clone()), after: None }).collect()
}

/// What there will be: what is edited, and what is kept though the document does not name it.
fn will_be<T: Clone, G>(edits: &[Edit<T>], current: &BTreeMap<String, T>, given: &BTreeMap<String, G>, how: &How) -> Vec<T> {
    let edited = edits.iter().filter_map(|edit| edit.after.clone());
    let kept = current.iter().filter(|(name, _)| how.keep_unlisted && !given.contains_key(*name));
    edited.chain(kept.map(|(_, row)| row.clone())).collect()
}
