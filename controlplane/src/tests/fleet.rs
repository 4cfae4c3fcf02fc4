//! The fleet through the admin API: join tokens, nodes, and waiting until they run a version.

use mcp_gateway::{
    proto::{
        admin::v1::{
            CreateJoinTokenRequest, CreateJoinTokenResponse, DeleteJoinTokenRequest, DeleteNodeRequest, GetJoinTokenRequest,
            GetNodeRequest, JoinToken, ListJoinTokensRequest, ListNodesRequest, Node, NodeState, Role, UpdateNodeRequest,
            WaitConfigVersionRequest, config_version_service_client::ConfigVersionServiceClient,
            join_token_service_client::JoinTokenServiceClient, node_service_client::NodeServiceClient,
        },
        envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        google::rpc::Status as Refusal,
        node::v1::ReportStatusRequest,
    },
    snapshot::{ContentHash, Staged},
    type_url::MANIFEST,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::admin::{Admin, Person, refused};
use crate::{
    nodes::client::{Client as NodeClient, Discovering, Joined, add_org, hello, published, row_where, until_manifest},
    testing::Client,
};

fn tokens(person: &Person) -> JoinTokenServiceClient<Client> {
    JoinTokenServiceClient::new(person.client())
}

fn nodes(person: &Person) -> NodeServiceClient<Client> {
    NodeServiceClient::new(person.client())
}

async fn create(person: &Person, request: CreateJoinTokenRequest) -> Result<CreateJoinTokenResponse, Status> {
    tokens(person).create_join_token(request).await.map(tonic::Response::into_inner)
}

/// A node's refusal of a manifest.
pub fn refusal(manifest: &DeltaDiscoveryResponse, why: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: MANIFEST.into(),
        response_nonce: manifest.nonce.clone(),
        error_detail: Some(Refusal { code: 3, message: why.into(), ..Default::default() }),
        ..Default::default()
    }
}

async fn wait(person: &Person, version: u64, seconds: i64) -> Result<Vec<String>, Status> {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let mut service = ConfigVersionServiceClient::new(person.client());
    let answer = service.wait_config_version(WaitConfigVersionRequest { version, timeout }).await?.into_inner();
    Ok(answer.nodes.into_iter().map(|node| node.uid).collect())
}

/// A node that runs what is published now.
pub async fn connected(admin: &Admin, pool: &str) -> (Joined, Discovering) {
    let joined = Joined::to(&admin.running, pool).await;
    admin.running.core.publications.wake();
    let mut watch = admin.running.core.publications.watch();
    watch.wait_for(|now| now.as_ref().is_some_and(|now| now.scopes.contains_key(pool))).await.unwrap();
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    until_manifest(&mut stream, &mut Staged::new()).await;
    row_where(&admin.running, joined.id(), |row| row.connected && row.applied.epoch > 0).await;
    (joined, stream)
}

#[tokio::test]
async fn a_token_of_the_api_lets_one_node_join_an_installation_it_can_recognise() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let created = create(&person, CreateJoinTokenRequest::default()).await.unwrap();
    let token = created.join_token.unwrap();
    assert_eq!((token.pool.as_str(), token.use_time, token.node.as_str()), ("default", None, ""));
    let (_, pin) = created.secret.split_once('.').unwrap();
    let keys = admin.running.core.custody.keys().unwrap();
    assert_eq!(pin, ContentHash::of(&keys.node_ca.current().material.public_key_info()).to_string());

    let joined = NodeClient::of(&admin.running).enrol(&created.secret).await.unwrap();
    let used = tokens(&person).get_join_token(GetJoinTokenRequest { name: token.name }).await.unwrap().into_inner();
    assert_eq!(used.node, format!("nodes/{}", joined.node_id));
    assert!(used.use_time.is_some());
    let found = nodes(&person).get_node(GetNodeRequest { name: used.node }).await.unwrap().into_inner();
    assert_eq!((found.display_name.as_str(), found.pool.as_str(), found.connected), ("a node", "default", false));
    assert!(!admin.state().await.contains(created.secret.split('_').nth(2).unwrap()), "the secret is not stored");
}

#[tokio::test]
async fn join_tokens_keep_the_conventions_of_the_api() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let of = |pool: &str, seconds| {
        let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        CreateJoinTokenRequest {
            join_token: Some(JoinToken { pool: pool.into(), ttl, ..Default::default() }),
            ..Default::default()
        }
    };
    let before = admin.state().await;
    for (pool, seconds, field) in
        [("Not A Slug", 60, "join_token.pool"), ("edge", 0, "join_token.ttl"), ("edge", 604_801, "join_token.ttl")]
    {
        refused(field, create(&person, of(pool, seconds)).await, Code::InvalidArgument, &[field]);
    }
    refused("negative", create(&person, of("edge", -5)).await, Code::InvalidArgument, &["join_token.ttl"]);
    let checked = create(&person, CreateJoinTokenRequest { validate_only: true, ..of("edge", 60) }).await.unwrap();
    assert_eq!((checked.secret.as_str(), admin.state().await), ("", before));

    let once = CreateJoinTokenRequest { request_id: uuid::Uuid::now_v7().to_string(), ..of("edge", 60) };
    let (first, second) = (create(&person, once.clone()).await.unwrap(), create(&person, once).await.unwrap());
    assert_eq!(first, second, "a repeated request gets the first answer");
    create(&person, of("edge", 60)).await.unwrap();

    let list = |page_token: String| ListJoinTokensRequest { page_size: 1, page_token };
    let page = tokens(&person).list_join_tokens(list(String::new())).await.unwrap().into_inner();
    let rest = tokens(&person).list_join_tokens(list(page.next_page_token.clone())).await.unwrap().into_inner();
    assert_eq!((page.join_tokens.len(), rest.join_tokens.len(), rest.next_page_token.as_str()), (1, 1, ""));
    assert_ne!(page.join_tokens, rest.join_tokens);
    let foreign = ListNodesRequest { page_token: page.next_page_token, ..Default::default() };
    refused("foreign token", nodes(&person).list_nodes(foreign).await, Code::InvalidArgument, &["page_token"]);

    let name = first.join_token.unwrap().name;
    let delete = || DeleteJoinTokenRequest { name: name.clone(), ..Default::default() };
    tokens(&person).delete_join_token(delete()).await.unwrap();
    refused("deleted", tokens(&person).delete_join_token(delete()).await, Code::NotFound, &[]);
    refused("deleted", tokens(&person).get_join_token(GetJoinTokenRequest { name }).await, Code::NotFound, &[]);
    assert_eq!(NodeClient::of(&admin.running).enrol(&first.secret).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_node_is_listed_and_once_removed_it_is_gone() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let (joined, mut stream) = connected(&admin, "default").await;
    let (other, _other_stream) = connected(&admin, "edge").await;
    let list = |pool: &str| ListNodesRequest { pool: pool.into(), ..Default::default() };
    let all = nodes(&person).list_nodes(list("")).await.unwrap().into_inner().nodes;
    assert_eq!(all.iter().map(|node| node.connected).collect::<Vec<_>>(), [true, true]);
    let edge = nodes(&person).list_nodes(list("edge")).await.unwrap().into_inner().nodes;
    assert_eq!(edge.iter().map(|node| node.uid.clone()).collect::<Vec<_>>(), [other.id().to_string()]);

    let name = format!("nodes/{}", joined.id());
    let delete = |validate_only| DeleteNodeRequest { name: name.clone(), validate_only, ..Default::default() };
    nodes(&person).delete_node(delete(true)).await.unwrap();
    assert!(nodes(&person).get_node(GetNodeRequest { name: name.clone() }).await.is_ok());
    nodes(&person).delete_node(delete(false)).await.unwrap();
    assert_eq!(stream.end().await.code(), Code::PermissionDenied);
    refused("removed", nodes(&person).delete_node(delete(false)).await, Code::NotFound, &[]);
    refused("removed", nodes(&person).get_node(GetNodeRequest { name: name.clone() }).await, Code::NotFound, &[]);
    refused("no id", nodes(&person).get_node(GetNodeRequest { name: "nodes/x".into() }).await, Code::NotFound, &[]);
    let (_, action, resource, version, _) = admin.newest_audit().await;
    assert_eq!((action.as_str(), resource, version), ("node.delete", name, 0));
}

fn labels(given: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_node_begins_with_the_labels_of_its_token_and_can_be_given_others() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let of = |given: &[(&str, &str)]| {
        let join_token = Some(JoinToken { labels: labels(given), ..Default::default() });
        CreateJoinTokenRequest { join_token, ..Default::default() }
    };
    refused("key", create(&person, of(&[("a b", "")])).await, Code::InvalidArgument, &["join_token.labels"]);
    let created = create(&person, of(&[("zone", "a"), ("ring", "canary")])).await.unwrap();
    let joined = NodeClient::of(&admin.running).enrol(&created.secret).await.unwrap();
    let (other, _stream) = connected(&admin, "default").await;
    let list = async |given: &[(&str, &str)]| {
        let request = ListNodesRequest { labels: labels(given), ..Default::default() };
        let found = nodes(&person).list_nodes(request).await.unwrap().into_inner().nodes;
        found.into_iter().map(|node| node.uid).collect::<Vec<_>>()
    };
    assert_eq!(list(&[("ring", "canary")]).await, std::slice::from_ref(&joined.node_id));
    assert_eq!(list(&[("ring", "canary"), ("zone", "b")]).await, Vec::<String>::new());
    assert_eq!(list(&[]).await.len(), 2);

    let name = format!("nodes/{}", other.id());
    let read = nodes(&person).get_node(GetNodeRequest { name: name.clone() }).await.unwrap().into_inner();
    let change = |labels, etag: &str| UpdateNodeRequest {
        node: Some(Node { name: name.clone(), labels, etag: etag.into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".into()] }),
        ..Default::default()
    };
    let before = admin.state().await;
    let checked = UpdateNodeRequest { validate_only: true, ..change(labels(&[("zone", "b")]), &read.etag) };
    nodes(&person).update_node(checked).await.unwrap();
    let wrong = change(labels(&[("zone", "b/c")]), "");
    refused("value", nodes(&person).update_node(wrong).await, Code::InvalidArgument, &["node.labels"]);
    assert_eq!(admin.state().await, before);
    let changed = nodes(&person).update_node(change(labels(&[("zone", "b")]), &read.etag)).await.unwrap().into_inner();
    assert_eq!((changed.labels, changed.display_name), (labels(&[("zone", "b")]), read.display_name));
    assert_eq!(list(&[("zone", "b")]).await, [other.id().to_string()]);
    refused("stale", nodes(&person).update_node(change(labels(&[]), &read.etag)).await, Code::Aborted, &[]);
    let (_, action, resource, version, _) = admin.newest_audit().await;
    assert_eq!((action.as_str(), resource, version), ("node.update", name.clone(), 0), "labels alone make no version");
    nodes(&person).update_node(change(labels(&[]), "")).await.unwrap();
    assert_eq!(list(&[("zone", "b")]).await, Vec::<String>::new(), "a mask that names them empties them");
}

#[tokio::test]
async fn a_node_is_shown_with_what_it_runs_what_it_lacks_and_what_it_says_of_itself() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let (joined, mut stream) = connected(&admin, "default").await;
    let get = || async {
        let request = GetNodeRequest { name: format!("nodes/{}", joined.id()) };
        nodes(&person).get_node(request).await.unwrap().into_inner()
    };
    let node = get().await;
    assert_eq!((node.state(), node.report_time, node.behind_since_time), (NodeState::Current, None, None));
    assert_eq!((node.applied_version, node.applied_epoch), (node.target_version, node.target_epoch));

    let report = ReportStatusRequest {
        build: "9".into(),
        stale_seconds: 60,
        quarantined: 2,
        spool_frames: 7,
        spool_oldest_ms: 1_500,
        open_streams: 3,
        ..Default::default()
    };
    joined.service().await.report_status(report).await.unwrap();
    let told = get().await;
    assert_eq!(told.applied_version, node.applied_version, "a report that its stream overtook undoes nothing");
    assert_eq!((told.quarantined, told.spool_frames, told.open_streams, told.build.as_str()), (2, 7, 3, "9"));
    assert_eq!(told.spool_oldest_duration, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
    assert!(told.report_time.is_some() && told.stale_duration.unwrap().seconds >= 60);

    let version = add_org(&admin.running, 1).await;
    published(&admin.running).await;
    let late = get().await;
    assert_eq!((late.state(), late.target_version, late.refused_version), (NodeState::Behind, version, 0));
    assert!(late.behind_since_time.is_some());
    stream.ack().await;
    let manifest = stream.next().await;
    stream.say.send(refusal(&manifest, "server x: bad")).await.unwrap();
    row_where(&admin.running, joined.id(), |row| row.refused.version == version).await;
    let refused = get().await;
    assert_eq!((refused.state(), refused.refused_version), (NodeState::Refused, version));
    assert_eq!(refused.problems, ["server x: bad"]);
    drop(stream);
    row_where(&admin.running, joined.id(), |row| !row.connected).await;
    assert_eq!(get().await.state(), NodeState::Disconnected);
}

#[tokio::test]
async fn waiting_ends_when_every_connected_node_runs_the_version() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let version = add_org(&admin.running, 1).await;
    assert_eq!(wait(&person, version, 30).await.unwrap(), Vec::<String>::new(), "nobody is connected");
    let (joined, mut stream) = connected(&admin, "default").await;
    let (elsewhere, _untouched) = connected(&admin, "edge").await;
    let version = add_org(&admin.running, 2).await;
    let mut staged = Staged::new();
    let (waited, _) = tokio::join!(wait(&person, version, 60), until_manifest(&mut stream, &mut staged));
    let mut found = waited.unwrap();
    found.sort();
    let mut expected = vec![joined.id().to_string(), elsewhere.id().to_string()];
    expected.sort();
    assert_eq!(found, expected, "the version changed nothing for the other pool");
}

#[tokio::test]
async fn waiting_in_vain_names_who_does_not_run_the_version() {
    let (mut admin, acme, member) = Admin::with_acme().await;
    let person = admin.platform_admin().await;
    published(&admin.running).await;
    let (joined, mut stream) = connected(&admin, "default").await;
    let (_elsewhere, _untouched) = connected(&admin, "edge").await;
    let newest = admin.version().await;
    refused("future", wait(&person, newest + 1, 0).await, Code::DeadlineExceeded, &[]);
    let version = add_org(&admin.running, 1).await;
    published(&admin.running).await;
    stream.ack().await;
    let manifest = stream.next().await;
    let status = wait(&person, version, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let violations = status.get_details_precondition_failure().unwrap().violations;
    let subjects: Vec<_> = violations.iter().map(|violation| violation.subject.clone()).collect();
    assert_eq!(subjects, [format!("nodes/{}", joined.id())]);
    assert!(status.message().contains(&joined.id().to_string()), "{}", status.message());

    stream.say.send(refusal(&manifest, "server x: bad")).await.unwrap();
    row_where(&admin.running, joined.id(), |row| !row.problems.is_empty()).await;
    assert!(wait(&person, version, 0).await.unwrap_err().message().contains("server x: bad"));

    let told = wait(&member, version, 0).await.unwrap_err();
    assert!(!told.message().contains("server x"), "what is wrong elsewhere is not a member's to read: {}", told.message());
    assert!(told.message().contains("outside this organisation"), "{}", told.message());

    // A member waits for the nodes of its own pool only.
    sqlx::query("UPDATE organizations SET pool = 'edge' WHERE id = $1").bind(acme).execute(&mut admin.sql).await.unwrap();
    assert_eq!(wait(&member, version, 30).await.unwrap().len(), 1);
    for seconds in [-1, 301] {
        refused("timeout", wait(&person, version, seconds).await, Code::InvalidArgument, &["timeout"]);
    }
    let operator = admin.member(acme, Role::Member).await;
    assert_eq!(wait(&operator, version, 0).await.unwrap_err().code(), Code::PermissionDenied);
}

/// Where the nodes of the pool `default` are, as it would be told without waiting for rest.
async fn addresses(admin: &Admin) -> Vec<(String, String)> {
    let found = admin.running.core.store.voids(std::time::Duration::ZERO).await.unwrap().peers.remove("default");
    found.unwrap_or_default().into_iter().map(|peer| (peer.node_id, peer.address)).collect()
}

#[tokio::test]
async fn nodes_that_can_be_reached_are_each_others_peers() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    published(&admin.running).await;
    let joined = Joined::to(&admin.running, "default").await;
    let (silent, _silent_stream) = connected(&admin, "default").await;
    let told = || row_where(&admin.running, joined.id(), |row| row.advertise == "10.0.0.7:7500");
    let first = |address: &str| DeltaDiscoveryRequest {
        node: Some(joined.node(&[("advertise", address)])),
        ..crate::nodes::client::all(mcp_gateway::type_url::PEERS)
    };
    let stream = joined.discover(vec![first("10.0.0.7:7500")]).await.unwrap();
    told().await;
    let at = vec![(joined.id().to_string(), "10.0.0.7:7500".to_owned())];
    assert_eq!(addresses(&admin).await, at, "who says nothing is nobody's peer");
    let mut watch = admin.running.core.publications.watch();
    let listed = |now: &Option<std::sync::Arc<crate::publish::Published>>| {
        now.as_ref().is_some_and(|now| now.voids.peers.get("default").is_some_and(|peers| peers.len() == 1))
    };
    watch.wait_for(listed).await.unwrap();
    let shown = nodes(&person).get_node(GetNodeRequest { name: format!("nodes/{}", joined.id()) }).await.unwrap().into_inner();
    assert_eq!(shown.advertise, "10.0.0.7:7500");
    drop(stream);
    row_where(&admin.running, joined.id(), |row| !row.connected).await;
    assert_eq!(addresses(&admin).await, at, "it may only have lost its control plane");
    let age = "UPDATE node_status SET last_seen_at = now() - interval '301 seconds'";
    sqlx::query(age).execute(&mut admin.sql).await.unwrap();
    assert_eq!(addresses(&admin).await, [], "silent for five minutes");

    let report = |advertise: &str| ReportStatusRequest { advertise: advertise.into(), ..Default::default() };
    let mut service = joined.service().await;
    let wrong = service.report_status(report("http://x")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    service.report_status(report("10.0.0.8:7500")).await.unwrap();
    assert_eq!(addresses(&admin).await, [(joined.id().to_string(), "10.0.0.8:7500".to_owned())]);
    service.report_status(report("")).await.unwrap();
    assert_eq!(addresses(&admin).await, [], "it cannot be reached any more");
    silent.service().await.report_status(report("10.0.0.9:7500")).await.unwrap();
    let name = format!("nodes/{}", silent.id());
    sqlx::query("UPDATE node_status SET last_seen_at = now()").execute(&mut admin.sql).await.unwrap();
    assert_eq!(addresses(&admin).await.len(), 1);
    nodes(&person).delete_node(DeleteNodeRequest { name, ..Default::default() }).await.unwrap();
    assert_eq!(addresses(&admin).await, [], "a removed node is nobody's peer");
}
