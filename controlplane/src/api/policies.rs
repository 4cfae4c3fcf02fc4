//! PolicyService: the rules of who may use what. Reads a request, holds the organisation, changes one row, seals, commits.
//!
//! What a request may say of a policy is in `fields`; who may call is in `roles`; what a node would refuse, the change refuses.

use mcp_gateway::proto::admin::v1::{
    CreatePolicyRequest, DeletePolicyRequest, DeletePolicyResponse, GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse,
    Policy, UpdatePolicyRequest, policy_service_server::PolicyService,
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

const CREATE: &str = "/mcpgw.admin.v1.PolicyService/CreatePolicy";
const LIST: &str = "/mcpgw.admin.v1.PolicyService/ListPolicies";
const UPDATE: &str = "/mcpgw.admin.v1.PolicyService/UpdatePolicy";
const DELETE: &str = "/mcpgw.admin.v1.PolicyService/DeletePolicy";

#[tonic::async_trait]
impl PolicyService for Api {
    async fn create_policy(&self, request: Request<CreatePolicyRequest>) -> Result<Response<Policy>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(create(self, &caller, request).await?))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<Policy>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(get(self, &caller, &request.name).await?))
    }

    async fn list_policies(&self, request: Request<ListPoliciesRequest>) -> Result<Response<ListPoliciesResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(list(self, &caller, &request).await?))
    }

    async fn update_policy(&self, request: Request<UpdatePolicyRequest>) -> Result<Response<Policy>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(update(self, &caller, request).await?))
    }

    async fn delete_policy(&self, request: Request<DeletePolicyRequest>) -> Result<Response<DeletePolicyResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(delete(self, &caller, request).await?))
    }
}

async fn create(api: &Api, caller: &Caller, request: CreatePolicyRequest) -> Result<Policy, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut change = match api.begin(caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    aip::new_id("policy_id", &request.policy_id)?;
    let given = aip::present("policy", request.policy.as_ref())?;
    let mut policy = fields::new(org.id, &request.policy_id);
    fields::apply(&mut policy, given, &fields::ALL)?;
    let policy = store::policies::insert(change.connection(), &policy).await?;
    finish(api, change, &org, (None, policy), &fields::ALL).await
}

async fn get(api: &Api, caller: &Caller, name: &str) -> Result<Policy, Error> {
    let [slug, policy_name] = ids("name", name)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let found = store::policies::get(&mut connection, org.id, policy_name).await?;
    found.map(|policy| fields::message(&org.slug, &policy)).ok_or_else(|| Error::NotFound(name.into()))
}

async fn list(api: &Api, caller: &Caller, request: &ListPoliciesRequest) -> Result<ListPoliciesResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let pages = Pages::new(&api.core.custody, request.page_size, &[LIST, &org.id.to_string()])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = store::policies::page(&mut connection, org.id, &after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |policy| policy.name.clone())?;
    let policies = found.iter().map(|policy| fields::message(&org.slug, policy)).collect();
    Ok(ListPoliciesResponse { policies, next_page_token })
}

async fn update(api: &Api, caller: &Caller, request: UpdatePolicyRequest) -> Result<Policy, Error> {
    let given = aip::present("policy", request.policy.as_ref())?;
    let [slug, policy_name] = ids("policy.name", &given.name)?;
    let mask = Mask::read(request.update_mask.as_ref(), given, &fields::ALL)?;
    let mut change = match api.begin(caller, UPDATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::policies::lock(change.connection(), org.id, policy_name).await?;
    let before = found.ok_or_else(|| Error::NotFound(given.name.clone()))?;
    let mut policy = before.clone();
    aip::check_etag(&given.name, &given.etag, &policy.id.to_string(), &policy.meta)?;
    fields::apply(&mut policy, given, mask.fields())?;
    let policy = store::policies::update(change.connection(), &policy).await?;
    finish(api, change, &org, (Some(before), policy), mask.fields()).await
}

async fn delete(api: &Api, caller: &Caller, request: DeletePolicyRequest) -> Result<DeletePolicyResponse, Error> {
    let [slug, policy_name] = ids("name", &request.name)?;
    let mut change = match api.begin(caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::policies::lock(change.connection(), org.id, policy_name).await?;
    let policy = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    aip::check_etag(&request.name, &request.etag, &policy.id.to_string(), &policy.meta)?;
    store::policies::delete(change.connection(), policy.id).await?;
    touch(&mut change, &org, Some(&policy), None);
    let sealed = change.seal().await?;
    let answer = DeletePolicyResponse { config_version: sealed.version() };
    api.finish(sealed, answer).await
}

/// Seals and commits a change whose row is written.
async fn finish(
    api: &Api,
    mut change: Box<Change>,
    org: &Organization,
    (before, mut policy): (Option<domain::Policy>, domain::Policy),
    changed: &[&str],
) -> Result<Policy, Error> {
    touch(&mut change, org, before.as_ref(), Some(&policy));
    change.detail(json!({ "fields": changed, "rule": fields::rule(&policy) }));
    let sealed = change.seal().await?;
    policy.meta = sealed.stamp(policy.meta);
    api.finish(sealed, fields::message(&org.slug, &policy)).await
}

/// Says what became of a policy: new without `before`, gone without `after`.
pub(super) fn touch(change: &mut Change, org: &Organization, before: Option<&domain::Policy>, after: Option<&domain::Policy>) {
    let Some(either) = after.or(before) else { return };
    let document = |policy| document::of(&fields::message(&org.slug, policy));
    change.touch(Touched {
        kind: Kind::Policy,
        operation: Operation::between(before, after),
        resource: fields::name(&org.slug, &either.name),
        org: Some((org.id, org.slug.clone())),
        row: after.map_or(Row::None, |policy| Row::Policy(policy.id)),
        reaches_nodes: true,
        before: before.map(document),
        after: after.map(document),
        credential: None,
    });
}

pub(super) fn ids<'a>(field: &str, name: &'a str) -> Result<[&'a str; 2], Error> {
    aip::ids(field, name, ["organizations", "policies"])
}
