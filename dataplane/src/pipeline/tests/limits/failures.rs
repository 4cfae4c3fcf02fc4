//! What an address and a principal may get wrong: guesses end, whatever they are dressed as, and nobody who is somebody pays for them.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use mcp_gateway::proto::node::v1::Decision;

use super::super::scope::{COLLEAGUE, ENGINEER, EXPIRED, FOREIGN, GITHUB, NOBODYS, OPEN, STRANGER, Scope, bearer, signing_key};
use super::super::tokens::{claims, header, sign};
use super::super::world::{Gateway, Upstream, result};
use super::call;

const ALLOWED: u32 = 5;

async fn gateway(proxies: &[&str]) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let scope = Scope::at(upstream.address);
    let gateway = Gateway::with(Some(&scope), |config| {
        config.limits.failures_per_address = ALLOWED;
        config.trusted_proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
    });
    (gateway.await, upstream)
}

fn asking(gateway: &Gateway, server: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    gateway.modern(server, headers, "tools/call", r#""name":"echo""#)
}

fn guess(n: usize) -> String {
    format!("Bearer mcpgw_{ENGINEER}_guess-{n}")
}

async fn status(gateway: &Gateway, headers: &[(&str, &str)]) -> u16 {
    gateway.ask(asking(gateway, GITHUB, headers)).await.status.as_u16()
}

/// Fails as often as is answered.
async fn spend(gateway: &Gateway, more: &[(&str, &str)]) {
    for n in 0..ALLOWED as usize {
        let guess = guess(n);
        let headers = [&[("authorization", &*guess)], more].concat();
        assert_eq!(status(gateway, &headers).await, 401);
    }
}

#[tokio::test]
async fn guesses_end_and_whoever_was_somebody_goes_on() {
    let (gateway, upstream) = gateway(&[]).await;
    let engineer = bearer(ENGINEER);
    let token = format!("Bearer {}", sign(&signing_key(1), &header(), &claims()));
    assert_eq!(call(&gateway, GITHUB, &engineer, "echo").await.status, 200);
    assert_eq!(call(&gateway, GITHUB, &token, "echo").await.status, 200);
    spend(&gateway, &[]).await;
    let before = upstream.seen().len();

    let refused = gateway.ask(asking(&gateway, GITHUB, &[("authorization", &guess(99))])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, -31429), "{refused:?}");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=62).contains(&after), "{after}");
    assert_eq!(refused.json()["error"]["data"]["retryAfterMs"].as_u64().unwrap().div_ceil(1000), after);
    let (decided, ended) = gateway.record(refused.request_id());
    assert_eq!((decided.decision(), &*decided.reason, ended.status), (Decision::Deny, "limit.failures", 429));
    assert_eq!((&*decided.subject, &*decided.client_address), ("", "127.0.0.1"));
    let page = gateway.ask({
        let mut page = gateway.request(Method::GET, "/metrics", &[], "");
        *page.uri_mut() = format!("http://{}/metrics", gateway.admin).parse().unwrap();
        page
    });
    let page = page.await.body;
    assert!(page.contains(r#"refusals_total{reason="limit.failures"} 1"#), "{page}");

    assert_eq!(call(&gateway, GITHUB, &bearer(COLLEAGUE), "search_code").await.status, 429, "right, but new here");
    assert_eq!(call(&gateway, GITHUB, "", "echo").await.status, 429, "a credential is missing once too often");
    assert_eq!(upstream.seen().len(), before);
    assert_eq!(call(&gateway, GITHUB, &engineer, "echo").await.status, 200, "it has held before");
    assert_eq!(call(&gateway, GITHUB, &token, "echo").await.status, 200);
    assert_eq!(call(&gateway, OPEN, "", "echo").await.status, 200, "there is nothing to guess");
}

type Try = fn(usize) -> (&'static str, Vec<(&'static str, String)>);

/// Ways to try for one more answer to a guess.
const TRIES: [(&str, Try); 19] = [
    ("another secret", |n| (GITHUB, vec![("authorization", guess(100 + n))])),
    ("another key", |n| (GITHUB, vec![("authorization", format!("Bearer mcpgw_otherkey{n}aaaaaa_secret"))])),
    ("the right key of another caller", |_| (GITHUB, vec![("authorization", bearer(STRANGER))])),
    ("a key that has expired", |_| (GITHUB, vec![("authorization", bearer(EXPIRED))])),
    ("the other header", |n| (GITHUB, vec![("x-api-key", format!("mcpgw_{ENGINEER}_guess-{n}"))])),
    ("both headers", |n| (GITHUB, vec![("x-api-key", format!("mcpgw_{ENGINEER}_{n}")), ("authorization", guess(n))])),
    ("another scheme", |n| (GITHUB, vec![("authorization", format!("Basic YTpi{n}"))])),
    ("what is no credential", |n| (GITHUB, vec![("authorization", format!("Bearer {n}"))])),
    ("a token", |n| (GITHUB, vec![("authorization", format!("Bearer a.b{n}.c"))])),
    ("a token that another key signed", |_| {
        (GITHUB, vec![("authorization", format!("Bearer {}", sign(&signing_key(9), &header(), &claims())))])
    }),
    ("another server", |n| (OPEN, vec![("authorization", guess(n))])),
    ("a server of others", |n| (FOREIGN, vec![("authorization", guess(n))])),
    ("a server that is not there", |n| (NOBODYS, vec![("authorization", guess(n))])),
    ("X-Forwarded-For", |n| (GITHUB, vec![("authorization", guess(n)), ("x-forwarded-for", format!("198.51.100.{n}"))])),
    ("X-Forwarded-For, IPv6", |n| (GITHUB, vec![("authorization", guess(n)), ("x-forwarded-for", format!("2001:db8:{n}::1"))])),
    ("X-Real-IP", |n| (GITHUB, vec![("authorization", guess(n)), ("x-real-ip", format!("198.51.100.{n}"))])),
    ("Forwarded", |n| (GITHUB, vec![("authorization", guess(n)), ("forwarded", format!("for=198.51.100.{n}"))])),
    ("CF-Connecting-IP", |n| (GITHUB, vec![("authorization", guess(n)), ("cf-connecting-ip", format!("198.51.100.{n}"))])),
    ("a session nobody gave out", |n| (GITHUB, vec![("authorization", guess(n)), ("mcp-session-id", format!("session-{n}"))])),
];

#[tokio::test]
async fn no_way_of_guessing_gets_another_answer() {
    let (gateway, upstream) = gateway(&[]).await;
    spend(&gateway, &[]).await;
    for (way, attempt) in TRIES {
        for n in 0..4 {
            let (server, headers) = attempt(n);
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(gateway.ask(asking(&gateway, server, &headers)).await.status, 429, "{way}");
        }
    }
    let page =
        gateway.ask(gateway.request(Method::GET, &format!("/servers/{GITHUB}/mcp/status"), &[("authorization", &guess(7))], ""));
    assert_eq!(page.await.status, 429, "the status page");
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_answers_for_itself_and_an_ipv6_network_is_one() {
    let (gateway, _upstream) = gateway(&["127.0.0.0/8", "10.0.0.0/8"]).await;
    spend(&gateway, &[("x-forwarded-for", "198.51.100.1")]).await;
    let from = async |address: &str| status(&gateway, &[("authorization", &guess(50)), ("x-forwarded-for", address)]).await;
    assert_eq!(from("198.51.100.1").await, 429);
    assert_eq!(from("203.0.113.9, 198.51.100.1").await, 429, "what the client said of itself");
    assert_eq!(from("203.0.113.9, 198.51.100.1, 10.1.2.3").await, 429, "over two proxies");
    assert_eq!(from("198.51.100.2").await, 401);
    for host in 1..=ALLOWED {
        assert_eq!(from(&format!("2001:db8:0:1::{host}")).await, 401);
    }
    assert_eq!(from("2001:db8:0:1:ffff::1").await, 429, "hosts of one network");
    assert_eq!(from("2001:db8:0:2::1").await, 401);
}

#[tokio::test]
async fn what_policy_refuses_a_principal_is_counted_against_it_and_not_against_its_address() {
    let (gateway, _upstream) = gateway(&[]).await;
    let engineer = bearer(ENGINEER);
    for _ in 0..ALLOWED {
        assert_eq!(call(&gateway, GITHUB, &engineer, "delete_all").await.code(), -32602);
    }
    for _ in 0..3 {
        assert_eq!(call(&gateway, GITHUB, &engineer, "delete_all").await.status, 429);
        assert_eq!(call(&gateway, GITHUB, &engineer, "echo").await.status, 200, "what it may do it may go on doing");
    }
    assert_eq!(call(&gateway, GITHUB, &bearer(COLLEAGUE), "search_code").await.status, 200, "a neighbour, new here");
    assert_eq!(call(&gateway, GITHUB, &guess(1), "echo").await.status, 401);
}
