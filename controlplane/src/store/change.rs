//! THE one transaction per change: the noun's rows, the checks, the version, the change log, the audit entry, the wake-up call.
//!
//! `api` begins a [`Change`], edits rows through the noun's functions, says what it touched, seals and commits it. Nothing else
//! writes configuration. `config_head` is locked late and held to the commit: the version order is the commit order.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::ConfigDiff;
use serde_json::json;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Error, Store, orgs};
use crate::{
    domain::{Meta, bundle, diff},
    evidence::Signer,
};

mod guard;
mod touched;

use touched::remember_version;
pub use touched::{Kind, Operation, Row, Touched};

/// Who changes something, for the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// A user id, or `system`: whose repeated requests are the same request.
    pub id: String,
    /// What the records say: an email address, `system`, or `node:<uid>`.
    pub name: String,
    /// Where the request came from; empty: from inside.
    pub address: String,
}

impl Actor {
    /// This process itself.
    pub fn system() -> Self {
        Self { id: "system".into(), name: "system".into(), address: String::new() }
    }
}

/// Which request a change answers.
#[derive(Debug, Clone)]
pub struct Origin {
    pub actor: Actor,
    /// The RPC's path.
    pub method: &'static str,
    /// Makes a repetition safe.
    pub request_id: Option<Uuid>,
    /// SHA-256 of the encoded request: another request under the same id is refused.
    pub request_sha256: [u8; 32],
    /// Run every check and change nothing.
    pub validate_only: bool,
    /// Why, as the caller says; empty: not said.
    pub reason: String,
    /// Change it even where that removes most of an organisation.
    pub force: bool,
    /// Where a dry run leaves what it would change.
    pub dry_run: DryRun,
}

/// What a dry run would change; for whoever answers the request.
pub type DryRun = Arc<OnceLock<ConfigDiff>>;

impl Origin {
    /// A change that this process makes on its own.
    pub fn system(method: &'static str) -> Self {
        Self {
            actor: Actor::system(),
            method,
            request_id: None,
            request_sha256: [0; 32],
            validate_only: false,
            reason: String::new(),
            force: false,
            dry_run: DryRun::default(),
        }
    }
}

/// What a change began as.
pub enum Begun {
    /// Go on.
    Fresh(Box<Change>),
    /// This request was answered before: the answer as it was stored.
    Answered(Vec<u8>),
}

/// An open change. Dropped without [`Sealed::commit`], it never was.
pub struct Change {
    tx: Transaction<'static, Postgres>,
    signer: Arc<Signer>,
    origin: Origin,
    touched: Vec<Touched>,
    new_epoch: bool,
    action: Option<&'static str>,
    outcome: &'static str,
    detail: serde_json::Value,
    /// It is what an open rollout comes to.
    promotes: bool,
}

/// A checked and numbered change that waits for its commit.
pub struct Sealed {
    tx: Transaction<'static, Postgres>,
    origin: Origin,
    version: u64,
}

/// Answers are kept this long for repeated requests.
const ANSWER_LIFETIME: &str = "1 day";
/// The channel that wakes publishers. The payload is the version; the truth is in `config_head`.
pub const CHANNEL: &str = "mcpgw_config";

impl Store {
    /// Begins a change, or finds the answer that the same request got before.
    pub async fn begin(&self, origin: Origin) -> Result<Begun, Error> {
        let mut tx = self.pool().begin().await?;
        if let (Some(request_id), false) = (origin.request_id, origin.validate_only)
            && let Some(answer) = earlier_answer(&mut tx, &origin, request_id).await?
        {
            return Ok(Begun::Answered(answer));
        }
        let change = Change {
            tx,
            signer: Arc::clone(&self.signer),
            origin,
            touched: Vec::new(),
            action: None,
            outcome: "ok",
            detail: json!({}),
            promotes: false,
            new_epoch: false,
        };
        Ok(Begun::Fresh(Box::new(change)))
    }

    /// Begins a change that no repeated request can be meant by.
    pub async fn begin_plain(&self, origin: Origin) -> Result<Change, Error> {
        match self.begin(Origin { request_id: None, ..origin }).await? {
            Begun::Fresh(change) => Ok(*change),
            Begun::Answered(_) => Err(Error::Corrupt("an answer to a request without an id".into())),
        }
    }

    /// Begins a change that this process makes on its own.
    pub async fn begin_system(&self, method: &'static str) -> Result<Change, Error> {
        self.begin_plain(Origin::system(method)).await
    }
}

async fn earlier_answer(tx: &mut PgConnection, origin: &Origin, request_id: Uuid) -> Result<Option<Vec<u8>>, Error> {
    // Two copies of one request wait for each other here; the second finds the first's answer.
    super::hold(tx, &format!("{}\n{}\n{request_id}", origin.actor.id, origin.method)).await?;
    let row: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT request_sha256, answer FROM idempotent_answers \
         WHERE actor = $1 AND method = $2 AND request_id = $3 AND created_at > now() - $4::interval",
    )
    .bind(&origin.actor.id)
    .bind(origin.method)
    .bind(request_id)
    .bind(ANSWER_LIFETIME)
    .fetch_optional(tx)
    .await?;
    match row {
        None => Ok(None),
        Some((sha256, answer)) if sha256 == origin.request_sha256 => Ok(Some(answer)),
        Some(_) => {
            let expected = "expected a new id: this one was used with another request";
            Err(Error::Invalid(vec![crate::domain::Violation::new("request_id", expected)]))
        }
    }
}

impl Change {
    /// For the noun's functions.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Who changes.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Says who it turned out to be, where that is only known under the transaction's locks.
    pub fn act_as(&mut self, actor: Actor) {
        self.origin.actor = actor;
    }

    /// Says what was touched. The first one names the audit entry.
    pub fn touch(&mut self, touched: Touched) {
        self.touched.push(touched);
    }

    /// Whether nothing was touched yet: there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// What everything touched so far amounts to.
    pub fn diff(&self) -> ConfigDiff {
        diff::diff(&diff::fold(self.touched.iter().map(Touched::step)))
    }

    /// Forgets what was touched so far: the caller has rolled the rows back.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// Says that this is what the organisation's open rollout comes to: nothing else may change what it is about.
    pub fn promote(&mut self) {
        self.promotes = true;
    }

    /// Refuses what a seal would refuse, so that it can be said of a change that is not sealed.
    pub async fn judge(&mut self) -> Result<(), Error> {
        self.check().await?;
        if !self.origin.force {
            guard::keeps_most(&mut self.tx, &self.touched).await?;
        }
        Ok(())
    }

    /// Begins an epoch with this change's version.
    pub fn begin_epoch(&mut self) {
        self.new_epoch = true;
    }

    /// Names the audit entry otherwise than after the first touched resource, such as `api_key.revoke`.
    pub fn action(&mut self, action: &'static str) {
        self.action = Some(action);
    }

    /// Records the change as what followed from a refusal.
    pub fn denied(&mut self) {
        self.outcome = "denied";
    }

    /// What the audit entry says beside the names: never a secret.
    pub fn detail(&mut self, detail: serde_json::Value) {
        self.detail = detail;
    }

    /// Checks the whole, takes the version, writes the records. After this only [`Sealed::commit`] is left.
    pub async fn seal(mut self) -> Result<Sealed, Error> {
        self.judge().await?;
        if self.origin.validate_only {
            let _ = self.origin.dry_run.set(self.diff()); // a second change of one request says nothing new
        }
        let mut version = 0;
        if self.touched.iter().any(|t| t.reaches_nodes) {
            let (epoch, next, at) = take_version(&mut self.tx, self.new_epoch).await?;
            version = next;
            self.log(epoch, next, at).await?;
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(next.to_string()).execute(&mut *self.tx).await?;
        }
        self.audit(version).await?;
        let version = if self.origin.validate_only { 0 } else { version.unsigned_abs() };
        Ok(Sealed { tx: self.tx, origin: self.origin, version })
    }

    /// Refuses what a node would refuse: each organisation whose bundles change must compile as it would be published. Keys are in none
    /// of them, so that one can be revoked even if its organisation is in quarantine.
    async fn check(&mut self) -> Result<(), Error> {
        if !self.promotes {
            guard::waits_for_no_rollout(&mut self.tx, &self.touched).await?;
        }
        let bundled = self.touched.iter().filter(|t| t.reaches_nodes && t.kind.is_bundled());
        let mut ids: Vec<Uuid> = bundled.filter_map(|t| t.org.as_ref()).map(|org| org.0).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            let Some(rows) = orgs::rows(&mut self.tx, id).await? else { continue }; // deleted by this change
            let problems = bundle::problems(&rows);
            if !problems.is_empty() {
                return Err(Error::Invalid(problems));
            }
        }
        Ok(())
    }

    async fn log(&mut self, epoch: i64, version: i64, at: DateTime<Utc>) -> Result<(), Error> {
        let reaching = self.touched.iter().filter(|t| t.reaches_nodes);
        for (seq, touched) in (0i32..).zip(reaching) {
            let (org_id, org_slug) = touched.org.clone().unzip();
            sqlx::query(
                "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor, committed_at, \
                 before, after, reason, credential_wrapped) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            )
            .bind(epoch)
            .bind(version)
            .bind(seq)
            .bind(org_id)
            .bind(org_slug.unwrap_or_default())
            .bind(touched.kind.as_str())
            .bind(&touched.resource)
            .bind(touched.operation.as_str())
            .bind(&self.origin.actor.name)
            .bind(at)
            .bind(&touched.before)
            .bind(&touched.after)
            .bind(&self.origin.reason)
            .bind(&touched.credential)
            .execute(&mut *self.tx)
            .await?;
            remember_version(&mut self.tx, &touched.row, version).await?;
        }
        Ok(())
    }

    async fn audit(&mut self, version: i64) -> Result<(), Error> {
        let Some(first) = self.touched.first() else {
            return Err(Error::Precondition(format!("{}: a change touched nothing", self.origin.method)));
        };
        let named = format!("{}.{}", first.kind.as_str(), first.operation.as_str());
        let (org_id, org_slug) = first.org.clone().unzip();
        let mut detail = self.detail.clone();
        if let (false, Some(detail)) = (self.origin.reason.is_empty(), detail.as_object_mut()) {
            detail.insert("change_reason".into(), self.origin.reason.clone().into());
        }
        let entry = super::audit::Entry {
            org_id,
            org_slug: org_slug.unwrap_or_default(),
            actor: &self.origin.actor,
            action: self.action.unwrap_or(&named),
            resource: &first.resource,
            outcome: self.outcome,
            config_version: version,
            detail: &detail,
        };
        super::audit::insert(&mut self.tx, &entry, &self.signer).await
    }
}

impl Sealed {
    /// The version this change makes; 0: it does not reach nodes, or only checks were asked for.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What a touched row carries once this is committed.
    pub fn stamp(&self, meta: Meta) -> Meta {
        let made = i64::try_from(self.version).unwrap_or(i64::MAX);
        Meta { config_version: if made == 0 { meta.config_version } else { made }, ..meta }
    }

    /// Which request this answers.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Commits, keeping `answer` for repetitions of the request; with `validate_only` forgets everything instead.
    pub async fn commit(mut self, answer: &[u8]) -> Result<(), Error> {
        if self.origin.validate_only {
            return Ok(self.tx.rollback().await?);
        }
        if let Some(request_id) = self.origin.request_id {
            sqlx::query(
                "INSERT INTO idempotent_answers (actor, method, request_id, request_sha256, answer) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (actor, method, request_id) DO UPDATE \
                 SET request_sha256 = excluded.request_sha256, answer = excluded.answer, created_at = now()",
            )
            .bind(&self.origin.actor.id)
            .bind(self.origin.method)
            .bind(request_id)
            .bind(self.origin.request_sha256.as_slice())
            .bind(answer)
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(self.tx.commit().await?)
    }
}

/// Takes the next version. From here to the commit no other change can take one.
async fn take_version(tx: &mut PgConnection, new_epoch: bool) -> Result<(i64, i64, DateTime<Utc>), Error> {
    let taken = "UPDATE config_head SET epoch = epoch + $1, version = version + 1, committed_at = clock_timestamp() \
         RETURNING epoch, version, committed_at";
    Ok(sqlx::query_as(taken).bind(i64::from(new_epoch)).fetch_one(tx).await?)
}
