//! A database that comes back without its last seconds: nodes are told how far it is, ship again what it lost, and nothing is damaged.

use super::*;
use crate::testing::{Postgres, Running, config};

#[tokio::test]
async fn a_database_that_lost_its_last_seconds_gets_them_again() {
    let server = Postgres::start();
    server.execute("CREATE DATABASE own").await;
    let running = Running::with(config(&server.url("own"))).await;
    let joined = Joined::to(&running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    let calls: Vec<Call> = (0..20).map(|_| Call::of(Uuid::from_u128(1))).collect();
    calls.iter().for_each(|call| [call.decided(), call.ended()].into_iter().for_each(|event| lane.push(event)));
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(0..15)).await, Ok(15));
    checkpoint::take(&running.core).await.unwrap();
    server.down();
    server.remember();
    server.up();
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(15..40)).await, Ok(40));
    checkpoint::take(&running.core).await.unwrap();
    server.down();
    server.forget_since();
    server.up();
    // A node asks where it stands, and hears that it has to go back.
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(0..0)).await, Ok(15));
    assert_eq!(shipping.ship(lane.batch(15..30)).await, Ok(30));
    assert_eq!(shipping.ship(lane.batch(10..40)).await, Ok(40));
    assert_eq!(checkpoint::take(&running.core).await.unwrap(), Some(2));
    let owner = running.owner().await;
    let mut evidence = mcp_gateway::proto::admin::v1::evidence_service_client::EvidenceServiceClient::new(owner);
    let mut stream = evidence.verify_logs(VerifyLogsRequest::default()).await.unwrap().into_inner();
    let mut summary = None;
    while let Some(answer) = stream.message().await.unwrap() {
        match answer.said.unwrap() {
            Said::Progress(_) => {}
            Said::Finding(finding) => panic!("{finding:?}"),
            Said::Summary(said) => summary = Some(said),
        }
    }
    assert_eq!(summary.map(|it| (it.rows, it.halves)), Some((20, 40)));
}
