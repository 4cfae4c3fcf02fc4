//! Refusals: exact status and code, the id echoed, the reason on record, the server untouched.

use mcp_gateway::proto::node::v1::{AuditClass, Decision, Outcome};

use super::scope::{COLLEAGUE, ENGINEER, EXPIRED, FOREIGN, GITHUB, NOBODYS, OPEN, STRANGER, Scope, USELESS, bearer};
use super::world::{Answer, Gateway, Upstream, modern_body, result};

async fn pair(change: impl FnOnce(&mut Scope)) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let mut scope = Scope::at(upstream.address);
    change(&mut scope);
    (Gateway::start(&scope).await, upstream)
}

#[track_caller]
fn expect(answer: &Answer, status: u16, code: i64, case: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{case}: {answer:?}");
    assert!(!answer.body.contains("s3cret"), "{case}: {answer:?}");
    answer.request_id();
}

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

#[tokio::test]
async fn callers_that_cannot_be_recognised_get_401_whatever_is_wrong() {
    let (gateway, upstream) = pair(|_| {}).await;
    let wrong_secret = format!("Bearer mcpgw_{ENGINEER}_other");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, bool);
    let cases: &[Case<'_>] = &[
        ("no credential", GITHUB, &[], "authenticate.missing", false),
        ("no credential, no server", NOBODYS, &[], "authenticate.missing", false),
        ("wrong secret", GITHUB, &[("authorization", &wrong_secret)], "authenticate.wrong_key", true),
        ("wrong secret, no server", NOBODYS, &[("authorization", &wrong_secret)], "authenticate.wrong_key", true),
        ("unknown key", GITHUB, &[("authorization", "Bearer mcpgw_nosuchkeyaaaaaaa_x")], "authenticate.wrong_key", true),
        ("expired key", GITHUB, &[("authorization", &bearer(EXPIRED))], "authenticate.expired_key", true),
        ("another scheme", GITHUB, &[("authorization", "Basic YTpi")], "authenticate.unusable", true),
        ("not a token", GITHUB, &[("authorization", "Bearer a.b.c")], "authenticate.token_malformed", true),
        ("a bad credential is never anonymous", OPEN, &[("x-api-key", "mcpgw_a_b")], "authenticate.wrong_key", true),
    ];
    let mut bodies = Vec::new();
    for (case, server, headers, reason, invalid) in cases {
        let answer = gateway.ask(gateway.post(server, headers, PING)).await;
        expect(&answer, 401, -31401, case);
        assert_eq!(answer.json()["id"], 7, "{case}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert_eq!(challenge.contains("invalid_token"), *invalid, "{case}: {challenge}");
        let (decided, ended) = gateway.record(answer.request_id());
        assert_eq!(
            (decided.class(), decided.decision(), &*decided.reason),
            (AuditClass::Audit, Decision::Deny, *reason),
            "{case}"
        );
        assert_eq!((ended.outcome(), ended.status, ended.error_code), (Outcome::Denied, 401, -31401), "{case}");
        bodies.push((*invalid, answer.body));
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 2, "one answer without a credential, one with a bad one: {bodies:?}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn servers_of_others_look_like_servers_that_are_not_there() {
    let (gateway, upstream) = pair(|scope| scope.server(OPEN).disabled = true).await;
    let stranger = bearer(STRANGER);
    let engineer = bearer(ENGINEER);
    let cases = [(GITHUB, &stranger), (FOREIGN, &engineer), (NOBODYS, &engineer), (OPEN, &engineer)];
    let mut bodies = Vec::new();
    for (server, credential) in cases {
        let answer = gateway.ask(gateway.post(server, &[("authorization", credential)], PING)).await;
        expect(&answer, 404, -31404, server);
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn names_without_a_rule_are_answered_like_names_that_do_not_exist() {
    let (gateway, upstream) = pair(|_| {}).await;
    let colleague = bearer(COLLEAGUE);
    let auth = [("authorization", &*colleague)];
    let cases = [
        ("tools/call", r#""name":"delete_all""#, -32602, "Unknown tool: delete_all"),
        ("prompts/get", r#""name":"review""#, -32602, "Unknown prompt: review"),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"review"},"argument":{}"#, -32602, "Unknown prompt: review"),
    ];
    for (method, params, code, message) in cases {
        let answer = gateway.ask(gateway.modern(GITHUB, &auth, method, params)).await;
        expect(&answer, 200, code, method);
        assert_eq!((&answer.json()["id"], &answer.json()["error"]["message"]), (&"q-1".into(), &message.into()));
        let (decided, ended) = gateway.record(answer.request_id());
        assert_eq!((decided.decision(), &*decided.reason), (Decision::Deny, "authorize.not_granted"), "{method}");
        assert_eq!((decided.class(), ended.outcome()), (AuditClass::Audit, Outcome::Denied), "{method}");
    }
    let read = [("authorization", &*colleague), ("mcp-name", "repo://acme/x")];
    let answer = gateway.ask(gateway.modern(GITHUB, &read, "resources/read", r#""uri":"repo://acme/x""#)).await;
    expect(&answer, 200, -32602, "modern resource");
    let listen = r#""notifications":{"resourceSubscriptions":["repo://acme/x"]}"#;
    let answer = gateway.ask(gateway.modern(GITHUB, &auth, "subscriptions/listen", listen)).await;
    expect(&answer, 200, -32602, "a subscription to what may not be read");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn who_may_do_nothing_is_told_so_unless_a_credential_could_help() {
    let (gateway, upstream) = pair(|scope| {
        scope.orgs[0].policies.retain(|policy| policy.name != "guests");
    })
    .await;
    let answer = gateway.ask(gateway.modern(GITHUB, &[("authorization", &*bearer(USELESS))], "tools/list", "")).await;
    expect(&answer, 403, -31403, "authenticated");
    let answer = gateway.ask(gateway.modern(OPEN, &[], "tools/list", "")).await;
    expect(&answer, 401, -31401, "anonymous");
    assert!(answer.header("www-authenticate").is_some());
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn malformed_bodies_and_headers_are_refused_by_the_codec_and_the_id_is_echoed() {
    let (gateway, upstream) = pair(|_| {}).await;
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}{}}}}}"#, "[".repeat(70), "]".repeat(70));
    let bodies: &[(&str, &[u8], u16, i64)] = &[
        ("empty", b"", 400, -32700),
        ("not JSON", b"{", 400, -32700),
        ("not UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", 400, -32700),
        ("twice the same key", br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#, 400, -32600),
        ("a key that only looks alike", br#"{"jsonrpc":"2.0","id":1,"Method":"ping","method":"ping"}"#, 400, -32600),
        ("too deep", deep.as_bytes(), 400, -32600),
        ("no session, no era", br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, 400, -32000),
    ];
    for (case, body, status, code) in bodies {
        let answer = gateway.ask(gateway.post(OPEN, &[], body.to_vec())).await;
        expect(&answer, *status, *code, case);
        let (decided, _) = gateway.record(answer.request_id());
        assert!(decided.reason.starts_with("decode."), "{case}: {}", decided.reason);
    }
    let call = r#""name":"echo""#;
    let headers: &[(&str, (&str, &str), i64)] = &[
        ("method differs", ("mcp-method", "tools/list"), -32020),
        ("name differs", ("mcp-name", "search_x"), -32020),
        ("name is missing", ("mcp-name", ""), -32020),
        ("version differs", ("mcp-protocol-version", "2025-11-25"), -32020),
    ];
    for (case, header, code) in headers {
        let answer = gateway.ask(gateway.modern(OPEN, &[*header], "tools/call", call)).await;
        expect(&answer, 400, *code, case);
        assert_eq!(answer.json()["id"], "q-1", "{case}");
    }
    let text = gateway.post(OPEN, &[("content-type", "text/plain")], modern_body("tools/list", ""));
    expect(&gateway.ask(text).await, 415, -32000, "content type");
    let narrow = gateway.post(OPEN, &[("accept", "application/json")], modern_body("tools/list", ""));
    expect(&gateway.ask(narrow).await, 406, -32000, "accept");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn credentials_and_headers_that_come_twice_are_refused() {
    let (gateway, upstream) = pair(|_| {}).await;
    let mut twice = gateway.post(GITHUB, &[("authorization", &*bearer(ENGINEER))], PING);
    twice.headers_mut().append("authorization", bearer(ENGINEER).parse().unwrap());
    expect(&gateway.ask(twice).await, 400, -32600, "authorization twice");
    let both = [("authorization", &*bearer(ENGINEER)), ("x-api-key", "mcpgw_a_b")];
    expect(&gateway.ask(gateway.post(GITHUB, &both, PING)).await, 400, -32600, "two kinds");
    let mut twice = gateway.modern(OPEN, &[], "tools/list", "");
    twice.headers_mut().append("mcp-method", "tools/list".parse().unwrap());
    assert_eq!(gateway.ask(twice).await.status, 400);
    expect(&gateway.ask(gateway.post(OPEN, &[("mcp_session_id", "x")], PING)).await, 400, -31400, "underscore");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn hosts_origins_and_paths_that_are_not_ours_are_refused() {
    let (gateway, upstream) = pair(|_| {}).await;
    let cases: &[(&str, &str, u16)] = &[
        ("host", "evil.test", 403),
        ("host", "127.0.0.1.evil.test", 403),
        ("origin", "https://evil.test", 403),
        ("origin", "null", 403),
        ("origin", "https://app.acme.test.evil.test", 403),
    ];
    for (name, value, status) in cases {
        let answer = gateway.ask(gateway.post(OPEN, &[(name, value)], PING)).await;
        expect(&answer, *status, -31000 - i64::from(*status), value);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{value}");
    }
    for path in ["/", "/mcp", &format!("/servers/{OPEN}/mcp/"), &format!("/servers/{OPEN}//mcp"), "/o/acme/servers/%6fpen/mcp"] {
        let answer = gateway.ask(gateway.request(http::Method::POST, path, &[], PING)).await;
        expect(&answer, 404, -31404, path);
    }
    let long = format!("/servers/{OPEN}/mcp?{}", "x".repeat(9000));
    expect(&gateway.ask(gateway.request(http::Method::POST, &long, &[], PING)).await, 414, -31414, "long URI");
    assert!(upstream.seen().is_empty());

    let allowed = gateway.ask(gateway.modern(OPEN, &[("origin", "https://app.acme.test")], "tools/list", "")).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.acme.test"));
    let slug = gateway.request(
        http::Method::POST,
        "/o/acme/servers/open/mcp",
        &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")],
        modern_body("tools/list", ""),
    );
    assert_eq!(gateway.ask(slug).await.status, 200);
}

#[tokio::test]
async fn bodies_over_the_servers_limit_are_refused_before_they_are_read() {
    let (gateway, upstream) = pair(|scope| scope.server(OPEN).max_body_bytes = 2048).await;
    let body = modern_body("tools/call", &format!(r#""name":"echo","arguments":{{"x":"{}"}}"#, "y".repeat(4096)));
    let answer = gateway.ask(gateway.post(OPEN, &[], body)).await;
    expect(&answer, 413, -31413, "too large");
    let answer = gateway.ask(gateway.post(OPEN, &[], vec![b'['; 9 << 20])).await;
    expect(&answer, 413, -31413, "far too large, and still told so");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn without_a_configuration_everything_waits() {
    let gateway = Gateway::with(None, |_| {}).await;
    let answer = gateway.ask(gateway.post(OPEN, &[], PING)).await;
    expect(&answer, 503, -31503, "no configuration");
    assert!(answer.header("retry-after").is_some());
    let ready = |path: &str| {
        let mut request = gateway.request(http::Method::GET, path, &[], "");
        *request.uri_mut() = format!("http://{}{path}", gateway.admin).parse().unwrap();
        request
    };
    assert_eq!(gateway.ask(ready("/ready")).await.status, 503);
    assert_eq!(gateway.ask(ready("/health")).await.status, 200);
    gateway.swap(&Scope::at(gateway.address));
    assert_eq!(gateway.ask(ready("/ready")).await.status, 200);
    let metrics = gateway.ask(ready("/metrics")).await;
    assert!(metrics.body.contains("mcpgw_dataplane_config_version 7"), "{}", metrics.body);
    assert!(metrics.body.contains(r#"mcpgw_dataplane_refusals_total{reason="target.not_ready"} 1"#), "{}", metrics.body);
}
