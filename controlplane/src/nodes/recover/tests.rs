//! Coming back without a certificate, over real TLS on a real Postgres. That a certificate has expired needs no clock here: none is shown.

use mcp_gateway::{
    proto::node::v1::{
        NodeCredentials, RecoverRequest, RenewRequest, ReportStatusRequest, enrollment_service_client::EnrollmentServiceClient,
        node_service_client::NodeServiceClient,
    },
    seal::open_pool_key,
};
use tonic::{Code, Status};

use super::PER_DAY;
use crate::{
    nodes::client::{Client, Joined},
    testing::Running,
};

async fn recover(client: &Client, node_id: &str) -> Result<NodeCredentials, Status> {
    let request = RecoverRequest { node_id: node_id.into(), csr: client.csr().into(), build: "9".into() };
    let mut service = EnrollmentServiceClient::new(client.connect(None).await.unwrap());
    Ok(service.recover(request).await?.into_inner().credentials.unwrap())
}

/// Renews to the keys of `fresh`, as the node that was certified with the keys of `held`.
async fn renew(held: &Client, certificate_pem: &str, fresh: &Client) -> NodeCredentials {
    let request = RenewRequest { csr: fresh.csr().into(), hpke_public_key: fresh.hpke.public.clone().into() };
    let mut service = NodeServiceClient::new(held.connect(Some(certificate_pem)).await.unwrap());
    service.renew(request).await.unwrap().into_inner().credentials.unwrap()
}

async fn outcomes(running: &Running) -> (i64, i64) {
    let count = "SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE outcome = 'denied') FROM audit_logs \
        WHERE action = 'node.recover'";
    sqlx::query_as(count).fetch_one(&mut running.sql().await).await.unwrap()
}

#[tokio::test]
async fn a_node_comes_back_with_the_key_that_it_registered() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "edge").await;
    let credentials = recover(&joined.client, &joined.response.node_id).await.unwrap();
    let keys = running.core.custody.with_pool("edge").await.unwrap();
    let opened = open_pool_key(&joined.client.hpke, &credentials.pool_keys[0]).unwrap();
    assert_eq!(opened.as_bytes(), keys.pools["edge"].current().material.as_bytes());
    let channel = joined.client.connect(Some(&credentials.certificate_pem)).await.unwrap();
    NodeServiceClient::new(channel).report_status(ReportStatusRequest::default()).await.unwrap();
    assert_eq!(outcomes(&running).await, (1, 0));
    let fresh = Client::of(&running);
    renew(&joined.client, &credentials.certificate_pem, &fresh).await;
}

#[tokio::test]
async fn without_the_registered_key_nobody_is_told_why_not() {
    let running = Running::start().await;
    let (joined, removed, stranger) =
        (Joined::to(&running, "default").await, Joined::to(&running, "default").await, Client::of(&running));
    let mut connection = running.core.store.connection().await.unwrap();
    crate::store::nodes::revoke_node(&mut connection, removed.id()).await.unwrap();
    let id = &joined.response.node_id;
    let refused = [
        recover(&stranger, id).await,
        recover(&removed.client, id).await,
        recover(&removed.client, &removed.response.node_id).await,
        recover(&joined.client, &uuid::Uuid::now_v7().to_string()).await,
        recover(&joined.client, "x' OR 1=1").await,
    ];
    let attempts = i64::try_from(refused.len()).unwrap();
    let told: std::collections::BTreeSet<_> = refused.map(|answer| answer.unwrap_err().to_string()).into();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told.first().unwrap().contains("not the key"), "{told:?}");
    assert_eq!(outcomes(&running).await, (0, attempts));
    for _ in 0..PER_DAY {
        recover(&joined.client, id).await.expect("what others tried does not count");
    }
}

#[tokio::test]
async fn a_repeated_request_is_of_no_use_to_whoever_repeats_it() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let request =
        RecoverRequest { node_id: joined.response.node_id.clone(), csr: joined.client.csr().into(), build: String::new() };
    let thief = Client::of(&running);
    let mut service = EnrollmentServiceClient::new(thief.connect(None).await.unwrap());
    let stolen = service.recover(request).await.unwrap().into_inner().credentials.unwrap();
    assert!(open_pool_key(&thief.hpke, &stolen.pool_keys[0]).is_err(), "sealed to the key that the node registered");
    assert!(open_pool_key(&joined.client.hpke, &stolen.pool_keys[0]).is_ok());
    let refused = match thief.connect(Some(&stolen.certificate_pem)).await {
        Err(_) => true,
        Ok(channel) => NodeServiceClient::new(channel).report_status(ReportStatusRequest::default()).await.is_err(),
    };
    assert!(refused, "a certificate is nothing without its key");
}

#[tokio::test]
async fn after_three_times_within_a_day_a_person_has_to_look() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let id = &joined.response.node_id;
    for _ in 0..PER_DAY {
        recover(&joined.client, id).await.unwrap();
    }
    let refused = recover(&joined.client, id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("join-token create"), "{refused:?}");
    assert_eq!(outcomes(&running).await, (3, 1));
    let age = "UPDATE nodes SET recoveries = ARRAY (SELECT r.at - interval '1 day' FROM unnest(recoveries) AS r (at))";
    sqlx::query(age).execute(&mut running.sql().await).await.unwrap();
    recover(&joined.client, id).await.expect("another day");
    let kept: i32 =
        sqlx::query_scalar("SELECT cardinality(recoveries) FROM nodes").fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(kept, 1, "older ones are forgotten");
}

#[tokio::test]
async fn a_node_that_never_got_the_answer_to_a_renewal_comes_back_with_the_keys_it_has() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let (id, certificate) = (&joined.response.node_id, joined.response.credentials.clone().unwrap().certificate_pem);
    for _ in 0..2 {
        let lost = Client::of(&running);
        renew(&joined.client, &certificate, &lost).await;
    }
    let credentials = recover(&joined.client, id).await.unwrap();
    assert!(open_pool_key(&joined.client.hpke, &credentials.pool_keys[0]).is_ok());
    // Two renewals that arrived: what it had at first is no key of the node any more.
    let (second, third) = (Client::of(&running), Client::of(&running));
    let got = renew(&joined.client, &credentials.certificate_pem, &second).await;
    renew(&second, &got.certificate_pem, &third).await;
    assert_eq!(recover(&joined.client, id).await.unwrap_err().code(), Code::PermissionDenied);
    let credentials = recover(&third, id).await.unwrap();
    assert!(open_pool_key(&third.hpke, &credentials.pool_keys[0]).is_ok());
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_as_such() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let good = RecoverRequest { node_id: joined.response.node_id.clone(), csr: joined.client.csr().into(), build: String::new() };
    let mut altered = joined.client.csr();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let mut service = EnrollmentServiceClient::new(joined.client.connect(None).await.unwrap());
    for request in [
        RecoverRequest { csr: vec![].into(), ..good.clone() },
        RecoverRequest { csr: altered.into(), ..good.clone() },
        RecoverRequest { build: "\0".into(), ..good.clone() },
    ] {
        assert_eq!(service.recover(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(outcomes(&running).await, (0, 0));
}
