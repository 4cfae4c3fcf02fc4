//! The official conformance suite through the gateway: nothing worse than the same backend's direct run, and a record of every request.
//! With the backend in the other era than the suite, nothing worse but what is listed with its reason.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_gateway::proto::config::v1::Era;
use mcpgw_tests::backend::SeenRequest;
use mcpgw_tests::conformance::{self, Across, Suite};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn across_eras_the_official_suite_finds_worse_what_is_listed_and_nothing_else() {
    let fleet = Fleet::start().await.unwrap();
    fleet.open_in(Era::Legacy, "legacy").await.unwrap();
    fleet.open_in(Era::Modern, "modern").await.unwrap();
    let across = Across::committed().unwrap();
    let mut differences = Vec::new();
    for suite in Suite::ALL {
        let directory = tempfile::tempdir().unwrap();
        let server = if suite.is_modern() { "legacy" } else { "modern" };
        fleet.backend.stats().reset();
        let report = conformance::run(suite, &fleet.url(server), directory.path()).await.unwrap();
        let worse = conformance::worse_than(&conformance::direct(suite).unwrap(), &report);
        println!("{suite} at a {server} server: {:?}, {} listed", report.totals(), across.count(suite));
        differences.extend(across.differences(suite, &worse).into_iter().map(|difference| format!("{suite}: {difference}")));
        assert_eq!(eras_seen(&fleet), [server], "{suite}");
    }
    assert!(differences.is_empty(), "{} is not what was found:\n{}", Across::path().display(), differences.join("\n"));
}

/// The eras in which the backend was spoken to, as the headers of the requests say.
fn eras_seen(fleet: &Fleet) -> Vec<&'static str> {
    let seen = fleet.backend.stats().snapshot();
    let era = |request: &SeenRequest| match request.header("mcp-protocol-version") {
        Some("2026-07-28") => "modern",
        Some(_) | None => "legacy",
    };
    let eras: BTreeSet<&'static str> = seen.requests.iter().map(era).collect();
    eras.into_iter().collect()
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
