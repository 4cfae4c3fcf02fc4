//! Joining, renewing and being removed, over real TLS on a real Postgres.

use mcp_gateway::{
    proto::node::v1::{
        EnrollRequest, RenewRequest, ReportStatusRequest, ShipRequest, enrollment_service_client::EnrollmentServiceClient,
        node_service_client::NodeServiceClient,
    },
    seal::open_pool_key,
};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use tokio_stream::iter;
use tonic::Code;

use super::{
    client::{Client, Joined, token},
    identity::Identity,
};
use crate::testing::Running;

async fn count(running: &Running, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut running.sql().await).await.unwrap()
}

const NODES: &str = "SELECT count(*) FROM nodes";
const UNUSED: &str = "SELECT count(*) FROM join_tokens WHERE used_at IS NULL";
const REFUSED: &str = "SELECT count(*) FROM audit_logs WHERE action = 'node.enroll' AND outcome = 'denied'";
const JOINED: &str = "SELECT count(*) FROM audit_logs WHERE action = 'node.enroll' AND outcome = 'ok'";

#[tokio::test]
async fn a_node_joins_with_a_token_and_gets_all_it_needs() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "edge").await;
    let credentials = joined.response.credentials.as_ref().unwrap();
    let pem = x509_parser::pem::parse_x509_pem(credentials.certificate_pem.as_bytes()).unwrap().1;
    let identity = Identity::of_certificate(&pem.contents, &running.core.config.trust_domain).unwrap();
    assert_eq!(identity, Identity { node_id: joined.id(), pool: "edge".into() });
    assert_eq!(joined.response.pool, "edge");
    assert!(Identity::of_certificate(&pem.contents, "other.example").is_err());

    let keys = running.core.custody.with_pool("edge").await.unwrap();
    let opened = open_pool_key(&joined.client.hpke, &credentials.pool_keys[0]).unwrap();
    assert_eq!(opened.as_bytes(), keys.pools["edge"].current().material.as_bytes());
    assert_eq!(credentials.manifest_keys[0].public_key, keys.manifest.current().material.public());
    assert_eq!((count(&running, NODES).await, count(&running, JOINED).await), (1, 1));
}

#[tokio::test]
async fn of_many_uses_of_one_token_exactly_one_wins() {
    let running = Running::start().await;
    let token = token(&running, "default", 60).await;
    let attempts: Vec<_> = (0..6)
        .map(|_| {
            let (client, token) = (Client::of(&running), token.clone());
            async move { client.enrol(&token).await.map_err(|status| status.code()) }
        })
        .collect();
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|code| *code == Code::PermissionDenied));
    assert_eq!(Client::of(&running).enrol(&token).await.unwrap_err().code(), Code::PermissionDenied, "and no later one");
    assert_eq!((count(&running, NODES).await, count(&running, JOINED).await, count(&running, REFUSED).await), (1, 1, 6));
}

#[tokio::test]
async fn tokens_that_are_no_good_are_refused_alike_and_recorded() {
    let running = Running::start().await;
    let (expired, good) = (token(&running, "default", -1).await, token(&running, "default", 60).await);
    let forged = format!("{}x", &good[..good.len() - 1]);
    let mut messages = Vec::new();
    for token in [expired.as_str(), &forged, "mcpgwj_aaaaaaaaaaaaaaaa_secret", "rubbish", ""] {
        let status = Client::of(&running).enrol(token).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        messages.push(status.message().to_owned());
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);
    assert_eq!((count(&running, NODES).await, count(&running, UNUSED).await, count(&running, REFUSED).await), (0, 2, 5));
    assert!(Client::of(&running).enrol(&good).await.is_ok(), "a guess does not use a token up");
}

#[tokio::test]
async fn a_malformed_request_leaves_the_token_unused() {
    let running = Running::start().await;
    let (client, token) = (Client::of(&running), token(&running, "default", 60).await);
    let good = client.request(&token);
    let mut altered = client.csr();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256);
    let mut requests = vec![
        EnrollRequest { csr: vec![].into(), ..good.clone() },
        EnrollRequest { csr: altered.into(), ..good.clone() },
        EnrollRequest { csr: vec![0x30; 10_000].into(), ..good.clone() },
        EnrollRequest { hpke_public_key: vec![1; 31].into(), ..good.clone() },
        EnrollRequest { display_name: "x".repeat(201), ..good.clone() },
        EnrollRequest { display_name: "\0".into(), ..good.clone() },
    ];
    if let Ok(rsa) = rsa {
        let csr = CertificateParams::default().serialize_request(&rsa).unwrap();
        requests.push(EnrollRequest { csr: csr.der().to_vec().into(), ..good.clone() });
    }
    let mut service = EnrollmentServiceClient::new(client.connect(None).await.unwrap());
    for request in requests {
        assert_eq!(service.enroll(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!((count(&running, NODES).await, count(&running, UNUSED).await), (0, 1));
    assert!(service.enroll(good).await.is_ok());
}

#[tokio::test]
async fn without_a_certificate_only_enrolment_answers() {
    let running = Running::start().await;
    let client = Client::of(&running);
    let mut service = NodeServiceClient::new(client.connect(None).await.unwrap());
    let renew = RenewRequest { csr: client.csr().into(), hpke_public_key: client.hpke.public.clone().into() };
    assert_eq!(service.renew(renew).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(service.report_status(ReportStatusRequest::default()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(service.ship(iter([ShipRequest::default()])).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_even_connect() {
    let (running, other) = (Running::start().await, Running::start().await);
    let mut stranger = Joined::to(&other, "default").await;
    stranger.client.address = Client::of(&running).address;
    stranger.client.ca = Client::of(&running).ca;
    let certificate = stranger.response.credentials.clone().unwrap().certificate_pem;
    // TLS 1.3 tells the client of the refusal with the first answer.
    let refused = match stranger.client.connect(Some(&certificate)).await {
        Err(_) => true,
        Ok(channel) => NodeServiceClient::new(channel).report_status(ReportStatusRequest::default()).await.is_err(),
    };
    assert!(refused);
    assert_eq!(count(&running, "SELECT count(*) FROM node_status").await, 0);
}

#[tokio::test]
async fn renewal_keeps_the_identity_and_may_bring_a_new_key() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let fresh = Client::of(&running);
    let renew = RenewRequest { csr: fresh.csr().into(), hpke_public_key: fresh.hpke.public.clone().into() };
    let renewed = joined.service().await.renew(renew).await.unwrap().into_inner().credentials.unwrap();
    assert!(open_pool_key(&fresh.hpke, &renewed.pool_keys[0]).is_ok());
    let mut service = NodeServiceClient::new(fresh.connect(Some(&renewed.certificate_pem)).await.unwrap());
    let report =
        ReportStatusRequest { epoch: 1, version: 3, digest: vec![1; 32].into(), build: "9".into(), ..Default::default() };
    service.report_status(report.clone()).await.unwrap();
    let node = running.core.store.node(joined.id()).await.unwrap().unwrap();
    assert_eq!((node.applied.version, node.build.as_str(), node.connected), (3, "9", false));
    assert!(joined.service().await.report_status(report).await.is_ok(), "the old certificate works until it expires");
    for bad in [
        ReportStatusRequest { digest: vec![1; 31].into(), ..Default::default() },
        ReportStatusRequest { build: "\0".into(), ..Default::default() },
    ] {
        assert_eq!(service.report_status(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_report_is_answered_with_how_many_nodes_of_the_pool_are_alive() {
    let running = Running::start().await;
    let (first, second) = (Joined::to(&running, "default").await, Joined::to(&running, "default").await);
    let elsewhere = Joined::to(&running, "other").await;
    let live = async |joined: &Joined| {
        joined.service().await.report_status(ReportStatusRequest::default()).await.unwrap().into_inner().live_nodes
    };
    assert_eq!((live(&first).await, live(&elsewhere).await, live(&second).await, live(&first).await), (1, 1, 2, 2));
    let silent =
        "UPDATE node_status SET last_seen_at = now() - interval '46 s', reported_at = now() - interval '46 s' WHERE node_id = $1";
    sqlx::query(silent).bind(second.id()).execute(&mut running.sql().await).await.unwrap();
    assert_eq!((live(&first).await, live(&second).await), (1, 2), "one that was silent for 45 s is not");
    let mut connection = running.core.store.connection().await.unwrap();
    crate::store::nodes::revoke_node(&mut connection, second.id()).await.unwrap();
    assert_eq!(live(&first).await, 1);
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_stays_out() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    running.core.publications.watch().wait_for(Option::is_some).await.unwrap();
    let first = mcp_gateway::type_url::MANIFEST;
    let request = || super::client::all(first);
    let with_node =
        || mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest { node: Some(joined.node(&[])), ..request() };
    let mut stream = joined.discover(vec![with_node()]).await.unwrap();
    stream.ack().await;
    let mut connection = running.core.store.connection().await.unwrap();
    assert_eq!(crate::store::nodes::revoke_node(&mut connection, joined.id()).await.unwrap().as_deref(), Some("default"));
    assert_eq!(stream.end().await.code(), Code::PermissionDenied);
    assert_eq!(joined.discover(vec![with_node()]).await.err().unwrap().code(), Code::PermissionDenied);
    let mut service = joined.service().await;
    let renew = RenewRequest { csr: joined.client.csr().into(), hpke_public_key: joined.client.hpke.public.clone().into() };
    assert_eq!(service.renew(renew).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(service.report_status(ReportStatusRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(service.ship(iter([ShipRequest::default()])).await.unwrap_err().code(), Code::PermissionDenied);
}
