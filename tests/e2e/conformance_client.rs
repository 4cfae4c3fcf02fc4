//! The official conformance suite as the server, a published SDK as the client, the gateway between them: nothing worse than directly, in
//! the era of the scenario and with the client in the other one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, DeleteServerRequest, Server};
use mcp_gateway::proto::config::v1::{Endpoint, Era};
use mcpgw_tests::conformance::{Record, Report, Scenario, Speaker, judged, play, scenarios, worse_than};
use mcpgw_tests::fleet::{Admin, Fleet, ORG, Rule};
use mcpgw_tests::serve::Served;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Each is two processes, and the machine has two cores.
const AT_ONCE: usize = 3;
const MODERN: &str = "2026-07-28";

/// What does not hold with the client in the other era: version, check, why. Frozen: what is not here has to hold, and what is has to fail.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Leads clients to the suite's servers, which are there for one scenario each.
struct Registrar {
    admin: Admin,
    /// Where the gateway is.
    gateway: String,
    count: AtomicUsize,
}

#[derive(Deserialize)]
struct Wanted {
    url: String,
    scenario: String,
}

async fn register(State(registrar): State<Arc<Registrar>>, Json(wanted): Json<Wanted>) -> Json<Value> {
    let slug = format!("suite-{}", registrar.count.fetch_add(1, Ordering::Relaxed));
    let server = Server {
        endpoints: vec![Endpoint { url: wanted.url, weight: 1 }],
        allow_anonymous: true,
        era: era_of(&wanted.scenario).into(),
        ..Server::default()
    };
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: slug.clone(),
        server: Some(server),
        ..CreateServerRequest::default()
    };
    let admin = &registrar.admin;
    let created = ServerServiceClient::new(admin.channel.clone()).create_server(admin.request(request)).await.unwrap();
    admin.wait(created.into_inner().config_version).await.unwrap();
    Json(json!({ "url": format!("{}/o/{ORG}/servers/{slug}/mcp", registrar.gateway), "server": slug }))
}

/// Two scenarios take every request for one of their client's. To find out whether a server knows the handshake is to send one, without what
/// modern requests have to say.
fn era_of(scenario: &str) -> Era {
    match scenario {
        "http-standard-headers" | "request-metadata" => Era::Modern,
        _ => Era::Unspecified,
    }
}

/// The suite waits until nobody is connected any more; the gateway keeps sessions with servers that it knows.
async fn forget(State(registrar): State<Arc<Registrar>>, Segment(slug): Segment<String>) -> StatusCode {
    let admin = &registrar.admin;
    let request = DeleteServerRequest { name: format!("organizations/{ORG}/servers/{slug}"), ..DeleteServerRequest::default() };
    ServerServiceClient::new(admin.channel.clone()).delete_server(admin.request(request)).await.unwrap();
    StatusCode::NO_CONTENT
}

async fn registrar(fleet: &Fleet) -> Served {
    let all = &["*"];
    let rule =
        Rule { name: "everybody", server: "*", anonymous: true, tools: all, prompts: all, resources: all, ..Rule::default() };
    fleet.allow(rule).await.unwrap();
    let state = Arc::new(Registrar { admin: fleet.admin.clone(), gateway: fleet.node.url(""), count: AtomicUsize::new(0) });
    let router = Router::new().route("/", post(register)).route("/{slug}", delete(forget)).with_state(state);
    Served::start(SocketAddr::from(([127, 0, 0, 1], 0)), router, CancellationToken::new()).await.unwrap()
}

/// Every scenario that `wanted` says how to play, as one report.
async fn played(cache: &Path, wanted: impl Fn(Scenario) -> Option<Speaker>) -> Report {
    let played = scenarios().filter_map(|scenario| Some((scenario, wanted(scenario)?)));
    let played = stream::iter(played.map(async |(scenario, speaker)| play(scenario, &speaker, cache).await));
    let reports: Vec<Report> = played.buffer_unordered(AT_ONCE).try_collect().await.unwrap();
    let mut all = Report::default();
    reports.into_iter().for_each(|report| all.merge_worst(report));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_suite_finds_nothing_worse_in_a_client_behind_the_gateway_in_its_era_and_in_the_other() {
    let (cache, fleet) = (tempfile::tempdir().unwrap(), Fleet::start().await.unwrap());
    let registrar = registrar(&fleet).await;
    let through = Some(format!("http://{}/", registrar.address()));
    let excused: BTreeSet<_> = EXCEPTIONS.iter().map(|(version, check, _)| format!("{version} {check}")).collect();
    let mut failing = BTreeSet::new();
    for version in ["2025-06-18", "2025-11-25", MODERN] {
        let of = |speaker: Speaker| move |scenario: Scenario| (scenario.version == version).then(|| speaker.clone());
        let direct = played(cache.path(), of(Speaker::default())).await;
        assert_eq!(
            (direct.totals().failure, direct.totals().warning),
            (0, 0),
            "{version}: the client itself is at fault: {direct:#?}"
        );
        let direct: Record = judged(&direct);
        let behind = played(cache.path(), of(Speaker { era: None, through: through.clone() })).await;
        println!("{version}: {} checks directly; through the gateway {}", direct.len(), behind.totals());
        let worse = worse_than(&direct, &behind);
        assert!(worse.is_empty(), "{version}: {worse:#?}");
        let other = if version == MODERN { "legacy" } else { "modern" };
        let across = played(cache.path(), of(Speaker { era: Some(other), through: through.clone() })).await;
        println!("{version}: {} by a {other} client", across.totals());
        for worse in worse_than(&direct, &across) {
            println!("  {worse}");
            failing.insert(format!("{version} {}", worse.check));
        }
    }
    println!("{} exceptions across eras", excused.len());
    assert_eq!(failing, excused);
}
