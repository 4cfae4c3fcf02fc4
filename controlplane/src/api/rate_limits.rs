//! RateLimitService: how much may be used in which time. Reads a request, holds the organisation, changes one row, seals, commits.
//!
//! What a request may say of a limit is in `fields`, what is used of it in `usage`; who may call is in `roles`; what a node would refuse, the change refuses.

use mcp_gateway::proto::admin::v1::{
    CreateRateLimitRequest, DeleteRateLimitRequest, DeleteRateLimitResponse, GetRateLimitRequest, ListLimitUsageRequest,
    ListLimitUsageResponse, ListRateLimitsRequest, ListRateLimitsResponse, RateLimit, UpdateRateLimitRequest,
    rate_limit_service_server::RateLimitService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::{Caller, Hold},
    error::Error,
};
use crate::{
    domain::{self, Organization, document},
    store::{
        self,
        change::{Change, Kind, Operation, Row, Touched},
    },
};

pub(super) mod fields;
mod usage;

const CREATE: &str = "/mcpgw.admin.v1.RateLimitService/CreateRateLimit";
const LIST: &str = "/mcpgw.admin.v1.RateLimitService/ListRateLimits";
const UPDATE: &str = "/mcpgw.admin.v1.RateLimitService/UpdateRateLimit";
const DELETE: &str = "/mcpgw.admin.v1.RateLimitService/DeleteRateLimit";

#[tonic::async_trait]
impl RateLimitService for Api {
    async fn create_rate_limit(&self, request: Request<CreateRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(create(self, &caller, request).await?))
    }

    async fn get_rate_limit(&self, request: Request<GetRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(get(self, &caller, &request.name).await?))
    }

    async fn list_rate_limits(
        &self,
        request: Request<ListRateLimitsRequest>,
    ) -> Result<Response<ListRateLimitsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(list(self, &caller, &request).await?))
    }

    async fn update_rate_limit(&self, request: Request<UpdateRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(update(self, &caller, request).await?))
    }

    async fn delete_rate_limit(
        &self,
        request: Request<DeleteRateLimitRequest>,
    ) -> Result<Response<DeleteRateLimitResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(delete(self, &caller, request).await?))
    }

    async fn list_limit_usage(
        &self,
        request: Request<ListLimitUsageRequest>,
    ) -> Result<Response<ListLimitUsageResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(usage::list(self, &caller, &request).await?))
    }
}

async fn create(api: &Api, caller: &Caller, request: CreateRateLimitRequest) -> Result<RateLimit, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut change = match api.begin(caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    aip::new_id("rate_limit_id", &request.rate_limit_id)?;
    let given = aip::present("rate_limit", request.rate_limit.as_ref())?;
    let mut limit = fields::new(org.id, &request.rate_limit_id);
    fields::apply(&mut limit, given, &fields::ALL)?;
    let limit = store::rate_limits::insert(change.connection(), &limit).await?;
    finish(api, change, &org, (None, limit), &fields::ALL).await
}

async fn get(api: &Api, caller: &Caller, name: &str) -> Result<RateLimit, Error> {
    let [slug, limit_name] = ids("name", name)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let found = store::rate_limits::get(&mut connection, org.id, limit_name).await?;
    found.map(|limit| fields::message(&org.slug, &limit)).ok_or_else(|| Error::NotFound(name.into()))
}

async fn list(api: &Api, caller: &Caller, request: &ListRateLimitsRequest) -> Result<ListRateLimitsResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let pages = Pages::new(&api.core.custody, request.page_size, &[LIST, &org.id.to_string()])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = store::rate_limits::page(&mut connection, org.id, &after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |limit| limit.name.clone())?;
    let rate_limits = found.iter().map(|limit| fields::message(&org.slug, limit)).collect();
    Ok(ListRateLimitsResponse { rate_limits, next_page_token })
}

async fn update(api: &Api, caller: &Caller, request: UpdateRateLimitRequest) -> Result<RateLimit, Error> {
    let given = aip::present("rate_limit", request.rate_limit.as_ref())?;
    let [slug, limit_name] = ids("rate_limit.name", &given.name)?;
    let mask = Mask::read(request.update_mask.as_ref(), given, &fields::ALL)?;
    let mut change = match api.begin(caller, UPDATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::rate_limits::lock(change.connection(), org.id, limit_name).await?;
    let before = found.ok_or_else(|| Error::NotFound(given.name.clone()))?;
    let mut limit = before.clone();
    aip::check_etag(&given.name, &given.etag, &limit.id.to_string(), &limit.meta)?;
    fields::apply(&mut limit, given, mask.fields())?;
    let limit = store::rate_limits::update(change.connection(), &limit).await?;
    finish(api, change, &org, (Some(before), limit), mask.fields()).await
}

async fn delete(api: &Api, caller: &Caller, request: DeleteRateLimitRequest) -> Result<DeleteRateLimitResponse, Error> {
    let [slug, limit_name] = ids("name", &request.name)?;
    let mut change = match api.begin(caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::rate_limits::lock(change.connection(), org.id, limit_name).await?;
    let limit = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    aip::check_etag(&request.name, &request.etag, &limit.id.to_string(), &limit.meta)?;
    store::rate_limits::delete(change.connection(), limit.id).await?;
    touch(&mut change, &org, Some(&limit), None);
    let sealed = change.seal().await?;
    let answer = DeleteRateLimitResponse { config_version: sealed.version() };
    api.finish(sealed, answer).await
}

/// Seals and commits a change whose row is written.
async fn finish(
    api: &Api,
    mut change: Box<Change>,
    org: &Organization,
    (before, mut limit): (Option<domain::RateLimit>, domain::RateLimit),
    changed: &[&str],
) -> Result<RateLimit, Error> {
    touch(&mut change, org, before.as_ref(), Some(&limit));
    change.detail(json!({ "fields": changed, "rule": fields::rule(&limit) }));
    let sealed = change.seal().await?;
    limit.meta = sealed.stamp(limit.meta);
    api.finish(sealed, fields::message(&org.slug, &limit)).await
}

/// Says what became of a limit: new without `before`, gone without `after`.
pub(super) fn touch(
    change: &mut Change,
    org: &Organization,
    before: Option<&domain::RateLimit>,
    after: Option<&domain::RateLimit>,
) {
    let Some(either) = after.or(before) else { return };
    let document = |limit| document::of(&fields::message(&org.slug, limit));
    change.touch(Touched {
        kind: Kind::RateLimit,
        operation: Operation::between(before, after),
        resource: fields::name(&org.slug, &either.name),
        org: Some((org.id, org.slug.clone())),
        row: after.map_or(Row::None, |limit| Row::RateLimit(limit.id)),
        reaches_nodes: true,
        before: before.map(document),
        after: after.map(document),
        credential: None,
    });
}

pub(super) fn ids<'a>(field: &str, name: &'a str) -> Result<[&'a str; 2], Error> {
    aip::ids(field, name, ["organizations", "rateLimits"])
}
