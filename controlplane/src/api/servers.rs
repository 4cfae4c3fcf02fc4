//! ServerService: the MCP servers of an organisation. Reads a request, holds the organisation, changes one row, seals, commits.
//!
//! What a request may say of a server is in `fields`; who may call is in `roles`; what a node would refuse, the change refuses.

use mcp_gateway::proto::admin::v1::{
    CreateServerRequest, DeleteServerRequest, DeleteServerResponse, GetServerRequest, ListServersRequest, ListServersResponse,
    Server, SetEndpointStateRequest, UpdateServerRequest, server_service_server::ServerService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::{Caller, Hold},
    error::Error,
    policies, rate_limits,
};
use crate::{
    domain::{self, Organization},
    store::{
        self,
        change::{Change, Kind, Operation, Row, Touched},
    },
};

mod endpoints;
pub(super) mod fields;
mod place;

const CREATE: &str = "/mcpgw.admin.v1.ServerService/CreateServer";
const LIST: &str = "/mcpgw.admin.v1.ServerService/ListServers";
const UPDATE: &str = "/mcpgw.admin.v1.ServerService/UpdateServer";
const DELETE: &str = "/mcpgw.admin.v1.ServerService/DeleteServer";

#[tonic::async_trait]
impl ServerService for Api {
    async fn create_server(&self, request: Request<CreateServerRequest>) -> Result<Response<Server>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(create(self, &caller, request).await?))
    }

    async fn get_server(&self, request: Request<GetServerRequest>) -> Result<Response<Server>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(get(self, &caller, &request.name).await?))
    }

    async fn list_servers(&self, request: Request<ListServersRequest>) -> Result<Response<ListServersResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(list(self, &caller, &request).await?))
    }

    async fn update_server(&self, request: Request<UpdateServerRequest>) -> Result<Response<Server>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(update(self, &caller, request).await?))
    }

    async fn delete_server(&self, request: Request<DeleteServerRequest>) -> Result<Response<DeleteServerResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(delete(self, &caller, request).await?))
    }

    async fn set_endpoint_state(&self, request: Request<SetEndpointStateRequest>) -> Result<Response<Server>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(endpoints::set(self, &caller, request).await?))
    }
}

async fn create(api: &Api, caller: &Caller, request: CreateServerRequest) -> Result<Server, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut change = match api.begin(caller, CREATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    aip::new_id("server_id", &request.server_id)?;
    let given = aip::present("server", request.server.as_ref())?;
    let mut server = fields::new(org.id, &request.server_id);
    fields::apply(&mut server, given, &fields::ALL, &api.core.custody)?;
    let server = store::servers::insert(change.connection(), &server).await?;
    finish(api, change, &org, (None, server), &fields::ALL).await
}

async fn get(api: &Api, caller: &Caller, name: &str) -> Result<Server, Error> {
    let [slug, server_slug] = ids("name", name)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let found = store::servers::get(&mut connection, org.id, server_slug).await?;
    endpoints::show(&mut connection, &org, &found.ok_or_else(|| Error::NotFound(name.into()))?).await
}

async fn list(api: &Api, caller: &Caller, request: &ListServersRequest) -> Result<ListServersResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let pages = Pages::new(&api.core.custody, request.page_size, &[LIST, &org.id.to_string()])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = store::servers::page(&mut connection, org.id, &after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |server| server.slug.clone())?;
    let servers = endpoints::shown(&mut connection, &org, &found).await?;
    Ok(ListServersResponse { servers, next_page_token })
}

async fn update(api: &Api, caller: &Caller, request: UpdateServerRequest) -> Result<Server, Error> {
    let given = aip::present("server", request.server.as_ref())?;
    let [slug, server_slug] = ids("server.name", &given.name)?;
    let mask = Mask::read(request.update_mask.as_ref(), given, &fields::ALL)?;
    let mut change = match api.begin(caller, UPDATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::servers::lock(change.connection(), org.id, server_slug).await?;
    let before = found.ok_or_else(|| Error::NotFound(given.name.clone()))?;
    let mut server = before.clone();
    aip::check_etag(&given.name, &given.etag, &server.id.to_string(), &server.meta)?;
    fields::apply(&mut server, given, mask.fields(), &api.core.custody)?;
    let server = store::servers::update(change.connection(), &server).await?;
    finish(api, change, &org, (Some(before), server), mask.fields()).await
}

async fn delete(api: &Api, caller: &Caller, request: DeleteServerRequest) -> Result<DeleteServerResponse, Error> {
    let [slug, server_slug] = ids("name", &request.name)?;
    let mut change = match api.begin(caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Change).await?;
    let found = store::servers::lock(change.connection(), org.id, server_slug).await?;
    let server = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    aip::check_etag(&request.name, &request.etag, &server.id.to_string(), &server.meta)?;
    let policies = store::servers::named_by(change.connection(), org.id, &server.slug).await?;
    let limits = store::rate_limits::naming(change.connection(), org.id, &server.slug).await?;
    let policies = policies.iter().map(|policy| policies::fields::name(slug, policy));
    let by: Vec<String> = policies.chain(limits.iter().map(|limit| rate_limits::fields::name(slug, limit))).collect();
    if !by.is_empty() {
        return Err(Error::InUse { what: request.name, by });
    }
    store::servers::delete(change.connection(), server.id).await?;
    touch(&mut change, &org, Some(&server), None);
    let sealed = change.seal().await?;
    let answer = DeleteServerResponse { config_version: sealed.version() };
    api.finish(sealed, answer).await
}

/// Seals and commits a change whose row is written.
async fn finish(
    api: &Api,
    mut change: Box<Change>,
    org: &Organization,
    (before, mut server): (Option<domain::Server>, domain::Server),
    changed: &[&str],
) -> Result<Server, Error> {
    touch(&mut change, org, before.as_ref(), Some(&server));
    change.detail(json!({ "fields": changed })); // not the values: a URL may carry a secret
    let answer = endpoints::show(change.connection(), org, &server).await?;
    let sealed = change.seal().await?;
    server.meta = sealed.stamp(server.meta);
    let stamped = fields::message(&org.slug, &server);
    api.finish(sealed, Server { endpoint_states: answer.endpoint_states, found_out: answer.found_out, ..stamped }).await
}

/// Says what became of a server: new without `before`, gone without `after`.
pub(super) fn touch(change: &mut Change, org: &Organization, before: Option<&domain::Server>, after: Option<&domain::Server>) {
    let Some(either) = after.or(before) else { return };
    let gone = if after.is_none() { either.credential.as_ref() } else { None };
    change.touch(Touched {
        kind: Kind::Server,
        operation: Operation::between(before, after),
        resource: fields::name(&org.slug, &either.slug),
        org: Some((org.id, org.slug.clone())),
        row: after.map_or(Row::None, |server| Row::Server(server.id)),
        reaches_nodes: true,
        before: before.map(|server| fields::document(&org.slug, server)),
        after: after.map(|server| fields::document(&org.slug, server)),
        credential: gone.map(|credential| credential.wrapped.clone()),
    });
}

pub(super) fn ids<'a>(field: &str, name: &'a str) -> Result<[&'a str; 2], Error> {
    aip::ids(field, name, ["organizations", "servers"])
}
