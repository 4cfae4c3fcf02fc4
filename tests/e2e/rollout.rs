//! Rollouts on real nodes, with real calls: what canaries try, the others never see until it is everybody's.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::document_service_client::DocumentServiceClient;
use mcp_gateway::proto::admin::v1::node_service_client::NodeServiceClient;
use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;
use mcp_gateway::proto::admin::v1::{
    AbortRolloutRequest, CreateRolloutRequest, ExportOrganizationRequest, GetNodeRequest, GetRolloutRequest,
    OrganizationDocument, RequestLog, ResumeRolloutRequest, RevokeApiKeyRequest, Rollout, RolloutState, RolloutStep,
    UpdateNodeRequest, rollout_step,
};
use mcp_gateway::proto::config::v1::Effect;
use mcpgw_controlplane::publish::Published;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Admin, Answer, Call, Control, Fleet, Http, Node, ORG, Rule, SERVER};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
/// Enough calls to tell, as rollouts here are asked for.
const CALLS: usize = 20;
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// Three nodes of one pool, and a key that may call `tool_0`.
struct World {
    control: Control,
    admin: Admin,
    nodes: Vec<Node>,
    key: String,
    _backend: Backend,
}

impl World {
    async fn start() -> Self {
        let fleet = Fleet::start().await.unwrap();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            nodes.push(Node::join(&fleet.control, &fleet.admin).await.unwrap());
        }
        fleet.allow(RULE).await.unwrap();
        let key = fleet.key(&["tester"]).await.unwrap();
        let Fleet { control, node, backend, admin } = fleet;
        nodes.push(node);
        Self { control, admin, nodes, key, _backend: backend }
    }

    /// The organisation with one thing changed.
    async fn document(&self, edit: impl FnOnce(&mut OrganizationDocument)) -> OrganizationDocument {
        let request = ExportOrganizationRequest { name: format!("organizations/{ORG}") };
        let mut client = DocumentServiceClient::new(self.admin.channel.clone());
        let mut document = client.export_organization(self.admin.request(request)).await.unwrap().into_inner();
        edit(&mut document);
        document
    }

    fn rollouts(&self) -> RolloutServiceClient<tonic::transport::Channel> {
        RolloutServiceClient::new(self.admin.channel.clone())
    }

    async fn roll_out(&self, document: OrganizationDocument, how: Rollout) -> Rollout {
        let request = CreateRolloutRequest { document: Some(document), rollout: Some(how), ..Default::default() };
        self.rollouts().create_rollout(self.admin.request(request)).await.unwrap().into_inner()
    }

    /// The rollout, once it is as expected. There is no watch on rollouts, so this asks again and again.
    async fn until(&self, name: &str, expected: impl Fn(&Rollout) -> bool) -> Rollout {
        let asked = async {
            let mut turn = tokio::time::interval(Duration::from_millis(50));
            loop {
                turn.tick().await;
                let request = self.admin.request(GetRolloutRequest { name: name.to_owned() });
                let found = self.rollouts().get_rollout(request).await.unwrap().into_inner();
                if expected(&found) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the rollout comes to be as expected")
    }

    async fn baking(&self, name: &str) -> Rollout {
        self.until(name, |rollout| rollout.bake_start_time.is_some()).await
    }

    /// The canaries of a rollout and the other nodes.
    fn split(&self, rollout: &Rollout) -> (Vec<&Node>, Vec<&Node>) {
        self.nodes.iter().partition(|node| rollout.canaries.contains(&name(node)))
    }

    async fn call(&self, node: &Node) -> Answer {
        self.call_with(node, &self.key).await
    }

    async fn call_with(&self, node: &Node, key: &str) -> Answer {
        let url = node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
        Http::default().send(Call::tool(&url, key, "tool_0", &json!({}))).await.unwrap()
    }

    async fn serves(&self, node: &Node) -> RequestLog {
        let answer = self.call(node).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_deref()), (200, Some("tool_0")), "{answer:?}");
        self.admin.record(answer.request_id()).await.unwrap()
    }

    async fn denies(&self, node: &Node) -> RequestLog {
        let answer = self.call(node).await;
        assert_ne!(answer.text().as_deref(), Some("tool_0"), "{answer:?}");
        let record = self.admin.record(answer.request_id()).await.unwrap();
        assert_eq!(record.outcome, "denied", "{record:?}");
        record
    }

    /// What this control plane publishes.
    fn published(&self) -> std::sync::Arc<Published> {
        self.control.running.core.publications.now().unwrap()
    }
}

fn name(node: &Node) -> String {
    format!("nodes/{}", node.identity().unwrap().node_id)
}

fn step(share: rollout_step::Share) -> RolloutStep {
    RolloutStep { share: Some(share) }
}

/// One node, then all; each for so many seconds.
fn one_then_all(bake: i64) -> Rollout {
    let steps = vec![step(rollout_step::Share::Nodes(1)), step(rollout_step::Share::Percent(100))];
    let min_calls = u32::try_from(CALLS).unwrap();
    Rollout { steps, bake_duration: Some(prost_types::Duration { seconds: bake, nanos: 0 }), min_calls, ..Default::default() }
}

/// The rule that allowed what is called denies it.
fn deny(document: &mut OrganizationDocument) {
    document.policies.get_mut(RULE.name).unwrap().effect = Effect::Deny.into();
}

/// Something that callers do not notice.
fn rename(document: &mut OrganizationDocument) {
    document.display_name = "Renamed".into();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_policy_halts_by_itself_on_the_first_node_and_the_others_never_saw_it() {
    let world = World::start().await;
    let rollout = world.roll_out(world.document(deny).await, one_then_all(3600)).await;
    let started = world.baking(&rollout.name).await;
    let (canaries, others) = world.split(&started);
    let ([canary], [one, other]) = (&canaries[..], &others[..]) else { panic!("{:?}", started.canaries) };

    // Callers everywhere; what is the canary's is denied there.
    let mut bad = BTreeSet::new();
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        bad.insert(world.denies(canary).await.org_digest);
        calls.push(world.serves(one).await);
        calls.push(world.serves(other).await);
    }
    assert_eq!(bad.len(), 1);
    let halted = world.until(&rollout.name, |rollout| rollout.state() == RolloutState::Halted).await;
    assert_eq!((halted.halt_reason.as_str(), halted.step), ("worse", 1), "{}", halted.halt_detail);

    // The canary is back by itself, at a version that is newer than what it tried; the others run the same as ever.
    world.admin.wait(halted.config_version).await.unwrap();
    for node in &world.nodes {
        calls.push(world.serves(node).await);
    }
    let digests: BTreeSet<&str> = calls.iter().map(|call| call.org_digest.as_str()).collect();
    assert_eq!(digests.len(), 1, "one content, whatever the version");
    assert!(digests.is_disjoint(&bad.iter().map(String::as_str).collect()));
    assert!(calls.iter().rev().take(3).all(|call| call.config_version >= halted.config_version));
    let elsewhere: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM request_logs WHERE encode(org_digest, 'hex') = $1 AND 'nodes/' || node_id <> $2",
    )
    .bind(bad.first().unwrap())
    .bind(name(canary))
    .fetch_one(&mut world.control.running.sql().await)
    .await
    .unwrap();
    assert_eq!(elsewhere, 0, "no other node ever decided by it");
    let audited: String = sqlx::query_scalar("SELECT actor FROM audit_logs WHERE action = 'rollout.halt'")
        .fetch_one(&mut world.control.running.sql().await)
        .await
        .unwrap();
    assert_eq!(audited, "system");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_does_not_compile_halts_by_itself() {
    let world = World::start().await;
    let rollout = world.roll_out(world.document(rename).await, one_then_all(3600)).await;
    world.baking(&rollout.name).await;
    // The API refuses such a candidate; only somebody at the database can break it.
    let mut sql = world.control.running.sql().await;
    for statement in [
        "BEGIN",
        "UPDATE rollouts SET candidate = jsonb_set(candidate, '{servers,0,transport}', '99')",
        "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp()",
        "INSERT INTO config_change (epoch, version, seq, org_id, org_slug, kind, resource, operation, actor) \
         SELECT head.epoch, head.version, 0, rollouts.org_id, rollouts.org_slug, 'rollout', 'by hand', 'update', 'test' \
         FROM config_head AS head, rollouts",
        "COMMIT",
    ] {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    let halted = world.until(&rollout.name, |rollout| rollout.state() == RolloutState::Halted).await;
    assert_eq!(halted.halt_reason, "quarantined", "{}", halted.halt_detail);
    assert!(halted.halt_detail.contains("transport"), "{}", halted.halt_detail);
    world.admin.wait(halted.config_version).await.unwrap();
    for node in &world.nodes {
        world.serves(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_candidate_goes_all_the_way_and_what_is_revoked_meanwhile_is_revoked_everywhere() {
    let world = World::start().await;
    let doomed = world.admin.create_key(ORG, &["tester"]).await.unwrap();
    let (secret, doomed) = (doomed.secret, doomed.api_key.unwrap());
    world.admin.wait(doomed.config_version).await.unwrap();
    // Only the labelled node may try it; the others get it when it is promoted.
    let mut nodes = NodeServiceClient::new(world.admin.channel.clone());
    let first = name(&world.nodes[1]);
    let mut node = nodes.get_node(world.admin.request(GetNodeRequest { name: first.clone() })).await.unwrap().into_inner();
    node.labels = [("ring".to_owned(), "canary".to_owned())].into();
    nodes.update_node(world.admin.request(UpdateNodeRequest { node: Some(node), ..Default::default() })).await.unwrap();

    let how = Rollout { node_labels: [("ring".to_owned(), "canary".to_owned())].into(), ..one_then_all(1) };
    let rollout = world.roll_out(world.document(rename).await, how).await;
    assert_eq!(rollout.canaries, [first]);
    let request = RevokeApiKeyRequest { name: doomed.name, ..Default::default() };
    let mut keys = ApiKeyServiceClient::new(world.admin.channel.clone());
    let revoked = keys.revoke_api_key(world.admin.request(request)).await.unwrap().into_inner();
    world.admin.wait(revoked.config_version).await.unwrap();
    for node in &world.nodes {
        assert_eq!(world.call_with(node, &secret).await.status.as_u16(), 401);
        world.serves(node).await;
    }
    let promoted = world.until(&rollout.name, |rollout| rollout.state() != RolloutState::Running).await;
    assert_eq!((promoted.state(), promoted.step), (RolloutState::Promoted, 2), "{}", promoted.halt_detail);
    world.admin.wait(promoted.config_version).await.unwrap();
    let mut digests = BTreeSet::new();
    for node in &world.nodes {
        let record = world.serves(node).await;
        assert!(record.config_version >= promoted.config_version);
        digests.insert(record.org_digest);
    }
    assert_eq!(digests.len(), 1);
    let document = world.document(|_| {}).await;
    assert_eq!(document.display_name, "Renamed");
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT DISTINCT version FROM config_change WHERE kind = 'organization' AND operation = 'update'")
            .fetch_all(&mut world.control.running.sql().await)
            .await
            .unwrap();
    assert_eq!(versions, [promoted.config_version.cast_signed()], "one version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_outlives_its_control_plane_and_ends_when_it_is_told_to() {
    let mut world = World::start().await;
    let rollout = world.roll_out(world.document(deny).await, one_then_all(3600)).await;
    let started = world.baking(&rollout.name).await;
    let refused = world.admin.create_server(ORG, "another", "http://127.0.0.1:9/mcp", false).await.unwrap_err();
    assert!(format!("{refused:#}").contains(&rollout.name), "{refused:#}");

    let before = world.published();
    let (mut config, addresses) = ((*world.control.running.core.config).clone(), world.control.addresses());
    (config.node_listen, config.admin_listen) = (addresses.node, addresses.admin);
    let World { control, admin: _, nodes, key, _backend } = world;
    control.running.stop().await.unwrap();
    let control = Control::with(config).await.unwrap();
    let admin = control.owner().await.unwrap();
    world = World { control, admin, nodes, key, _backend };
    // What the next replica publishes is the same, byte for byte.
    let mut watch = world.control.running.core.publications.watch();
    let after = tokio::time::timeout(PATIENCE, watch.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!((after.head, &after.trials, &after.scopes), (before.head, &before.trials, &before.scopes));
    assert_eq!(after.trials.len(), 1);

    let (canaries, others) = world.split(&started);
    for node in &canaries {
        world.denies(node).await;
    }
    for node in &others {
        world.serves(node).await;
    }
    let abort = AbortRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    let aborted = world.rollouts().abort_rollout(world.admin.request(abort)).await.unwrap().into_inner();
    assert_eq!(aborted.state(), RolloutState::Aborted);
    let resume = ResumeRolloutRequest { name: rollout.name, ..Default::default() };
    let refused = world.rollouts().resume_rollout(world.admin.request(resume)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    world.until_connected().await;
    world.admin.wait(aborted.config_version).await.unwrap();
    for node in &world.nodes {
        assert!(world.serves(node).await.config_version > 0);
    }
    world.admin.create_server(ORG, "another", "http://127.0.0.1:9/mcp", false).await.unwrap();
}

impl World {
    /// Returns once every node has found the control plane again: waiting for a version counts connected ones only.
    async fn until_connected(&self) {
        let asked = async {
            let mut turn = tokio::time::interval(Duration::from_millis(50));
            while self.admin_connected().await < self.nodes.len() {
                turn.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("nodes come back");
    }

    async fn admin_connected(&self) -> usize {
        let present = self.control.running.core.store.present_nodes().await.unwrap();
        present.iter().filter(|node| node.connected).count()
    }
}
