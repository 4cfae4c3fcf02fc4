//! What an organisation has kept of its calls: redacted and cut before it leaves the node, shown to who may read it, and nothing of anybody
//! else's calls.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::{
    CapturedPayload, GetRequestPayloadRequest, Organization, RequestPayload, UpdateOrganizationRequest,
};
use mcp_gateway::proto::config::v1::Capture;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::demo;
use mcpgw_tests::fleet::{Answer, Call, Control, Http, Node, ORG, Rule, SERVER};
use serde_json::{Value, json};
use tonic::Code;

/// Longest wait for something that happens within milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The organisation that keeps nothing.
const SILENT: &str = "silent";
/// A second server of the first one: streams its answers.
const STREAMING: &str = "streaming";
const MAX_BYTES: u32 = 600;

struct Scene {
    control: Control,
    admin: mcpgw_tests::fleet::Admin,
    node: Node,
    http: Http,
    keys: [(&'static str, String); 2],
    _demo: mcpgw_tests::serve::Served,
    _backend: Backend,
}

impl Scene {
    async fn start() -> Self {
        let control = Control::start().await.unwrap();
        let admin = control.owner().await.unwrap();
        let demo = demo::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let backend = Backend::on_free_port().await.unwrap();
        let mut keys = Vec::new();
        for org in [ORG, SILENT] {
            admin.create_org(org).await.unwrap();
            admin.create_server(org, SERVER, &demo.url(), false).await.unwrap();
            admin.create_server(org, STREAMING, &backend.url(), false).await.unwrap();
            let all = &["*"];
            let rule = Rule {
                name: "all",
                server: "*",
                roles: &["tester"],
                tools: all,
                prompts: all,
                resources: all,
                ..Rule::default()
            };
            admin.create_policy(org, rule).await.unwrap();
            keys.push((org, admin.create_key(org, &["tester"]).await.unwrap().secret));
        }
        let node = Node::join(&control, &admin).await.unwrap();
        let scene =
            Self { control, admin, node, http: Http::default(), keys: keys.try_into().unwrap(), _demo: demo, _backend: backend };
        let redact = vec!["ssn".to_owned(), "$.customer.cards[*].number".to_owned()];
        scene.wants(Capture { arguments: true, results: true, max_bytes: MAX_BYTES, redact, retention_days: 1 }).await;
        scene
    }

    /// Changes what the organisation keeps, and waits until the node knows.
    async fn wants(&self, capture: Capture) {
        let name = format!("organizations/{ORG}");
        let organization = Organization { name, capture: Some(capture), ..Organization::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["capture".into()] });
        let request =
            UpdateOrganizationRequest { organization: Some(organization), update_mask, ..UpdateOrganizationRequest::default() };
        let mut client = OrganizationServiceClient::new(self.admin.channel.clone());
        let changed = client.update_organization(self.admin.request(request)).await.unwrap().into_inner();
        self.admin.wait(changed.config_version).await.unwrap();
    }

    async fn call(&self, org: &str, server: &str, tool: &str, arguments: &Value) -> Answer {
        let key = &self.keys.iter().find(|(name, _)| *name == org).unwrap().1;
        let url = self.node.url(&format!("/o/{org}/servers/{server}/mcp"));
        let call = Call::tool(&url, key, tool, arguments);
        // Progress is only sent to who asks for it.
        let body = String::from_utf8(call.body.to_vec()).unwrap().replacen(r#""_meta":{"#, r#""_meta":{"progressToken":"p","#, 1);
        let answer = self.http.send(Call { body: body.into(), ..call }).await.unwrap();
        assert!(!answer.message().is_null(), "{answer:?}");
        answer
    }

    /// What is kept of a request whose record has arrived.
    async fn payload(&self, answer: &Answer) -> Result<RequestPayload, Code> {
        self.admin.record(answer.request_id()).await.unwrap();
        let mut client = LogServiceClient::new(self.admin.channel.clone());
        let request = self.admin.request(GetRequestPayloadRequest { request_id: answer.request_id().to_owned() });
        client.get_request_payload(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    async fn both(&self, answer: &Answer) -> (CapturedPayload, CapturedPayload) {
        let payload = self.payload(answer).await.unwrap();
        (payload.arguments.unwrap(), payload.result.unwrap())
    }
}

fn parsed(payload: &CapturedPayload) -> Value {
    serde_json::from_str(&payload.text).unwrap_or_else(|error| panic!("{error}: {payload:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_kept_as_their_organisation_wants_it_and_secrets_are_not() {
    let scene = Scene::start().await;
    let text = "the key is sk-0123456789abcdefghij, and Ada's token: hunter2xyz";
    let arguments = json!({ "text": text, "password": ["hunter2abc"], "ssn": "078-05-1120", "note": "plain",
        "customer": { "cards": [{ "number": 4_111, "name": "Ada" }] } });
    let answer = scene.call(ORG, SERVER, "echo", &arguments).await;
    assert_eq!(answer.text().as_deref(), Some(text), "what travels is not touched");
    let (kept, result) = scene.both(&answer).await;
    let left = json!({ "text": "the key is [redacted], and Ada's token: [redacted]", "password": "[redacted]", "ssn": "[redacted]",
        "note": "plain", "customer": { "cards": [{ "number": "[redacted]", "name": "Ada" }] } });
    assert_eq!(parsed(&kept), left);
    assert_eq!((kept.cut, kept.redactions, kept.bytes), (false, 5, arguments.to_string().len() as u64));
    assert_eq!(parsed(&result)["content"][0]["text"], "the key is [redacted], and Ada's token: [redacted]");

    // A stream: of its events only the one that answers.
    let answer = scene.call(ORG, STREAMING, "slow", &json!({ "ms": 1, "steps": 2 })).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let (_, result) = scene.both(&answer).await;
    assert_eq!(parsed(&result), answer.message()["result"]);

    // A large one is cut; so is an answer that is only passed through.
    let answer = scene.call(ORG, SERVER, "echo", &json!({ "text": "word ".repeat(100_000) })).await;
    for kept in <[CapturedPayload; 2]>::from(scene.both(&answer).await) {
        assert!(kept.cut && kept.text.len() <= MAX_BYTES as usize && kept.text.contains("word word"), "{kept:?}");
    }
    assert!(answer.body.len() > 256 << 10);

    // An error is a result, too.
    let answer = scene.call(ORG, SERVER, "nothing of that name", &json!({})).await;
    assert!(parsed(&scene.both(&answer).await.1).get("code").is_some() || answer.code().is_none());

    // Nothing of another organisation, of a list, or of who asks for less.
    let answer = scene.call(SILENT, SERVER, "echo", &arguments).await;
    assert_eq!(scene.payload(&answer).await, Err(Code::NotFound));
    scene.wants(Capture { results: true, ..Capture::default() }).await;
    let answer = scene.call(ORG, SERVER, "echo", &json!({ "text": "x" })).await;
    let payload = scene.payload(&answer).await.unwrap();
    assert!(payload.arguments.is_none() && payload.result.is_some(), "{payload:?}");
    scene.wants(Capture::default()).await;
    let answer = scene.call(ORG, SERVER, "echo", &arguments).await;
    assert_eq!(scene.payload(&answer).await, Err(Code::NotFound));

    nowhere_on_disk(&scene.node.state_dir().join("spool"));
    let mut sql = scene.control.running.sql().await;
    let dirty = "SELECT count(*) FROM captured_payloads WHERE text ~ 'hunter2|sk-0123|078-05'";
    assert_eq!(sqlx::query_scalar::<_, i64>(dirty).fetch_one(&mut sql).await.unwrap(), 0);
    let readers = "SELECT count(*) FROM audit_logs WHERE action = 'request_log.read_payload' AND actor = 'owner@localhost'";
    let reads = sqlx::query_scalar::<_, i64>(readers);
    let read = async { tokio::time::timeout(PATIENCE, reads.fetch_one(&mut sql)).await.unwrap().unwrap() };
    assert_eq!(read.await, 5, "every reading is on record");
}

/// What a node wrote before it shipped it holds no secret either, and holds what was kept.
fn nowhere_on_disk(spool: &Path) {
    let grep = |pattern: &str| Command::new("grep").args(["-raE", "-c", pattern]).arg(spool).output().unwrap();
    let lines = |pattern: &str| String::from_utf8_lossy(&grep(pattern).stdout).into_owned();
    let total =
        |pattern: &str| lines(pattern).lines().filter_map(|line| line.rsplit_once(':')?.1.parse::<u32>().ok()).sum::<u32>();
    assert!(total("the key is .redacted.") > 0, "the spool has what was kept");
    assert_eq!(total("hunter2|sk-0123|078-05"), 0);
}
