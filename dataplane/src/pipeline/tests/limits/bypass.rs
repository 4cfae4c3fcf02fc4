//! Ways to get around a limit, thirty and more: none gains a single call.

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use mcp_gateway::proto::config::v1::{ApiKey, LimitPer};
use serde_json::json;

use super::super::scope::{ACME, ENGINEER, GITHUB, OPEN, Scope, bearer, signing_key};
use super::super::tokens::{claims, header, sign, with};
use super::super::world::{Gateway, Upstream, modern_body, result};
use super::limit;

/// How often each way is tried.
const TRIES: usize = 4;
const SPENT: u64 = 5;

type Try = fn(&Gateway, usize) -> Request<Full<Bytes>>;

const TOOL: &str = r#""name":"echo""#;

fn plain(gateway: &Gateway, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    gateway.modern(OPEN, headers, "tools/call", TOOL)
}

/// A call at another path.
fn at(gateway: &Gateway, path: &str) -> Request<Full<Bytes>> {
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    gateway.request(Method::POST, path, &headers, modern_body("tools/call", TOOL))
}

/// A call with another body.
fn saying(gateway: &Gateway, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    gateway.post(OPEN, &headers, body)
}

fn forwarded(gateway: &Gateway, name: &str, n: usize) -> Request<Full<Bytes>> {
    plain(gateway, &[(name, &format!("198.51.100.{n}"))])
}

/// As callers without a credential, whom their address tells apart.
const ANONYMOUS: [(&str, Try); 38] = [
    ("X-Forwarded-For", |g, n| forwarded(g, "x-forwarded-for", n)),
    ("X-Forwarded-For, a chain", |g, n| plain(g, &[("x-forwarded-for", &format!("198.51.100.{n}, 127.0.0.1"))])),
    ("X-Forwarded-For, IPv6", |g, n| plain(g, &[("x-forwarded-for", &format!("2001:db8:{n}::1"))])),
    ("X-Real-IP", |g, n| forwarded(g, "x-real-ip", n)),
    ("X-Client-IP", |g, n| forwarded(g, "x-client-ip", n)),
    ("X-Cluster-Client-IP", |g, n| forwarded(g, "x-cluster-client-ip", n)),
    ("X-Originating-IP", |g, n| forwarded(g, "x-originating-ip", n)),
    ("X-Remote-Addr", |g, n| forwarded(g, "x-remote-addr", n)),
    ("True-Client-IP", |g, n| forwarded(g, "true-client-ip", n)),
    ("CF-Connecting-IP", |g, n| forwarded(g, "cf-connecting-ip", n)),
    ("Forwarded", |g, n| plain(g, &[("forwarded", &format!("for=198.51.100.{n};proto=https"))])),
    ("Via", |g, n| plain(g, &[("via", &format!("1.1 proxy-{n}"))])),
    ("User-Agent", |g, n| plain(g, &[("user-agent", &format!("agent/{n}"))])),
    ("Cookie", |g, n| plain(g, &[("cookie", &format!("visitor={n}"))])),
    ("Origin", |g, n| plain(g, &[("origin", ["https://console.test", "https://app.acme.test"][n % 2])])),
    ("Accept-Language", |g, n| plain(g, &[("accept-language", &format!("x-{n}"))])),
    ("a session nobody gave out", |g, n| plain(g, &[("mcp-session-id", &format!("session-{n}"))])),
    ("a credential that is none", |g, n| plain(g, &[("authorization", &format!("Bearer nothing-{n}"))])),
    ("an overridden method", |g, _| plain(g, &[("x-http-method-override", "GET")])),
    ("a trace of its own", |g, n| plain(g, &[("traceparent", &format!("00-{n:032x}-{n:016x}-01"))])),
    ("the readable path", |g, _| at(g, "/o/acme/servers/open/mcp")),
    ("doubled slashes", |g, _| at(g, &format!("//servers//{OPEN}//mcp"))),
    ("a slash at the end", |g, _| at(g, &format!("/servers/{OPEN}/mcp/"))),
    ("dots in the path", |g, _| at(g, &format!("/servers/x/../{OPEN}/mcp"))),
    ("an encoded path", |g, _| at(g, &format!("/servers/{}/mcp", OPEN.replace('-', "%2d")))),
    ("an encoded slash", |g, _| at(g, &format!("/servers%2f{OPEN}/mcp"))),
    ("the id in upper case", |g, _| at(g, &format!("/servers/{}/mcp", OPEN.to_uppercase()))),
    ("a path parameter", |g, n| at(g, &format!("/servers/{OPEN};n={n}/mcp"))),
    ("a query", |g, n| at(g, &format!("/servers/{OPEN}/mcp?n={n}"))),
    ("an endpoint in upper case", |g, _| at(g, &format!("/servers/{OPEN}/MCP"))),
    ("escapes in the tool's name", |g, _| saying(g, modern_body("tools/call", r#""name":"\u0065cho""#))),
    ("another id of the request", |g, n| saying(g, modern_body("tools/call", TOOL).replace("\"q-1\"", &n.to_string()))),
    ("space around the message", |g, n| saying(g, format!("{}{}", " ".repeat(n + 1), modern_body("tools/call", TOOL)))),
    ("a call without an id", |g, _| saying(g, modern_body("tools/call", TOOL).replace("\"id\":\"q-1\",", ""))),
    ("a key twice", |g, _| saying(g, modern_body("tools/call", r#""name":"echo","name":"echo""#))),
    ("a batch", |g, _| saying(g, format!("[{0},{0}]", modern_body("tools/call", TOOL)))),
    ("a progress token", |g, n| {
        saying(g, modern_body("tools/call", TOOL).replace("\"_meta\":{", &format!("\"_meta\":{{\"progressToken\":{n},")))
    }),
    ("a session of its own", |g, n| {
        let version = r#""protocolVersion":"2025-11-25""#;
        g.post(OPEN, &[], format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"initialize","params":{{{version}}}}}"#))
    }),
];

/// As one user with many credentials.
const KNOWN: [(&str, Try); 4] = [
    ("another key of the same user", |g, _| g.modern(GITHUB, &[("authorization", &*bearer(SECOND))], "tools/call", TOOL)),
    ("the key in another header", |g, _| {
        let key = bearer(ENGINEER).replace("Bearer ", "");
        g.modern(GITHUB, &[("x-api-key", &*key)], "tools/call", TOOL)
    }),
    ("a token of the same user", |g, n| {
        let token = sign(&signing_key(1), &header(), &with(claims(), "jti", json!(format!("t-{n}"))));
        g.modern(GITHUB, &[("authorization", &*format!("Bearer {token}"))], "tools/call", TOOL)
    }),
    ("another server", |g, _| g.modern(OPEN, &[("authorization", &*bearer(SECOND))], "tools/call", TOOL)),
];
const SECOND: &str = "secondkeyaaaaaaa";

/// The first user's keys are one user's, and so are the tokens that `claims` describes.
fn scope(upstream: &Upstream) -> Scope {
    let mut scope = Scope::at(upstream.address);
    scope.orgs[0].limits = vec![limit("hourly", SPENT, &[LimitPer::User])];
    let first = scope.keys.iter_mut().find(|key| key.key_id == ENGINEER).unwrap();
    first.subject = "user-1".into();
    let second = ApiKey { key_id: SECOND.into(), org_id: ACME.into(), ..first.clone() };
    let secret = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(format!("s3cret-{SECOND}")));
    scope.keys.push(ApiKey { secret_sha256: secret.to_vec().into(), ..second });
    scope
}

#[tokio::test]
async fn no_way_around_a_limit_gains_a_call() {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let gateway = Gateway::start(&scope(&upstream)).await;
    for _ in 0..2 * SPENT {
        gateway.ask(plain(&gateway, &[])).await;
        gateway.ask(gateway.modern(GITHUB, &[("authorization", &*bearer(ENGINEER))], "tools/call", TOOL)).await;
    }
    let spent = upstream.seen().len();
    assert_eq!(spent as u64, 2 * SPENT, "both limits are used up");
    for (way, attempt) in ANONYMOUS.iter().chain(&KNOWN) {
        for n in 0..TRIES {
            let answer = gateway.ask(attempt(&gateway, n)).await;
            assert!(answer.status.is_client_error() || answer.status == 200 && answer.code() != 0, "{way}: {answer:?}");
        }
        assert_eq!(upstream.seen().len(), spent, "{way}");
    }
}

#[tokio::test]
async fn neither_another_connection_nor_http2_gains_a_call() {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let gateway = Gateway::start(&scope(&upstream)).await;
    for _ in 0..SPENT {
        gateway.ask(plain(&gateway, &[])).await;
    }
    let executor = hyper_util::rt::TokioExecutor::new;
    for n in 0..TRIES {
        // A client of its own connects from a port of its own.
        let client = hyper_util::client::legacy::Client::builder(executor()).http2_only(n % 2 == 0).build_http();
        let mut request = plain(&gateway, &[]);
        if n % 2 == 0 {
            *request.version_mut() = Version::HTTP_2;
        }
        assert_eq!(client.request(request).await.unwrap().status(), 429);
    }
    assert_eq!(upstream.seen().len() as u64, SPENT);
}
