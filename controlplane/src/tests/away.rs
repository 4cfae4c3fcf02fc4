//! The database goes away under a running control plane: calls say so, nothing is half done, and it heals by itself.

use mcp_gateway::proto::admin::v1::{
    CreateOrganizationRequest, ListOrganizationsRequest, LoginRequest, RefreshRequest, auth_service_client::AuthServiceClient,
    organization_service_client::OrganizationServiceClient,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::admin::refused;
use crate::testing::{OWNER_PASSWORD, Postgres, Running, config};

async fn get(running: &Running, path: &str) -> (u16, String) {
    use http_body_util::{BodyExt, Empty};
    let connector = hyper_util::client::legacy::connect::HttpConnector::new();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(connector);
    let request =
        http::Request::get(format!("http://{}{path}", running.addresses.http)).body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn without_its_database_it_says_so_everywhere_and_recovers() {
    let postgres = Postgres::start();
    postgres.execute("CREATE DATABASE frail").await;
    let mut settings = config(&postgres.url("frail"));
    settings.database_acquire_seconds = 1;
    let running = Running::with(settings).await;
    let client = running.owner().await;
    let mut orgs = OrganizationServiceClient::new(client.clone());
    let mut auth = AuthServiceClient::new(client.clone());
    let create = CreateOrganizationRequest { organization_id: "acme".into(), ..Default::default() };
    let login = LoginRequest { email: "owner@localhost".into(), password: OWNER_PASSWORD.into(), ..Default::default() };
    let refresh = RefreshRequest { refresh_token: client.tokens.refresh_token.clone(), audience: 0 };
    assert_eq!(get(&running, "/ready").await.0, 200);

    postgres.down();
    refused("read", orgs.list_organizations(ListOrganizationsRequest::default()).await, Code::Unavailable, &[]);
    refused("change", orgs.create_organization(create.clone()).await, Code::Unavailable, &[]);
    refused("login", auth.login(login.clone()).await, Code::Unavailable, &[]);
    refused("refresh", auth.refresh(refresh.clone()).await, Code::Unavailable, &[]);
    let (status, why) = get(&running, "/ready").await;
    assert_eq!((status, why.contains("database"), why.contains("postgres:")), (503, true, false), "{why}");
    assert_eq!(get(&running, "/health").await.0, 200);
    assert!(get(&running, "/metrics").await.1.contains("mcpgw_controlplane_admin_calls_total"));

    postgres.up();
    orgs.create_organization(create).await.unwrap();
    auth.refresh(refresh).await.unwrap(); // its failed try did not use the token up
    auth.login(login).await.unwrap();
    assert_eq!(get(&running, "/ready").await.0, 200);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn before_its_database_is_reached_it_listens_and_refuses() {
    let postgres = Postgres::start();
    postgres.down();
    let mut settings = config(&postgres.url("later"));
    settings.database_acquire_seconds = 1;
    let (running, _opened) = Running::unopened(settings).await;
    let client = running.anonymous().await;
    let mut orgs = OrganizationServiceClient::new(client.with_token("x"));
    refused("read", orgs.list_organizations(ListOrganizationsRequest::default()).await, Code::Unavailable, &[]);
    let login = LoginRequest { email: "owner@localhost".into(), password: OWNER_PASSWORD.into(), ..Default::default() };
    refused("login", AuthServiceClient::new(client.clone()).login(login).await, Code::Unavailable, &[]);
    assert_eq!(get(&running, "/ready").await.0, 503);
    assert_eq!(get(&running, "/.well-known/jwks.json").await.0, 503);
    let mut health = HealthClient::new(client);
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::NotServing);
}

#[tokio::test]
async fn health_reflection_and_public_keys_need_no_credential() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    };
    let running = Running::start().await;
    let client = running.anonymous().await;
    let mut health = HealthClient::new(client.clone());
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers =
        ServerReflectionClient::new(client).server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let services = format!("{:?}", answers.message().await.unwrap());
    assert!(services.contains("mcpgw.admin.v1.OrganizationService") && services.contains("grpc.reflection"), "{services}");
    let (status, jwks) = get(&running, "/.well-known/jwks.json").await;
    let jwks: serde_json::Value = serde_json::from_str(&jwks).unwrap();
    assert_eq!((status, jwks["keys"][0]["crv"].as_str(), jwks["keys"][0]["d"].as_str()), (200, Some("Ed25519"), None));
}
