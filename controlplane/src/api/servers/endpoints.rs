//! What is shown with a server and is no part of the configuration: the states of its endpoints, which are set here, and what nodes found out.

use mcp_gateway::proto::{
    admin::v1::{FoundOut, Server, SetEndpointStateRequest},
    config::v1::EndpointState,
};
use serde_json::json;

use super::{
    super::{Api, Begun, aip, error::Error},
    Caller, Hold, fields, ids,
};
use crate::{
    domain::{self, Organization},
    store::{
        self, Connection,
        change::{Kind, Operation, Touched},
    },
};

const SET: &str = "/mcpgw.admin.v1.ServerService/SetEndpointState";

/// Servers as callers see them.
pub async fn shown(connection: &mut Connection, org: &Organization, servers: &[domain::Server]) -> Result<Vec<Server>, Error> {
    let ids: Vec<_> = servers.iter().map(|server| server.id).collect();
    let states = store::endpoints::of(connection, &ids).await?;
    let found = store::found::of(connection, &ids).await?;
    let one = |server: &domain::Server| {
        let states = states.iter().filter(|(of, _)| *of == server.id).map(|(_, status)| status.clone());
        let found = found.iter().filter(|row| row.server_id == server.id).map(found_out);
        Server { endpoint_states: states.collect(), found_out: found.collect(), ..fields::message(&org.slug, server) }
    };
    Ok(servers.iter().map(one).collect())
}

fn found_out(row: &store::found::Row) -> FoundOut {
    FoundOut {
        node: format!("nodes/{}", row.node_id),
        transport: row.transport.into(),
        era: row.era.into(),
        find_time: Some(aip::timestamp(row.found_at)),
    }
}

/// As [`shown`], of one.
pub async fn show(connection: &mut Connection, org: &Organization, server: &domain::Server) -> Result<Server, Error> {
    Ok(shown(connection, org, std::slice::from_ref(server)).await?.remove(0))
}

/// Sets one endpoint's state. Makes no version and asks nothing of the configuration: an endpoint can be drained whatever state that is in.
pub async fn set(api: &Api, caller: &Caller, request: SetEndpointStateRequest) -> Result<Server, Error> {
    let [slug, server_slug] = ids("name", &request.name)?;
    let state = match request.state() {
        EndpointState::Unspecified => return Err(Error::invalid("state", "expected ACTIVE or DRAINED")),
        state @ (EndpointState::Active | EndpointState::Drained) => state,
    };
    let mut change = match api.begin(caller, SET, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let org = caller.organization(change.connection(), slug, Hold::Read).await?;
    let found = store::servers::lock(change.connection(), org.id, server_slug).await?;
    let server = found.ok_or_else(|| Error::NotFound(request.name.clone()))?;
    if !server.endpoints.iter().any(|endpoint| endpoint.url == request.url) {
        return Err(Error::invalid("url", "expected the URL of one of the server's endpoints"));
    }
    let actor = change.origin().actor.name.clone();
    store::endpoints::set(change.connection(), server.id, &request.url, state, &actor).await?;
    let touched = Touched::aside(Kind::Server, Operation::Update, fields::name(&org.slug, &server.slug));
    change.touch(Touched { org: Some((org.id, org.slug.clone())), ..touched });
    change.action(if state == EndpointState::Drained { "server.drain" } else { "server.undrain" });
    change.detail(json!({ "endpoint": aip::place(&request.url) }));
    let answer = show(change.connection(), &org, &server).await?;
    api.finish(change.seal().await?, answer).await
}
