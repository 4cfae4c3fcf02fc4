//! Discovery over real HTTP/2 and TLS on a real Postgres, with a client that knows nothing but the protocol.

use mcp_gateway::{
    proto::{envoy::service::discovery::v3::DeltaDiscoveryRequest, google::rpc::Status},
    snapshot::Staged,
    type_url::{GLOBAL, MANIFEST, ORG_BUNDLE, REVOCATION},
};
use tonic::Code;

use crate::{
    app::App,
    nodes::{
        self,
        client::{Joined, add_org, all, hello, manifest, published, row_where, until_manifest},
    },
    testing::{self, Running},
};

#[tokio::test]
async fn a_node_gets_everything_then_the_manifest_and_later_only_what_changed() {
    let running = Running::start().await;
    add_org(&running, 1).await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    let mut staged = Staged::new();
    let (types, first) = until_manifest(&mut stream, &mut staged).await;
    // No key exists: the wildcard over shards is answered with nothing.
    assert_eq!(types, ["Revocation", "Global", "SecretEnvelope", "OrgBundle", "CredentialShard", "Manifest"]);
    assert_eq!(staged.digest().as_bytes().as_slice(), &first.digest[..]);

    let version = add_org(&running, 2).await;
    let (types, second) = until_manifest(&mut stream, &mut staged).await;
    assert_eq!(types, ["OrgBundle", "Manifest"]);
    assert_eq!(second.version, version);
    assert_eq!(staged.digest().as_bytes().as_slice(), &second.digest[..]);
    let row = row_where(&running, joined.id(), |row| row.applied.version == version).await;
    assert!(row.connected && row.problems.is_empty());

    drop(stream);
    row_where(&running, joined.id(), |row| !row.connected).await;
}

#[tokio::test]
async fn an_unchanged_node_that_comes_back_gets_one_message() {
    let running = Running::start().await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    let (_, first) = until_manifest(&mut stream, &mut Staged::new()).await;
    drop(stream);
    let digest = hex::encode(&first.digest);
    let (epoch, version) = (first.epoch.to_string(), first.version.to_string());
    let facts = [("digest", digest.as_str()), ("epoch", &epoch), ("applied_version", &version)];
    let mut stream = joined.discover(hello(&joined, &facts)).await.unwrap();
    assert_eq!(stream.ack().await.type_url, REVOCATION);
    assert_eq!(manifest(&stream.ack().await), first);
    add_org(&running, 1).await;
    assert_eq!(stream.ack().await.type_url, ORG_BUNDLE);
}

#[tokio::test]
async fn only_its_own_pool_and_id_are_served_to_a_certificate() {
    let running = Running::start().await;
    published(&running).await;
    let (joined, other) = (Joined::to(&running, "default").await, Joined::to(&running, "default").await);
    let ask = |node| vec![DeltaDiscoveryRequest { node: Some(node), ..all(GLOBAL) }];
    let foreign = mcp_gateway::proto::envoy::config::core::v3::Node { cluster: "edge".into(), ..joined.node(&[]) };
    assert_eq!(joined.discover(ask(foreign)).await.unwrap().end().await.code(), Code::PermissionDenied);
    assert_eq!(joined.discover(ask(other.node(&[]))).await.unwrap().end().await.code(), Code::PermissionDenied);
    assert_eq!(joined.discover(vec![all(GLOBAL)]).await.unwrap().end().await.code(), Code::InvalidArgument);
    // Asking by name for what is another pool's gets "there is none".
    let by_name = DeltaDiscoveryRequest {
        node: Some(joined.node(&[])),
        resource_names_subscribe: vec!["global/edge".into()],
        ..all(GLOBAL)
    };
    let response = joined.discover(vec![by_name]).await.unwrap().next().await;
    assert_eq!((response.resources.len(), response.removed_resources), (0, vec!["global/edge".to_owned()]));
}

#[tokio::test]
async fn server_not_synced_refuses_stream_not_empty_config() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    // A second replica on the same database that has read nothing yet.
    let config = crate::config::Config { ..(*running.core.config).clone() };
    let app = App::build(testing::config(secrecy::ExposeSecret::expose_secret(&config.database_url))).await.unwrap();
    let core = app.core().clone();
    core.custody.load().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    nodes::spawn(&core, listener).unwrap();
    let joined =
        Joined { client: nodes::client::Client { address: format!("https://localhost:{port}"), ..joined.client }, ..joined };
    assert_eq!(joined.discover(hello(&joined, &[])).await.err().unwrap().code(), Code::Unavailable);
    core.publications.start(&core);
    core.publications.watch().wait_for(Option::is_some).await.unwrap();
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut stream, &mut Staged::new()).await;
    core.tasks.stop_token().cancel();
}

#[tokio::test]
async fn a_refusal_is_shown_and_the_next_content_is_sent() {
    let running = Running::start().await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    let (_, good) = until_manifest(&mut stream, &mut Staged::new()).await;
    add_org(&running, 1).await;
    stream.ack().await;
    let refused = stream.next().await;
    let status = Status { code: 3, message: "server x: bad\u{7}\nserver y: worse".into(), ..Default::default() };
    let nack = DeltaDiscoveryRequest {
        type_url: MANIFEST.into(),
        response_nonce: refused.nonce.clone(),
        error_detail: Some(status),
        ..Default::default()
    };
    stream.say.send(nack).await.unwrap();
    let row = row_where(&running, joined.id(), |row| !row.problems.is_empty()).await;
    assert_eq!(row.problems, ["server x: bad ", "server y: worse"]);
    assert_eq!(row.applied.version, good.version, "it runs what it ran");
    let version = add_org(&running, 2).await;
    let (_, manifest) = until_manifest(&mut stream, &mut Staged::new()).await;
    assert_eq!(manifest.version, version);
    row_where(&running, joined.id(), |row| row.problems.is_empty() && row.applied.version == version).await;
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first() {
    let running = Running::start().await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut first = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut first, &mut Staged::new()).await;
    let mut second = joined.discover(hello(&joined, &[])).await.unwrap();
    assert_eq!(first.end().await.code(), Code::Aborted);
    until_manifest(&mut second, &mut Staged::new()).await;
    row_where(&running, joined.id(), |row| row.connected).await;
}

#[tokio::test]
async fn without_a_database_nodes_are_served_what_was_published() {
    let server = testing::Postgres::start();
    server.execute("CREATE DATABASE own").await;
    let running = Running::with(testing::config(&server.url("own"))).await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut before = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut before, &mut Staged::new()).await;
    server.down();
    // The stream that is open goes on, and its node may open another.
    assert_eq!(
        {
            before.say.send(all(GLOBAL)).await.unwrap();
            before.ack().await.type_url
        },
        GLOBAL
    );
    let mut after = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut after, &mut Staged::new()).await;
    server.up();
    let version = add_org_when_back(&running).await;
    let (_, manifest) = until_manifest(&mut after, &mut Staged::new()).await;
    assert_eq!(manifest.version, version);
    row_where(&running, joined.id(), |row| row.connected && row.applied.version == version).await;
    let metrics = running.core.metrics.text();
    let lines = [
        "discovery_streams 1",
        "discovery_streams_opened_total 2",
        "discovery_streams_ended_total{reason=\"superseded\"} 1",
        "discovery_responses_total{type=\"Manifest\"} 3",
        "discovery_commit_to_applied_seconds_count 1",
        "ingest_frames_total 0",
    ];
    for line in lines {
        assert!(metrics.contains(&format!("mcpgw_controlplane_{line}\n")), "{line}: {metrics}");
    }
    drop(running);
}

/// The pool may still hold connections that the restart cut.
async fn add_org_when_back(running: &Running) -> u64 {
    while running.core.store.head().await.is_err() {}
    add_org(running, 1).await
}

#[tokio::test]
async fn stopping_tells_nodes_to_go_elsewhere() {
    let running = Running::start().await;
    published(&running).await;
    let joined = Joined::to(&running, "default").await;
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut stream, &mut Staged::new()).await;
    let (ended, stopped) = tokio::join!(stream.end(), running.stop());
    assert_eq!(ended.code(), Code::Unavailable);
    stopped.unwrap();
}
