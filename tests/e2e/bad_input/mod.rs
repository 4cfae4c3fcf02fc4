//! What must not get through a whole gateway, as tables: each case is refused with its exact status and code, leaves one record
//! that gives the reason, tells nothing secret, reaches no server and changes nothing. One fleet serves all of them.

mod bodies;
mod credentials;
mod headers;
mod names;

use std::collections::HashMap;
use std::time::Duration;

use mcp_gateway::proto::admin::v1::RevokeApiKeyRequest;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::node::v1::{Decision, Outcome};
use mcpgw_tests::fleet::{Answer, Call, Fleet, Http, ORG, Rule, SERVER};
use serde_json::{Value, json};
use sqlx::Row as _;
use uuid::Uuid;

/// A request that has to be refused, and how.
struct Case {
    what: String,
    call: Call,
    status: u16,
    code: i64,
    /// As the record gives it: stage and reason.
    reason: &'static str,
}

fn refused(what: impl Into<String>, call: Call, (status, code): (u16, i64), reason: &'static str) -> Case {
    Case { what: what.into(), call, status, code, reason }
}

/// Who calls, and what they call with.
struct Bench {
    fleet: Fleet,
    http: Http,
    /// May call `tool_0` on both servers.
    key: String,
    /// May call `tool_1` on the first.
    colleague: String,
    /// Of another organisation.
    stranger: String,
    revoked: String,
    /// A session of `key` on the first server.
    session: String,
    org_id: String,
}

/// A second server of the same organisation, the same backend.
const SECOND: &str = "second";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
    "capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_exactly_recorded_and_changes_nothing() {
    let bench = Bench::start().await;
    let mut cases = bodies::cases(&bench);
    cases.extend(headers::cases(&bench));
    cases.extend(names::cases(&bench));
    cases.extend(credentials::cases(&bench).await);
    let secrets = bench.secrets(&cases);
    let state = bench.state().await;

    let mut wrong = Vec::new();
    let mut sent = HashMap::new();
    for Case { what, call, status, code, reason } in cases {
        let answer = bench.http.send(call).await.unwrap();
        let seen = (answer.status.as_u16(), answer.code());
        if seen != (status, Some(code)) {
            wrong.push(format!("{what}: expected {status} with {code}: {answer:?}"));
        }
        if let Some(secret) = told(&answer, &secrets) {
            wrong.push(format!("{what}: the answer tells {secret}: {answer:?}"));
        }
        match answer.request_id().parse::<Uuid>() {
            Ok(id) => drop(sent.insert(id, (what, status, code, reason))),
            Err(_) => wrong.push(format!("{what}: no request id: {answer:?}")),
        }
    }
    wrong.extend(bench.wrong_records(&sent, &secrets).await);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), sent.len(), wrong.join("\n"));
    assert_eq!(bench.state().await, state, "nothing reached the server, nothing changed");
    let answer = bench.http.send(Call::tool(&bench.url(), &bench.key, "tool_0", &json!({}))).await.unwrap();
    assert_eq!(answer.text().as_deref(), Some("tool_0"), "{answer:?}");
    println!("{} kinds of bad input refused", sent.len());
}

/// The first of `secrets` that head or body of an answer holds.
fn told<'s>(answer: &Answer, secrets: &'s [String]) -> Option<&'s str> {
    let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
    secrets.iter().map(String::as_str).find(|secret| text.contains(secret))
}

impl Bench {
    async fn start() -> Self {
        let fleet = Fleet::start().await.unwrap();
        fleet.admin.create_server(ORG, SECOND, &fleet.backend.url(), false).await.unwrap();
        for (name, server, role, tool) in
            [("a", SERVER, "tester", "tool_0"), ("b", SECOND, "tester", "tool_0"), ("c", SERVER, "colleague", "tool_1")]
        {
            let rule = Rule { name, server, roles: &[role], tools: &[tool], ..Rule::default() };
            fleet.admin.create_policy(ORG, rule).await.unwrap();
        }
        fleet.admin.create_org("rival").await.unwrap();
        let stranger = fleet.admin.create_key("rival", &["tester"]).await.unwrap().secret;
        let colleague = fleet.admin.create_key(ORG, &["colleague"]).await.unwrap().secret;
        let revoked = fleet.admin.create_key(ORG, &["tester"]).await.unwrap();
        let name = revoked.api_key.unwrap().name;
        let revoke = RevokeApiKeyRequest { name, ..RevokeApiKeyRequest::default() };
        let mut keys = ApiKeyServiceClient::new(fleet.admin.channel.clone());
        keys.revoke_api_key(fleet.admin.request(revoke)).await.unwrap();
        let key = fleet.key(&["tester"]).await.unwrap(); // waits for everything before it too
        let http = Http::default();
        let initialize = Call::post(&fleet.url(SERVER), INITIALIZE).header("authorization", &format!("Bearer {key}"));
        let opened = http.send(initialize).await.unwrap();
        let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let mut sql = fleet.control.running.sql().await;
        let id = sqlx::query_scalar::<_, Uuid>("SELECT id FROM organizations WHERE slug = $1").bind(ORG);
        let org_id = id.fetch_one(&mut sql).await.unwrap().to_string();
        Self { fleet, http, key, colleague, stranger, revoked: revoked.secret, session, org_id }
    }

    fn url(&self) -> String {
        self.fleet.url(SERVER)
    }

    /// A call that would be answered.
    fn good(&self) -> Call {
        Call::tool(&self.url(), &self.key, "tool_0", &json!({}))
    }

    /// A request of the session, which belongs to `key`.
    fn in_session(&self, url: &str, key: &str, session: &str) -> Call {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let call = Call::post(url, body).header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        call.header("authorization", &format!("Bearer {key}"))
    }

    /// What no answer and no record may hold: what callers prove themselves with, and where the parts of the gateway are.
    fn secrets(&self, cases: &[Case]) -> Vec<String> {
        let addresses = self.fleet.control.addresses();
        let mut secrets: Vec<String> = [addresses.admin, addresses.node, addresses.http, self.fleet.backend.address()]
            .iter()
            .map(ToString::to_string)
            .collect();
        secrets.push(self.session.clone());
        let offered = cases.iter().flat_map(|case| &case.call.headers);
        let offered = offered.filter(|(name, _)| name == "authorization" || name == "x-api-key").map(|(_, value)| value);
        // The last part of a key is its secret, the last part of a token its signature.
        secrets.extend(
            offered.filter_map(|value| value.rsplit(['_', '.', ' ']).next()).filter(|part| part.len() > 20).map(str::to_owned),
        );
        secrets
    }

    /// What bad input must leave as it is: what the server saw, the configuration, what administrators did.
    async fn state(&self) -> (usize, i64, i64) {
        let mut sql = self.fleet.control.running.sql().await;
        let (version, changes): (i64, i64) = sqlx::query_as("SELECT version, (SELECT count(*) FROM audit_logs) FROM config_head")
            .fetch_one(&mut sql)
            .await
            .unwrap();
        (self.fleet.backend.stats().snapshot().requests.len(), version, changes)
    }

    /// What is wrong with the records of what was sent, once all have arrived.
    async fn wrong_records(&self, sent: &HashMap<Uuid, (String, u16, i64, &'static str)>, secrets: &[String]) -> Vec<String> {
        const RECORDS: &str = "SELECT request_id, decision, outcome, status, error_code, reason, to_jsonb(request_logs)::text \
                               FROM request_logs WHERE request_id = ANY($1) AND outcome IS NOT NULL";
        let ids: Vec<Uuid> = sent.keys().copied().collect();
        let mut sql = self.fleet.control.running.sql().await;
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        let arrived = async {
            loop {
                turn.tick().await;
                let rows = sqlx::query(RECORDS).bind(&ids).fetch_all(&mut sql).await.unwrap();
                if rows.len() >= ids.len() {
                    return rows;
                }
            }
        };
        let rows = tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("each refusal has a record");
        let mut wrong = Vec::new();
        for row in rows {
            let (what, status, code, reason) = &sent[&row.get::<Uuid, _>(0)];
            let (decision, outcome): (i16, i16) = (row.get(1), row.get(2));
            let (found, its_code): (i32, i32) = (row.get(3), row.get(4));
            let denied = (i32::from(decision), i32::from(outcome)) == (Decision::Deny.into(), Outcome::Denied.into());
            if !denied || found != i32::from(*status) || i64::from(its_code) != *code || row.get::<&str, _>(5) != *reason {
                wrong.push(format!("{what}: expected a record of {status} {code} {reason:?}: {}", row.get::<&str, _>(6)));
            }
            if let Some(secret) = secrets.iter().find(|secret| row.get::<&str, _>(6).contains(*secret)) {
                wrong.push(format!("{what}: the record tells {secret}"));
            }
        }
        wrong
    }
}

/// A modern message of any text, with the headers of `tools/call` of `tool_0`.
fn with_body(bench: &Bench, body: impl Into<bytes::Bytes>) -> Call {
    Call { body: body.into(), ..bench.good() }
}

/// The body of a good call, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let good = Call::tool("", "", "tool_0", &json!({}));
    let mut body = serde_json::from_slice(&good.body).unwrap();
    change(&mut body);
    body
}
