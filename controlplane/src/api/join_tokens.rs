//! JoinTokenService: one-time rights to join a pool. The secret is shown once, with the pin of the authority to expect behind it.
//!
//! Only platform administrators come here. Using a token up is in [`crate::nodes::enrol`].

use chrono::{DateTime, TimeDelta, Utc};
use mcp_gateway::{
    proto::admin::v1::{
        CreateJoinTokenRequest, CreateJoinTokenResponse, DeleteJoinTokenRequest, DeleteJoinTokenResponse, GetJoinTokenRequest,
        JoinToken as Wire, ListJoinTokensRequest, ListJoinTokensResponse, join_token_service_server::JoinTokenService,
    },
    snapshot::ContentHash,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{
    Api, Begun, admitted,
    aip::{self, Pages},
    error::Error,
};
use crate::{
    domain::{SLUG_RULE, ids, is_slug, labels, rules::Rules},
    keys::DEFAULT_POOL,
    store::{
        change::{Kind, Operation, Touched},
        join_tokens::{self, JoinToken},
    },
};

const CREATE: &str = "/mcpgw.admin.v1.JoinTokenService/CreateJoinToken";
const DELETE: &str = "/mcpgw.admin.v1.JoinTokenService/DeleteJoinToken";
const DEFAULT_TTL: TimeDelta = TimeDelta::minutes(15);
const MAX_TTL: TimeDelta = TimeDelta::days(7);

#[tonic::async_trait]
impl JoinTokenService for Api {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        Ok(Response::new(create(self, request).await?))
    }

    async fn get_join_token(&self, request: Request<GetJoinTokenRequest>) -> Result<Response<Wire>, Status> {
        let (_, request) = admitted(request)?;
        let id = id(&request.name)?;
        let found = self.core.store.join_token(id).await.map_err(Error::from)?;
        Ok(Response::new(wire(&found.ok_or(Error::NotFound(request.name))?)))
    }

    async fn list_join_tokens(
        &self,
        request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        Ok(Response::new(list(self, request).await?))
    }

    async fn delete_join_token(
        &self,
        request: Request<DeleteJoinTokenRequest>,
    ) -> Result<Response<DeleteJoinTokenResponse>, Status> {
        Ok(Response::new(delete(self, request).await?))
    }
}

async fn create(api: &Api, request: Request<CreateJoinTokenRequest>) -> Result<CreateJoinTokenResponse, Error> {
    let (caller, request) = admitted(request)?;
    let given = request.join_token.clone().unwrap_or_default();
    let pool = if given.pool.is_empty() { DEFAULT_POOL.to_owned() } else { given.pool };
    if !is_slug(&pool) {
        return Err(Error::invalid("join_token.pool", SLUG_RULE));
    }
    let ttl = ttl(given.ttl)?;
    let mut rules = Rules::default();
    labels::judge(&mut rules, "join_token.labels", &given.labels);
    rules.check().map_err(Error::Invalid)?;
    let mut change = match api.begin(&caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let (secret, now) = (ids::secret(), Utc::now());
    let token = JoinToken {
        id: ids::public_id(),
        pool,
        labels: given.labels,
        expires_at: now + ttl,
        used_at: None,
        node_id: None,
        created_at: now,
    };
    join_tokens::insert(change.connection(), &token, &ids::sha256(&secret)).await?;
    change.touch(touched(&token.id, Operation::Create));
    change.detail(json!({ "pool": token.pool, "labels": token.labels, "expires_at": token.expires_at }));
    let pin = ContentHash::of(&api.core.custody.keys()?.node_ca.current().material.public_key_info());
    let shown = if request.validate_only { String::new() } else { format!("mcpgwj_{}_{}.{pin}", token.id, *secret) };
    let answer = CreateJoinTokenResponse { join_token: Some(wire(&token)), secret: shown };
    api.finish(change.seal().await?, answer).await
}

async fn list(api: &Api, request: Request<ListJoinTokensRequest>) -> Result<ListJoinTokensResponse, Error> {
    let (_, request) = admitted(request)?;
    let pages = Pages::new(&api.core.custody, request.page_size, &["joinTokens"])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = api.core.store.join_tokens(&after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |token| token.id.clone())?;
    Ok(ListJoinTokensResponse { join_tokens: found.iter().map(wire).collect(), next_page_token })
}

async fn delete(api: &Api, request: Request<DeleteJoinTokenRequest>) -> Result<DeleteJoinTokenResponse, Error> {
    let (caller, request) = admitted(request)?;
    let id = id(&request.name)?;
    let mut change = match api.begin(&caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    if !join_tokens::delete(change.connection(), id).await? {
        return Err(Error::NotFound(request.name));
    }
    change.touch(touched(id, Operation::Delete));
    api.finish(change.seal().await?, DeleteJoinTokenResponse {}).await
}

fn ttl(given: Option<prost_types::Duration>) -> Result<TimeDelta, Error> {
    let Some(given) = given else { return Ok(DEFAULT_TTL) };
    let ttl = u32::try_from(given.nanos).ok().and_then(|nanos| TimeDelta::new(given.seconds, nanos));
    let fits = ttl.filter(|ttl| *ttl > TimeDelta::zero() && *ttl <= MAX_TTL);
    fits.ok_or_else(|| Error::invalid("join_token.ttl", "expected more than 0 s, and 7 days at most"))
}

fn id(name: &str) -> Result<&str, Error> {
    aip::ids("name", name, ["joinTokens"]).map(|[id]| id)
}

fn touched(id: &str, operation: Operation) -> Touched {
    Touched::aside(Kind::JoinToken, operation, format!("joinTokens/{id}"))
}

fn wire(token: &JoinToken) -> Wire {
    let time = |at: DateTime<Utc>| Some(aip::timestamp(at));
    Wire {
        name: format!("joinTokens/{}", token.id),
        pool: token.pool.clone(),
        ttl: None,
        expire_time: time(token.expires_at),
        use_time: token.used_at.and_then(time),
        node: token.node_id.map(|id| format!("nodes/{id}")).unwrap_or_default(),
        create_time: time(token.created_at),
        labels: token.labels.clone(),
    }
}
