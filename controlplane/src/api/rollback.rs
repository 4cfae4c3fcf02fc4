//! RollbackConfig: an organisation's settings, servers, policies and limits as they were at a version, as one new version.
//!
//! Applies the inverse of what changed since, through the same rules and records as any change. Never touches identity: users,
//! memberships, keys and what was revoked stay as they are. Called by `config_versions`.

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{self as admin, RollbackConfigRequest, RollbackConfigResponse};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Api, Begun, aip,
    caller::{Caller, Hold},
    config_versions::{folded, known},
    error::Error,
    organizations, policies, rate_limits, servers,
};
use crate::{
    domain::{Credential, Organization, Policy, RateLimit, Server, bundle::credential_context, diff::Step, document},
    keys,
    store::{
        self,
        change::Change,
        config_versions::{Filter, last_of_server},
    },
};

const ROLLBACK: &str = "/mcpgw.admin.v1.ConfigVersionService/RollbackConfig";

/// Goes back.
pub async fn to_version(api: &Api, caller: &Caller, request: RollbackConfigRequest) -> Result<RollbackConfigResponse, Error> {
    let slug = aip::organization("organization", &request.organization)?;
    let mut change = match api.begin(caller, ROLLBACK, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    // Held: nothing is added to this organisation's history meanwhile.
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let head = store::publish::head(change.connection()).await?.version.version;
    let version = known(request.version, head)?;
    let filter = Filter { org_id: Some(org.id), org_slug: None };
    let since = folded(change.connection(), &filter, version, head).await?;
    let mut rollback = Rollback { api, caller, change: *change, org, version, notes: Vec::new() };
    rollback.apply(since.into_iter().map(Step::inverse).collect()).await?;
    let Rollback { mut change, notes, .. } = rollback;
    let diff = Some(change.diff());
    if change.is_empty() {
        return Ok(RollbackConfigResponse { config_version: 0, diff, notes });
    }
    change.action("config.rollback");
    change.detail(json!({ "version": version, "notes": notes }));
    let sealed = change.seal().await?;
    let answer = RollbackConfigResponse { config_version: sealed.version(), diff, notes };
    api.finish(sealed, answer).await
}

struct Rollback<'a> {
    api: &'a Api,
    caller: &'a Caller,
    change: Change,
    org: Organization,
    version: u64,
    notes: Vec<String>,
}

impl Rollback<'_> {
    /// Removals first: names are free then for what comes back.
    async fn apply(&mut self, steps: Vec<Step>) -> Result<(), Error> {
        for step in steps.iter().filter(|step| step.after.is_none()) {
            match step.kind.as_str() {
                "organization" => return Err(self.too_young()),
                "server" => self.remove_server(&step.resource).await?,
                "policy" => self.remove_policy(&step.resource).await?,
                "rate_limit" => self.remove_limit(&step.resource).await?,
                _ => {} // identity
            }
        }
        for step in &steps {
            let Some(document) = &step.after else { continue };
            match step.kind.as_str() {
                "organization" => self.settings(document).await?,
                "server" => self.server(&step.resource, document).await?,
                "policy" => self.policy(&step.resource, document).await?,
                "rate_limit" => self.limit(&step.resource, document).await?,
                _ => {}
            }
        }
        Ok(())
    }

    fn too_young(&self) -> Error {
        Error::Precondition(format!("organizations/{} is younger than version {}", self.org.slug, self.version))
    }

    async fn settings(&mut self, document: &Value) -> Result<(), Error> {
        let given: admin::Organization = read(&format!("organizations/{}", self.org.slug), document)?;
        let before = self.org.clone();
        let row = organizations::apply(before.clone(), given, organizations::FIELDS)?;
        if row.pool != before.pool && !self.caller.platform_admin {
            return Err(Error::Denied("only platform administrators move an organisation to another pool".into()));
        }
        if row != before {
            self.org = store::organizations::update(self.change.connection(), &row).await?;
            self.change.touch(organizations::touched(Some(&before), Some(&self.org)));
        }
        Ok(())
    }

    async fn server(&mut self, name: &str, document: &Value) -> Result<(), Error> {
        let [_, slug] = servers::ids("server", name)?;
        let given: admin::Server = read(name, document)?;
        let id = uid(name, &given.uid)?;
        match store::servers::lock(self.change.connection(), self.org.id, slug).await? {
            Some(before) if before.id == id => return self.change_server(name, before, &given, document).await,
            Some(_) => self.remove_server(name).await?, // another one of that name
            None => {}
        }
        let mut server = Server { id, ..servers::fields::new(self.org.id, slug) };
        servers::fields::apply(&mut server, &given, &beside_credential(), &self.api.core.custody)?;
        if given.upstream_credential.is_some() {
            self.credential(name, &mut server).await?;
        }
        let server = store::servers::insert(self.change.connection(), &server).await?;
        servers::touch(&mut self.change, &self.org, None, Some(&server));
        Ok(())
    }

    async fn change_server(&mut self, name: &str, before: Server, given: &admin::Server, document: &Value) -> Result<(), Error> {
        let kept = servers::fields::document(&self.org.slug, &before);
        if kept.get("upstreamCredential") != document.get("upstreamCredential") {
            let note = format!("{name}: its credential was changed after version {} and stays as it is", self.version);
            self.notes.push(note);
        }
        let mut server = before.clone();
        servers::fields::apply(&mut server, given, &beside_credential(), &self.api.core.custody)?;
        if server != before {
            let server = store::servers::update(self.change.connection(), &server).await?;
            servers::touch(&mut self.change, &self.org, Some(&before), Some(&server));
        }
        Ok(())
    }

    /// The credential that a deleted server had last, sealed anew. Without it the server comes back switched off.
    async fn credential(&mut self, name: &str, server: &mut Server) -> Result<(), Error> {
        let context = server.id.to_string();
        let last = last_of_server(self.change.connection(), server.id).await?;
        let custody = &self.api.core.custody;
        let opened = match &last {
            Some((document, Some(wrapped))) => match custody.open(&credential_context(&context), wrapped) {
                Ok(value) => Some((document, value)),
                Err(keys::Error::Unreadable) => None,
                Err(error) => return Err(error.into()),
            },
            _ => None,
        };
        let Some((document, value)) = opened else {
            server.disabled = true;
            self.notes
                .push(format!("{name}: comes back disabled: no key opens its credential any more; set it and enable the server"));
            return Ok(());
        };
        let shown = document.get("upstreamCredential").unwrap_or(&Value::Null);
        let set_at = document::text(shown, "value").strip_prefix("set ").and_then(|at| DateTime::parse_from_rfc3339(at).ok());
        server.credential = Some(Credential {
            header: document::text(shown, "header").to_owned(),
            wrapped: custody.seal(&credential_context(&context), &value)?,
            set_at: set_at.map(|at| at.with_timezone(&Utc)),
        });
        Ok(())
    }

    async fn remove_server(&mut self, name: &str) -> Result<(), Error> {
        let [_, slug] = servers::ids("server", name)?;
        let Some(server) = store::servers::lock(self.change.connection(), self.org.id, slug).await? else { return Ok(()) };
        store::servers::delete(self.change.connection(), server.id).await?;
        servers::touch(&mut self.change, &self.org, Some(&server), None);
        Ok(())
    }

    async fn policy(&mut self, name: &str, document: &Value) -> Result<(), Error> {
        let [_, policy_name] = policies::ids("policy", name)?;
        let given: admin::Policy = read(name, document)?;
        let id = uid(name, &given.uid)?;
        let found = store::policies::lock(self.change.connection(), self.org.id, policy_name).await?;
        if found.as_ref().is_some_and(|found| found.id != id) {
            self.remove_policy(name).await?; // another one of that name
        }
        let before = found.filter(|found| found.id == id);
        let new = || Policy { id, ..policies::fields::new(self.org.id, policy_name) };
        let mut policy = before.clone().unwrap_or_else(new);
        policies::fields::apply(&mut policy, &given, &policies::fields::ALL)?;
        if before.as_ref() == Some(&policy) {
            return Ok(());
        }
        let policy = match &before {
            Some(_) => store::policies::update(self.change.connection(), &policy).await?,
            None => store::policies::insert(self.change.connection(), &policy).await?,
        };
        policies::touch(&mut self.change, &self.org, before.as_ref(), Some(&policy));
        Ok(())
    }

    async fn remove_policy(&mut self, name: &str) -> Result<(), Error> {
        let [_, policy_name] = policies::ids("policy", name)?;
        let found = store::policies::lock(self.change.connection(), self.org.id, policy_name).await?;
        let Some(policy) = found else { return Ok(()) };
        store::policies::delete(self.change.connection(), policy.id).await?;
        policies::touch(&mut self.change, &self.org, Some(&policy), None);
        Ok(())
    }

    async fn limit(&mut self, name: &str, document: &Value) -> Result<(), Error> {
        let [_, limit_name] = rate_limits::ids("rate_limit", name)?;
        let given: admin::RateLimit = read(name, document)?;
        let id = uid(name, &given.uid)?;
        let found = store::rate_limits::lock(self.change.connection(), self.org.id, limit_name).await?;
        if found.as_ref().is_some_and(|found| found.id != id) {
            self.remove_limit(name).await?; // another one of that name
        }
        let before = found.filter(|found| found.id == id);
        let new = || RateLimit { id, ..rate_limits::fields::new(self.org.id, limit_name) };
        let mut limit = before.clone().unwrap_or_else(new);
        rate_limits::fields::apply(&mut limit, &given, &rate_limits::fields::ALL)?;
        if before.as_ref() == Some(&limit) {
            return Ok(());
        }
        let limit = match &before {
            Some(_) => store::rate_limits::update(self.change.connection(), &limit).await?,
            None => store::rate_limits::insert(self.change.connection(), &limit).await?,
        };
        rate_limits::touch(&mut self.change, &self.org, before.as_ref(), Some(&limit));
        Ok(())
    }

    async fn remove_limit(&mut self, name: &str) -> Result<(), Error> {
        let [_, limit_name] = rate_limits::ids("rate_limit", name)?;
        let found = store::rate_limits::lock(self.change.connection(), self.org.id, limit_name).await?;
        let Some(limit) = found else { return Ok(()) };
        store::rate_limits::delete(self.change.connection(), limit.id).await?;
        rate_limits::touch(&mut self.change, &self.org, Some(&limit), None);
        Ok(())
    }
}

/// Every field of a server but its credential.
fn beside_credential() -> Vec<&'static str> {
    servers::fields::ALL.into_iter().filter(|field| *field != "upstream_credential").collect()
}

fn read<M: prost::Message + prost::Name + Default>(name: &str, document: &Value) -> Result<M, Error> {
    document::read(document).ok_or_else(|| {
        Error::Precondition(format!("{name} was kept in a form that this version of the control plane does not read"))
    })
}

fn uid(name: &str, text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).ok().ok_or_else(|| Error::Precondition(format!("{name} was kept without its uid")))
}
