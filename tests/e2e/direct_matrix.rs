//! The transport matrix without a gateway: every foreign client passes every check against the foreign server of its own
//! transport, so what fails through the gateway is the gateway's.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mcpgw_tests::peers::matrix::{Client, Endpoint, Report, Running, Server, Verdict};

/// Clients are processes, and the machine has two cores.
const AT_ONCE: usize = 2;

async fn all_servers() -> BTreeMap<Server, Running> {
    let started = Server::ALL.map(async |server| server.start().await.map(|running| (server, running)));
    try_join_all(started).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn every_client_passes_every_check_against_the_server_of_its_own_transport() {
    let servers = all_servers().await;
    let pairs = Client::ALL.into_iter().flat_map(|client| client.counterparts().iter().map(move |server| (client, *server)));
    let reports = pairs.map(async |(client, server)| {
        let report = client.check(servers[&server].endpoint(), None).await?;
        anyhow::Ok((client, server, report))
    });
    let reports: Vec<(Client, Server, Report)> = stream::iter(reports).buffer_unordered(AT_ONCE).try_collect().await.unwrap();
    let met: BTreeSet<Client> = reports.iter().map(|(client, ..)| *client).collect();
    assert_eq!(met.len(), Client::ALL.len());
    for (client, server, report) in reports {
        let failed: Vec<_> = report.with(Verdict::Failed).collect();
        assert!(failed.is_empty(), "{client:?} to {server:?}: {failed:#?}");
        assert_eq!(report.checks(Verdict::Absent), client.absent(), "{client:?}");
        assert_eq!(report.protocol_version.as_deref(), client.protocol_version(), "{client:?}");
    }
}

#[tokio::test]
async fn a_client_that_cannot_connect_reports_it_for_every_check() {
    // Closed again at once, so that nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (client, url) in [
        (Client::StreamableHttp20251125, format!("http://{closed}/mcp")),
        (Client::Sse20241105, format!("http://{closed}/sse")),
        (Client::StreamableHttp20260728, format!("http://{closed}/mcp")),
        (Client::StreamableHttp20260728Python, format!("http://{closed}/mcp")),
        (Client::JsonRpc, format!("http://{closed}/rpc")),
        (Client::WebSocket, format!("ws://{closed}/ws")),
    ] {
        let report = client.check(&Endpoint::Url(url), None).await.unwrap();
        assert_eq!(report.checks(Verdict::Passed), [], "{client:?}: {report:#?}");
        assert_eq!(report.checks(Verdict::Absent), client.absent(), "{client:?}");
    }
}
