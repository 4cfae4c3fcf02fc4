//! The people and the keys of a document: who is meant by an email address, and what may not be changed about a key.

use std::collections::BTreeMap;

use chrono::SubsecRound;
use mcp_gateway::{
    document::secret_sha256,
    proto::admin::v1::{self as admin, DocumentKey},
};
use uuid::Uuid;

use super::super::{aip, api_keys, error::Error, memberships};
use super::plan::{Edit, Planner};
use crate::domain::{ApiKey, Membership, Meta, Organization, Role, User};

/// Who there will be.
pub(super) struct People {
    pub members: Vec<Edit<Membership>>,
    /// To be created.
    pub users: Vec<User>,
    /// Ids of the members to be, by email address in lower case.
    pub ids: BTreeMap<String, Uuid>,
    roles: BTreeMap<Uuid, Role>,
}

impl Planner<'_> {
    pub(super) fn people(&mut self, org: &Organization) -> Result<People, Error> {
        let mut people = People { members: Vec::new(), users: Vec::new(), ids: BTreeMap::new(), roles: BTreeMap::new() };
        for (email, given) in &self.document.members {
            let before = self.current.members.get(&email.to_lowercase()).cloned();
            let base = before.clone().or_else(|| self.newcomer(org, email, &mut people.users));
            let Some(base) = base else { continue };
            let given = admin::Membership {
                role: given.role,
                policy_roles: given.policy_roles.clone(),
                groups: given.groups.clone(),
                ..Default::default()
            };
            let applied = memberships::apply(base.clone(), &given, memberships::FIELDS);
            let after = self.judged(applied, "membership", &format!("members.{email}"))?.unwrap_or(base);
            people.members.push(Edit { before, after: Some(after) });
        }
        let named = |email: &String| self.document.members.keys().any(|it| it.to_lowercase() == *email);
        let goes = !self.how.keep_unlisted && !self.document.members.is_empty();
        let (gone, stay): (Vec<_>, Vec<_>) =
            self.current.members.iter().filter(|(email, _)| !named(email)).map(|(_, row)| row.clone()).partition(|_| goes);
        people.members.extend(gone.into_iter().map(|row| Edit { before: Some(row), after: None }));
        for member in people.members.iter().filter_map(|edit| edit.after.as_ref()).chain(&stay) {
            people.ids.insert(member.email.to_lowercase(), member.user_id);
            people.roles.insert(member.user_id, member.role);
        }
        let had_owner = self.current.members.values().any(|member| member.role == Role::Owner);
        if had_owner && !people.roles.values().any(|role| *role == Role::Owner) {
            self.violate("members", "expected at least one owner: an organisation is not left without");
        }
        Ok(people)
    }

    /// Somebody who is no member yet: a user whom there is already, or who is to be created.
    fn newcomer(&mut self, org: &Organization, email: &str, users: &mut Vec<User>) -> Option<Membership> {
        if !self.how.authority.platform {
            self.violate(
                format!("members.{email}"),
                "expected a member: only platform administrators add people by email address",
            );
            return None;
        }
        let known = self.current.users.get(&email.to_lowercase()).copied();
        let user_id = known.unwrap_or_else(|| {
            let new = User {
                id: Uuid::now_v7(),
                email: email.into(),
                display_name: String::new(),
                disabled: false,
                platform_admin: false,
                meta: Meta::default(),
            };
            self.notes.push(format!("members.{email}: a new user without a password; `mcpgw user set-password` gives one"));
            users.push(new);
            users.last().map(|user| user.id).unwrap_or_default()
        });
        Some(Membership { org_id: org.id, user_id, email: email.into(), ..memberships::blank() })
    }

    pub(super) fn keys(&mut self, org: &Organization, people: &People) -> Result<Vec<Edit<ApiKey>>, Error> {
        let mut edits = Vec::new();
        for (id, given) in &self.document.api_keys {
            let at = format!("api_keys.{id}");
            let before = self.current.keys.get(id).cloned();
            let base = match &before {
                Some(known) => self.same_key(known, given, people, &at)?.then(|| known.clone()),
                None => self.new_key(org, id, given, people)?,
            };
            let Some(mut after) = base else { continue };
            let given = admin::ApiKey {
                display_name: given.display_name.clone(),
                policy_roles: given.policy_roles.clone(),
                groups: given.groups.clone(),
                ..Default::default()
            };
            let applied = api_keys::fields::apply(&mut after, &given, &api_keys::fields::ALL);
            self.judged(applied, "api_key", &at)?;
            edits.push(Edit { before, after: Some(after) });
        }
        if !self.how.keep_unlisted && !self.document.api_keys.is_empty() {
            let valid = self.current.keys.values().filter(|key| key.revoked_at.is_none());
            let gone = valid.filter(|key| !self.document.api_keys.contains_key(&key.id));
            edits.extend(gone.map(|key| Edit { before: Some(key.clone()), after: None }));
        }
        Ok(edits)
    }

    /// Whether a key is the one that is meant: what it is cannot change, and what was revoked stays so.
    fn same_key(&mut self, known: &ApiKey, given: &DocumentKey, people: &People, at: &str) -> Result<bool, Error> {
        let before = self.violations.len();
        if known.revoked_at.is_some() {
            self.violate(at, "was revoked, which is for good: make another key");
            return Ok(false);
        }
        let user = people.ids.get(&given.user.to_lowercase()).copied();
        let mut same = |same: bool, field: &str| {
            if !same {
                self.violate(format!("{at}.{field}"), "cannot change: make another key");
            }
        };
        same(user == known.user_id, "user");
        let sha256 = secret_sha256(&given.secret_sha256);
        same(sha256.is_none_or(|sha256| sha256.as_slice() == known.secret_sha256), "secret_sha256");
        let at_end = given.expire_time.as_ref().map(|end| aip::moment("api_key.expire_time", end)).transpose();
        if let Some(end) = self.judged(at_end, "api_key", at)? {
            // Postgres counts microseconds.
            let end = end.map(|end| end.trunc_subsecs(6));
            let changed = end != known.expires_at.map(|end| end.trunc_subsecs(6));
            if changed {
                self.violate(format!("{at}.expire_time"), "cannot change: make another key");
            }
        }
        Ok(self.violations.len() == before)
    }

    fn new_key(&mut self, org: &Organization, id: &str, given: &DocumentKey, people: &People) -> Result<Option<ApiKey>, Error> {
        let at = format!("api_keys.{id}");
        if self.current.taken.contains(id) {
            self.violate(&at, "expected another id: this one is taken");
            return Ok(None);
        }
        let Some(sha256) = secret_sha256(&given.secret_sha256) else {
            let expected = "expected the SHA-256 of the key's secret part: 64 characters of lower-case hex";
            self.violate(format!("{at}.secret_sha256"), expected);
            return Ok(None);
        };
        let mut key = ApiKey { id: id.into(), ..api_keys::fields::new(org.id, sha256) };
        if !given.user.is_empty() {
            key.user_id = people.ids.get(&given.user.to_lowercase()).copied();
            let Some(user) = key.user_id else {
                self.violate(format!("{at}.user"), "expected the email address of a member of the organisation");
                return Ok(None);
            };
            let authority = &self.how.authority;
            let speaks = people.roles.get(&user) != Some(&Role::Owner) || authority.user == Some(user) || authority.owns();
            if !speaks {
                return Err(Error::Denied("only owners make keys of owners".into()));
            }
        }
        let end = given.expire_time.as_ref().map(|end| aip::moment("api_key.expire_time", end)).transpose();
        key.expires_at = self.judged(end, "api_key", &at)?.flatten().map(|end| end.trunc_subsecs(6));
        Ok(Some(key))
    }
}
