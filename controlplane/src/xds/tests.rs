//! Discovery over real HTTP/2 and TLS on a real Postgres, with a client that knows nothing but the protocol.

use mcp_gateway::{
    proto::{
        config::v1::Manifest,
        envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        google::rpc::Status,
    },
    snapshot::Staged,
    type_url::{COVERED, GLOBAL, MANIFEST, ORG_BUNDLE, REVOCATION},
};
use prost::Message;
use tonic::Code;
use uuid::Uuid;

use crate::{
    app::App,
    nodes::{
        self,
        client::{Discovering, Joined, all},
    },
    store::{
        change::{Kind, Operation, Row, Touched},
        nodes::Node,
    },
    testing::{self, Running},
};

/// A new version that adds an organisation.
async fn add_org(running: &Running, n: u128) -> u64 {
    let mut change = running.core.store.begin_system("test").await.unwrap();
    let id = Uuid::from_u128(n);
    let insert = sqlx::query("INSERT INTO organizations (id, slug) VALUES ($1, $2)").bind(id).bind(format!("org{n}"));
    insert.execute(change.connection()).await.unwrap();
    change.touch(Touched {
        kind: Kind::Organization,
        operation: Operation::Create,
        resource: format!("organizations/org{n}"),
        org: Some((id, format!("org{n}"))),
        row: Row::Organization(id),
        reaches_nodes: true,
    });
    let sealed = change.seal().await.unwrap();
    let version = sealed.version();
    sealed.commit(&[]).await.unwrap();
    version
}

/// Waits until everything committed so far is published.
async fn published(running: &Running) {
    let head = running.core.store.head().await.unwrap();
    let mut published = running.core.publications.watch();
    published.wait_for(|published| published.as_ref().is_some_and(|p| p.head.version >= head.version)).await.unwrap();
}

/// Every type, in a node's order; the first request names the node.
fn hello(joined: &Joined, facts: &[(&str, &str)]) -> Vec<DeltaDiscoveryRequest> {
    let mut requests: Vec<_> = [REVOCATION].into_iter().chain(COVERED).chain([MANIFEST]).map(all).collect();
    requests[0].node = Some(joined.node(facts));
    requests
}

fn manifest(response: &DeltaDiscoveryResponse) -> Manifest {
    assert_eq!(response.type_url, MANIFEST);
    Manifest::decode(response.resources[0].resource.as_ref().unwrap().value.as_slice()).unwrap()
}

/// Acknowledges and stages until a manifest comes.
async fn until_manifest(stream: &mut Discovering, staged: &mut Staged) -> (Vec<String>, Manifest) {
    let mut types = Vec::new();
    loop {
        let response = stream.ack().await;
        types.push(response.type_url.rsplit('.').next().unwrap().to_owned());
        if response.type_url == MANIFEST {
            return (types, manifest(&response));
        }
        for resource in response.resources.iter().filter(|_| response.type_url != REVOCATION) {
            let body = resource.resource.as_ref().unwrap().value.clone();
            staged.put(&response.type_url, &resource.name, body.into()).unwrap();
        }
    }
}

/// The node's row as soon as it says what is expected.
async fn row_where(running: &Running, node: Uuid, fits: impl Fn(&Node) -> bool) -> Node {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        let row = running.core.store.node(node).await.unwrap().unwrap();
        if fits(&row) {
            return row;
        }
        ticks.tick().await;
    }
    panic!("{:?}", running.core.store.node(node).await.unwrap())
}

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
