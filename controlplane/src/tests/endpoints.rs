//! States of endpoints, over gRPC, on a real database: at once, on record, and without a version.

use mcp_gateway::{
    proto::{
        admin::v1::{
            CreateServerRequest, GetServerRequest, ListServersRequest, Role, Server, SetEndpointStateRequest, UpdateServerRequest,
        },
        config::v1::{Endpoint, EndpointState, EndpointStatus, Endpoints},
    },
    type_url,
};
use prost::Message;
use tonic::Code;
use uuid::Uuid;

use super::admin::{Admin, Person, mask, refused};
use crate::publish::Published;

const ACME: &str = "organizations/acme";
const NAME: &str = "organizations/acme/servers/github";
const ONE: &str = "https://one.example.com/mcp?region=x";
const OTHER: &str = "https://two.example.com/mcp";

fn server(urls: &[&str]) -> Server {
    let endpoints = urls.iter().map(|url| Endpoint { url: (*url).into(), weight: 0 }).collect();
    Server { name: NAME.into(), endpoints, ..Default::default() }
}

async fn created(person: &Person) -> Server {
    let server = Some(server(&["https://one.example.com/mcp", OTHER]));
    let create = CreateServerRequest { parent: ACME.into(), server_id: "github".into(), server, ..Default::default() };
    person.servers().create_server(create).await.unwrap().into_inner()
}

fn set(url: &str, state: EndpointState) -> SetEndpointStateRequest {
    SetEndpointStateRequest { name: NAME.into(), url: url.into(), state: state.into(), ..Default::default() }
}

fn drained(url: &str) -> EndpointStatus {
    EndpointStatus { url: url.into(), state: EndpointState::Drained.into() }
}

/// What the pool's nodes are told beside their manifest.
fn told(published: &Published) -> Endpoints {
    let (name, encoded) = published.beside["default"].types[type_url::ENDPOINTS].first_key_value().unwrap();
    assert_eq!(&**name, "endpoints/default");
    Endpoints::decode(encoded.body.clone()).unwrap()
}

/// Waits until the nodes are told this many servers' endpoints.
async fn until_told(admin: &Admin, servers: usize) -> Endpoints {
    admin.running.core.publications.wake();
    let mut watch = admin.running.core.publications.watch();
    let found = watch.wait_for(|now| now.as_ref().is_some_and(|now| told(now).servers.len() == servers)).await.unwrap();
    told(found.as_ref().unwrap())
}

#[tokio::test]
async fn an_operator_drains_an_endpoint_at_once_and_no_version_is_made() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let made = created(&person).await;
    let operator = admin.member(acme, Role::Operator).await;
    let version = admin.version().await;
    until_told(&admin, 0).await;
    let answer = operator.servers().set_endpoint_state(set(OTHER, EndpointState::Drained)).await.unwrap().into_inner();
    assert_eq!(answer.endpoint_states, [drained(OTHER)]);
    assert_eq!((answer.etag, answer.config_version), (made.etag.clone(), made.config_version), "the server is as it was");
    let told = until_told(&admin, 1).await;
    assert_eq!((told.servers[0].server_id.clone(), told.servers[0].endpoints.clone()), (made.uid, vec![drained(OTHER)]));
    assert_eq!(admin.version().await, version);
    let (_, action, resource, recorded, detail) = admin.newest_audit().await;
    assert_eq!((action.as_str(), resource.as_str(), recorded), ("server.drain", NAME, 0));
    assert_eq!(detail["endpoint"], OTHER);

    let read = person.servers().get_server(GetServerRequest { name: NAME.into() }).await.unwrap().into_inner();
    assert_eq!(read.endpoint_states, [drained(OTHER)]);
    let list = ListServersRequest { parent: ACME.into(), ..Default::default() };
    let listed = person.servers().list_servers(list).await.unwrap().into_inner().servers;
    assert_eq!(listed[0].endpoint_states, [drained(OTHER)]);

    let back = operator.servers().set_endpoint_state(set(OTHER, EndpointState::Active)).await.unwrap().into_inner();
    assert_eq!(back.endpoint_states, []);
    until_told(&admin, 0).await;
    assert_eq!(admin.newest_audit().await.1, "server.undrain");
}

#[tokio::test]
async fn only_endpoints_that_a_server_has_can_be_drained() {
    let (mut admin, _, person) = Admin::with_acme().await;
    created(&person).await;
    let before = admin.state().await;
    let elsewhere = set("https://three.example.com/mcp", EndpointState::Drained);
    refused("url", person.servers().set_endpoint_state(elsewhere).await, Code::InvalidArgument, &["url"]);
    let nothing = set(OTHER, EndpointState::Unspecified);
    refused("state", person.servers().set_endpoint_state(nothing).await, Code::InvalidArgument, &["state"]);
    let nobody = SetEndpointStateRequest { name: format!("{ACME}/servers/x"), ..set(OTHER, EndpointState::Drained) };
    refused("server", person.servers().set_endpoint_state(nobody).await, Code::NotFound, &[]);
    let checked = SetEndpointStateRequest { validate_only: true, ..set(OTHER, EndpointState::Drained) };
    person.servers().set_endpoint_state(checked).await.unwrap();
    assert_eq!(admin.state().await, before);
    let once = SetEndpointStateRequest { request_id: Uuid::now_v7().to_string(), ..set(OTHER, EndpointState::Drained) };
    let first = person.servers().set_endpoint_state(once.clone()).await.unwrap().into_inner();
    let after = admin.state().await;
    assert_eq!(person.servers().set_endpoint_state(once).await.unwrap().into_inner(), first);
    assert_eq!(admin.state().await, after, "a repeated request gets the first answer");
}

#[tokio::test]
async fn an_endpoint_that_a_server_loses_is_a_new_one_when_it_comes_back() {
    let (admin, _, person) = Admin::with_acme().await;
    let made = created(&person).await;
    person.servers().set_endpoint_state(set(OTHER, EndpointState::Drained)).await.unwrap();
    let update = |urls: &[&str]| UpdateServerRequest {
        server: Some(server(urls)),
        update_mask: mask(&["endpoints"]),
        ..Default::default()
    };
    let kept = person.servers().update_server(update(&[ONE, OTHER])).await.unwrap().into_inner();
    assert_eq!(kept.endpoint_states, [drained(OTHER)]);
    person.servers().update_server(update(&[ONE])).await.unwrap();
    let back = person.servers().update_server(update(&[ONE, OTHER])).await.unwrap().into_inner();
    assert_eq!((back.endpoint_states, back.uid), (vec![], made.uid));
    until_told(&admin, 0).await;
}

#[tokio::test]
async fn the_record_names_the_endpoint_without_what_may_be_secret_in_its_url() {
    let (mut admin, _, person) = Admin::with_acme().await;
    created(&person).await;
    let update = UpdateServerRequest { server: Some(server(&[ONE])), update_mask: mask(&["endpoints"]), ..Default::default() };
    person.servers().update_server(update).await.unwrap();
    person.servers().set_endpoint_state(set(ONE, EndpointState::Drained)).await.unwrap();
    assert_eq!(admin.newest_audit().await.4["endpoint"], "https://one.example.com/mcp");
}
