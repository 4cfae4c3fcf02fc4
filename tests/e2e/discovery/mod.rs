//! Configuration discovery over real HTTP/2 and mutual TLS on a real Postgres, one test per known incident of xDS servers and clients.
//! The node is scripted where a real one would never say such a thing.

mod refusals;
mod replicas;
mod stale;

use std::collections::BTreeMap;

use mcp_gateway::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use mcp_gateway::snapshot::Staged;
use mcp_gateway::type_url::MANIFEST;
use mcpgw_controlplane::nodes::client::{Discovering, Joined, hello, published, until_manifest};
use mcpgw_controlplane::testing::{self, Running};
use secrecy::ExposeSecret as _;
use uuid::Uuid;

/// Names and versions.
type Versions = BTreeMap<(String, String), String>;

/// A control plane and a node that joined it and holds everything.
async fn settled() -> (Running, Joined, Discovering) {
    mcpgw_tests::fleet::install_crypto();
    let running = Running::start().await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut stream, &mut Staged::new()).await;
    (running, joined, stream)
}

/// Another control plane on the same database.
async fn replica_of(running: &Running) -> Running {
    let replica = Running::with(testing::config(running.core.config.database_url.expose_secret())).await;
    published(&replica).await;
    replica
}

/// What the control plane counted, over all streams; what it never counted is 0.
fn counted(running: &Running, what: &str) -> u64 {
    let (text, line) = (running.core.metrics.text(), format!("mcpgw_controlplane_discovery_{what} "));
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
}

/// How many responses of a type were sent.
fn sent(running: &Running, of: &str) -> u64 {
    counted(running, &format!("responses_total{{type=\"{of}\"}}"))
}

fn versions(responses: &[DeltaDiscoveryResponse]) -> Versions {
    let resources = responses.iter().flat_map(|response| response.resources.iter().map(|held| (&response.type_url, held)));
    resources.map(|(type_url, held)| ((type_url.clone(), held.name.clone()), held.version.clone())).collect()
}

fn bodies(responses: &[DeltaDiscoveryResponse]) -> BTreeMap<(String, String), Resource> {
    let resources = responses.iter().flat_map(|response| response.resources.iter().map(|held| (&response.type_url, held)));
    resources.map(|(type_url, held)| ((type_url.clone(), held.name.clone()), held.clone())).collect()
}

/// The first requests of a node that says what it holds.
fn holding(joined: &Joined, held: &Versions) -> Vec<DeltaDiscoveryRequest> {
    let mut requests = hello(joined, &[]);
    for request in &mut requests {
        let of_type = held.iter().filter(|((type_url, _), _)| *type_url == request.type_url);
        request.initial_resource_versions = of_type.map(|((_, name), version)| (name.clone(), version.clone())).collect();
    }
    requests
}

/// Acknowledges until a manifest came, which is the last one returned.
async fn chain(stream: &mut Discovering) -> Vec<DeltaDiscoveryResponse> {
    let mut responses = Vec::new();
    loop {
        responses.push(stream.ack().await);
        if responses.last().is_some_and(|last| last.type_url == MANIFEST) {
            return responses;
        }
    }
}

/// The bundles of the test's own organisations.
fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let names = response.resources.iter().map(|resource| resource.name.as_str());
    names.filter(|name| name.starts_with("org/00000000-")).collect()
}

fn bundle(n: u128) -> String {
    format!("org/{}/0", Uuid::from_u128(n))
}
