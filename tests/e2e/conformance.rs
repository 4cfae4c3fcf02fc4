//! The official conformance suite through the gateway: nothing worse than the same backend's direct run, and a record of every request.

use std::collections::BTreeSet;
use std::time::Duration;

use mcpgw_tests::conformance::{self, Suite};
use mcpgw_tests::fleet::{Fleet, ORG, Witness};
use sqlx::Row as _;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_suite_finds_nothing_worse_through_the_gateway_and_every_request_is_on_record() {
    let fleet = Fleet::start().await.unwrap();
    fleet.open("open").await.unwrap();
    let witness = Witness::before(fleet.node.addresses.listen[0]).await.unwrap();
    let url = witness.url(&format!("/o/{ORG}/servers/open/mcp"));
    for suite in Suite::ALL {
        let directory = tempfile::tempdir().unwrap();
        let report = conformance::run(suite, &url, directory.path()).await.unwrap();
        let worse = conformance::worse_than(&conformance::direct(suite).unwrap(), &report);
        println!("{suite}: {:?}", report.totals());
        assert!(worse.is_empty(), "{suite}: {worse:#?}");
    }
    let answered = witness.request_ids();
    assert!(answered.len() > 400, "only {} answers passed the witness", answered.len());
    let distinct: BTreeSet<Uuid> = answered.iter().map(|id| id.parse().expect("every answer names its request")).collect();
    assert_eq!(distinct.len(), answered.len(), "a request id was used twice");
    everything_is_on_record(&fleet, &distinct).await;
}

/// Waits for the rows: exactly one per request.
async fn everything_is_on_record(fleet: &Fleet, expected: &BTreeSet<Uuid>) {
    let mut sql = fleet.control.running.sql().await;
    let ids: Vec<Uuid> = expected.iter().copied().collect();
    let mut turn = tokio::time::interval(Duration::from_millis(50));
    let arrived = async {
        loop {
            turn.tick().await;
            let found = sqlx::query("SELECT request_id FROM request_logs WHERE request_id = ANY($1) AND outcome IS NOT NULL");
            let rows = found.bind(&ids).fetch_all(&mut sql).await.unwrap();
            if rows.len() >= ids.len() {
                return rows;
            }
        }
    };
    let rows = tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("every request has its row");
    let distinct: BTreeSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!((rows.len(), &distinct), (expected.len(), expected));
}
