//! RolloutService: changes that some nodes try before all get them. Reads a request, holds the organisation, makes one transition, commits.
//!
//! What a request may say and what callers see is in `fields`; what a transition does to the rows is in `turns`, which [`crate::rollouts`] calls
//! too; what comes next by itself is decided there, never here.

use mcp_gateway::proto::admin::v1::{
    AbortRolloutRequest, ConfigDiff, CreateRolloutRequest, GetRolloutRequest, ListRolloutsRequest, ListRolloutsResponse,
    OrganizationDocument, ResumeRolloutRequest, Rollout as Wire, rollout_service_server::RolloutService,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Pages},
    caller::{Caller, Hold},
    documents::{self, Authority, How},
    error::Error,
};
use crate::{
    domain::{
        Organization, Violation, diff,
        rollout::{Rollout, State, canaries},
    },
    store::{
        change::{Change, Kind},
        rollouts,
    },
};

mod fields;
pub mod turns;

const CREATE: &str = "/mcpgw.admin.v1.RolloutService/CreateRollout";
const LIST: &str = "/mcpgw.admin.v1.RolloutService/ListRollouts";
const RESUME: &str = "/mcpgw.admin.v1.RolloutService/ResumeRollout";
const ABORT: &str = "/mcpgw.admin.v1.RolloutService/AbortRollout";
/// Of a difference in an answer, in bytes: clients take 4 MiB by default.
const LARGEST_DIFF: usize = 1 << 20;

#[tonic::async_trait]
impl RolloutService for Api {
    async fn create_rollout(&self, request: Request<CreateRolloutRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(create(self, &caller, request).await?))
    }

    async fn get_rollout(&self, request: Request<GetRolloutRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(get(self, &caller, &request.name).await?))
    }

    async fn list_rollouts(&self, request: Request<ListRolloutsRequest>) -> Result<Response<ListRolloutsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(list(self, &caller, &request).await?))
    }

    async fn resume_rollout(&self, request: Request<ResumeRolloutRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(resume(self, &caller, request).await?))
    }

    async fn abort_rollout(&self, request: Request<AbortRolloutRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(abort(self, &caller, request).await?))
    }
}

/// What a document would make of an organisation.
struct Rendered {
    candidate: Value,
    diff: ConfigDiff,
}

async fn create(api: &Api, caller: &Caller, request: CreateRolloutRequest) -> Result<Wire, Error> {
    let document = aip::present("document", request.document.as_ref())?;
    let asked = fields::asked(&request.rollout.clone().unwrap_or_default())?;
    let mut change = match api.begin(caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), &document.organization, Hold::Change).await?;
    let Rendered { candidate, diff } = render(api, caller, &mut change, (document, &org)).await?;
    if change.origin().validate_only {
        let _ = change.origin().dry_run.set(diff.clone()); // what is touched, which is the rollout, says less
    }
    let eligible = rollouts::eligible(change.connection(), &org.pool, &asked.labels).await?;
    if eligible.is_empty() {
        let why = format!("no node of pool {} has these labels (mcpgw node list): nobody could try it", org.pool);
        return Err(Error::Precondition(why));
    }
    let id = Uuid::now_v7();
    let first = canaries::choose(id, &eligible, &Default::default(), asked.steps[0]);
    let row = Rollout {
        id,
        org_id: org.id,
        org_slug: org.slug.clone(),
        pool: org.pool.clone(),
        diff: diff::cut(diff, LARGEST_DIFF).encode_to_vec(),
        canaries: first,
        actor: caller.email.clone(),
        reason: caller.said.reason.clone(),
        ..asked
    };
    let row = rollouts::insert(change.connection(), &row, &candidate).await?;
    turns::begun(&mut change, &row);
    finish(api, change, row).await
}

/// Writes the document, looks at the result, and takes it back: nothing of it is in the tables until it is promoted.
async fn render(
    api: &Api,
    caller: &Caller,
    change: &mut Change,
    (document, org): (&OrganizationDocument, &Organization),
) -> Result<Rendered, Error> {
    if let Some(open) = rollouts::open_of(change.connection(), org.id).await? {
        return Err(Error::Precondition(format!("{open} is not over: wait for it, or abort it (mcpgw config rollout abort)")));
    }
    rollouts::mark(change.connection()).await?;
    let how = How { keep_unlisted: false, authority: Authority::of(caller) };
    documents::write(api, change, document, &how).await?;
    change.judge().await?;
    let diff = change.diff();
    let touched = change.take_touched();
    let config = |kind: Kind| matches!(kind, Kind::Organization | Kind::Server | Kind::Policy | Kind::RateLimit);
    if let Some(other) = touched.iter().find(|touched| !config(touched.kind)) {
        let why = "a rollout carries servers, policies, limits and settings, and the document changes more: apply members and keys first";
        return Err(Error::Precondition(format!("{}: {why} (mcpgw apply), or leave them out", other.resource)));
    }
    if touched.is_empty() {
        return Err(Error::Precondition("the document is what the organisation is: there is nothing to roll out".into()));
    }
    let captured = rollouts::capture(change.connection(), org.id).await?;
    if captured.pool != org.pool {
        let expected = format!("expected {:?}: a rollout does not move an organisation to other nodes", org.pool);
        return Err(Error::Invalid(vec![Violation::new("pool", expected)]));
    }
    rollouts::take_back(change.connection()).await?;
    let candidate = rollouts::without_stored_credentials(change.connection(), org.id, captured.rows).await?;
    Ok(Rendered { candidate, diff })
}

async fn get(api: &Api, caller: &Caller, name: &str) -> Result<Wire, Error> {
    let (slug, id) = ids(name)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let row = rollouts::get(&mut connection, org.id, id).await?.ok_or_else(|| Error::NotFound(name.into()))?;
    match row.state {
        State::Running => {
            let facts = rollouts::facts(&mut connection, &row).await?;
            Ok(fields::watched(&row, &facts))
        }
        State::Halted | State::Promoted | State::Aborted => Ok(fields::wire(&row)),
    }
}

async fn list(api: &Api, caller: &Caller, request: &ListRolloutsRequest) -> Result<ListRolloutsResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let pages = Pages::new(&api.core.custody, request.page_size, &[LIST, &org.id.to_string()])?;
    let before: Option<Uuid> = pages.position(&request.page_token)?;
    let mut found = rollouts::page(&mut connection, org.id, before, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |rollout| rollout.id)?;
    Ok(ListRolloutsResponse { rollouts: found.iter().map(fields::wire).collect(), next_page_token })
}

async fn resume(api: &Api, caller: &Caller, request: ResumeRolloutRequest) -> Result<Wire, Error> {
    let (slug, id) = ids(&request.name)?;
    let mut change = match api.begin(caller, RESUME, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let row = held(caller, &mut change, (slug, id), (&request.name, &request.etag)).await?;
    if row.state != State::Halted {
        return Err(Error::Precondition(format!(
            "{} is {}: only a halted rollout can be resumed",
            request.name,
            row.state.as_str()
        )));
    }
    let step = row.step;
    let row = turns::step(&mut change, row, step, "rollout.resume").await?;
    finish(api, change, row).await
}

async fn abort(api: &Api, caller: &Caller, request: AbortRolloutRequest) -> Result<Wire, Error> {
    let (slug, id) = ids(&request.name)?;
    let mut change = match api.begin(caller, ABORT, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let row = held(caller, &mut change, (slug, id), (&request.name, &request.etag)).await?;
    if !row.state.is_open() {
        return Err(Error::Precondition(format!("{} is {}: it is over", request.name, row.state.as_str())));
    }
    let row = turns::abort(&mut change, row).await?;
    finish(api, change, row).await
}

/// A rollout, held until the end of the transaction.
async fn held(
    caller: &Caller,
    change: &mut Change,
    (slug, id): (&str, Uuid),
    (name, etag): (&str, &str),
) -> Result<Rollout, Error> {
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = rollouts::lock(change.connection(), org.id, id).await?;
    let row = found.ok_or_else(|| Error::NotFound(name.into()))?;
    aip::check_etag(name, etag, &row.id.to_string(), &row.meta)?;
    Ok(row)
}

/// Seals and commits a transition whose row is written.
async fn finish(api: &Api, mut change: Box<Change>, mut row: Rollout) -> Result<Wire, Error> {
    let checked_only = change.origin().validate_only;
    change.detail(json!({ "state": row.state.as_str(), "step": row.step + 1, "canaries": row.canaries.len() }));
    let sealed = change.seal().await?;
    row.meta = sealed.stamp(row.meta);
    if row.state == State::Running && !checked_only {
        row.version.version = sealed.version();
    }
    api.finish(sealed, fields::wire(&row)).await
}

fn ids(name: &str) -> Result<(&str, Uuid), Error> {
    let [slug, uid] = aip::ids("name", name, ["organizations", "rollouts"])?;
    Ok((slug, aip::uuid(uid, name)?))
}
