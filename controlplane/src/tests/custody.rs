//! Keys in custody move on: next, current, retiring, gone; what was made with them stays good, and every replica follows.

use mcp_gateway::proto::{
    admin::v1::{
        CreateOrganizationRequest, CreateServerRequest, CustodyKey, CustodyKeyState, ListCustodyKeysRequest,
        ListOrganizationsRequest, RotateCustodyKeyRequest, RotateCustodyKeyResponse, Server, UpstreamCredential,
        custody_service_client::CustodyServiceClient, organization_service_client::OrganizationServiceClient,
        server_service_client::ServerServiceClient,
    },
    config::v1::Endpoint,
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    domain::bundle::credential_context,
    testing::{Client, Running, config, database},
};

const PURPOSES: [&str; 6] = ["jwt", "manifest", "session", "credential", "pool/default", "node-ca"];

async fn keys(client: &Client, purpose: &str) -> Vec<CustodyKey> {
    let request = ListCustodyKeysRequest { purpose: purpose.into(), ..Default::default() };
    CustodyServiceClient::new(client.clone()).list_custody_keys(request).await.unwrap().into_inner().custody_keys
}

async fn rotate(client: &Client, purpose: &str) -> Result<RotateCustodyKeyResponse, Status> {
    let request = RotateCustodyKeyRequest { purpose: purpose.into(), ..Default::default() };
    CustodyServiceClient::new(client.clone()).rotate_custody_key(request).await.map(tonic::Response::into_inner)
}

fn named(keys: &[CustodyKey], state: CustodyKeyState) -> Vec<String> {
    keys.iter().filter(|key| key.state() == state).map(|key| key.name.clone()).collect()
}

/// Lets a day pass for the authorities, as nodes need it.
async fn age(running: &Running) {
    let query = "UPDATE keys SET created_at = created_at - interval '25 hours' WHERE purpose = 'node_ca'";
    sqlx::query(query).execute(&mut running.sql().await).await.unwrap();
}

#[tokio::test]
async fn each_purpose_moves_on_and_says_so() {
    let running = Running::start().await;
    let client = running.owner().await;
    age(&running).await;
    let mut last = 0;
    for purpose in PURPOSES {
        let before = keys(&client, purpose).await;
        let (current, next) = (named(&before, CustodyKeyState::Current), named(&before, CustodyKeyState::Next));
        assert_eq!((current.len(), next.len(), before.len()), (1, 1, 2), "{purpose}");
        let rotated = rotate(&client, purpose).await.unwrap();
        let after = rotated.custody_keys;
        assert_eq!(named(&after, CustodyKeyState::Current), next, "{purpose}");
        assert_eq!(named(&after, CustodyKeyState::Retiring), current, "{purpose}");
        assert_eq!(named(&after, CustodyKeyState::Next).len(), 1, "{purpose}");
        assert!(after.iter().all(|key| key.purpose == purpose && key.create_time.is_some()), "{after:?}");
        assert!(after.iter().all(|key| key.retire_time.is_some() == (key.state() == CustodyKeyState::Retiring)));
        assert_eq!(keys(&client, purpose).await.len(), 3, "{purpose}");
        assert!(rotated.config_version > last, "{purpose}");
        last = rotated.config_version;
        let record = "SELECT count(*) FROM audit_logs WHERE action = 'custody_key.rotate' AND outcome = 'ok' AND resource = $1 \
                      AND config_version = $2 AND detail->>'purpose' = $3";
        let record = sqlx::query_scalar(record).bind(&next[0]).bind(i64::try_from(last).unwrap()).bind(purpose);
        let recorded: i64 = record.fetch_one(&mut running.sql().await).await.unwrap();
        assert_eq!(recorded, 1, "{purpose}");
    }
    assert_eq!(keys(&client, "").await.len(), 3 * PURPOSES.len());
    // The administrator's own token is of before, and so is its right to another one.
    let list = ListOrganizationsRequest::default();
    OrganizationServiceClient::new(client.clone()).list_organizations(list).await.unwrap();
    let signed_with = running.core.custody.keys().unwrap().jwt.current().id.clone();
    assert_eq!(named(&keys(&client, "jwt").await, CustodyKeyState::Current), [format!("custodyKeys/{signed_with}")]);
}

#[tokio::test]
async fn what_nothing_can_need_any_more_is_removed_at_the_next_rotation() {
    let running = Running::start().await;
    for purpose in PURPOSES {
        let client = running.owner().await; // the key of an earlier token may be gone by now
        age(&running).await;
        rotate(&client, purpose).await.unwrap();
        age(&running).await;
        assert_eq!(rotate(&client, purpose).await.unwrap().custody_keys.len(), 4, "{purpose}: the retired one may be needed");
        let mut sql = running.sql().await;
        sqlx::query("UPDATE keys SET retired_at = retired_at - interval '31 days'").execute(&mut sql).await.unwrap();
        age(&running).await;
        assert_eq!(rotate(&client, purpose).await.unwrap().custody_keys.len(), 3, "{purpose}");
    }
}

#[tokio::test]
async fn a_rotation_that_cannot_be_changes_nothing_and_a_repeated_one_is_one() {
    let running = Running::start().await;
    let client = running.owner().await;
    let before = keys(&client, "").await;
    let too_soon = rotate(&client, "node-ca").await.unwrap_err();
    assert_eq!(too_soon.code(), Code::FailedPrecondition);
    assert!(too_soon.message().contains("rotate after"), "{too_soon:?}");
    for (purpose, code) in [("", Code::InvalidArgument), ("master", Code::InvalidArgument), ("pool/none", Code::NotFound)] {
        assert_eq!(rotate(&client, purpose).await.unwrap_err().code(), code, "{purpose}");
    }
    let mut service = CustodyServiceClient::new(client.clone());
    let checked = RotateCustodyKeyRequest { purpose: "jwt".into(), validate_only: true, ..Default::default() };
    assert_eq!(service.rotate_custody_key(checked).await.unwrap().into_inner().config_version, 0);
    assert_eq!(keys(&client, "").await, before);
    let once = RotateCustodyKeyRequest { purpose: "jwt".into(), request_id: Uuid::now_v7().to_string(), ..Default::default() };
    let first = service.rotate_custody_key(once.clone()).await.unwrap().into_inner();
    assert_eq!(service.rotate_custody_key(once).await.unwrap().into_inner(), first);
    assert_eq!(keys(&client, "jwt").await.len(), 3);
}

#[tokio::test]
async fn credentials_are_sealed_again_and_a_replica_that_knew_neither_key_publishes_them() {
    let url = database().await;
    let running = Running::with(config(&url)).await;
    let other = Running::with(config(&url)).await;
    let client = running.owner().await;
    let organization = CreateOrganizationRequest { organization_id: "acme".into(), ..Default::default() };
    OrganizationServiceClient::new(client.clone()).create_organization(organization).await.unwrap();
    let server = Server {
        endpoints: vec![Endpoint { url: "https://mcp.example.com/mcp".into(), weight: 0 }],
        upstream_credential: Some(UpstreamCredential { header: "authorization".into(), value: "Bearer s".into() }),
        ..Default::default()
    };
    let create = CreateServerRequest {
        parent: "organizations/acme".into(),
        server_id: "github".into(),
        server: Some(server),
        ..Default::default()
    };
    ServerServiceClient::new(client.clone()).create_server(create).await.unwrap();
    rotate(&client, "credential").await.unwrap();
    let rotated = rotate(&client, "credential").await.unwrap();

    let current = named(&rotated.custody_keys, CustodyKeyState::Current).remove(0).replace("custodyKeys/", "");
    let (id, wrapped): (Uuid, Vec<u8>) =
        sqlx::query_as("SELECT id, credential_wrapped FROM mcp_servers").fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(wrapped[1..=usize::from(wrapped[0])], *current.as_bytes(), "the current key seals it");
    for replica in [&running, &other] {
        let mut published = replica.core.publications.watch();
        let read = published.wait_for(|now| now.as_ref().is_some_and(|now| now.head.version.version >= rotated.config_version));
        tokio::time::timeout(std::time::Duration::from_secs(30), read).await.expect("it is published").unwrap();
        let custody = &replica.core.custody;
        assert_eq!(custody.keys().unwrap().credential.current().id, current);
        assert_eq!(custody.open(&credential_context(&id.to_string()), &wrapped).unwrap().as_slice(), b"Bearer s");
    }
    let [ours, theirs] = [&running, &other].map(|replica| replica.core.publications.now().unwrap().scopes["default"].digest);
    assert_eq!(ours, theirs, "the same content on every replica");
}
