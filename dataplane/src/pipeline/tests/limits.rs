//! Limits over real sockets: what is refused and how, what each kind of limit tells apart, and that no trick gains a call.

mod bypass;
mod failures;

use mcp_gateway::proto::config::v1::{LimitAway, LimitCost, LimitPer, LimitWindow, Match, RateLimit, Subjects};
use mcp_gateway::proto::node::v1::{AuditClass, Decision};

use super::scope::{COLLEAGUE, ENGINEER, GITHUB, OPEN, Scope, bearer};
use super::sessions::{self, CALL};
use super::world::{Answer, Gateway, Upstream, result};
use crate::config::Config;
use crate::testing::RedisServer;

/// So much in an hour: no test lasts long enough for anything to become free again.
fn limit(name: &str, limit: u64, per: &[LimitPer]) -> RateLimit {
    RateLimit {
        id: format!("0190a000-0000-7000-8000-{:012x}", name.bytes().map(u64::from).sum::<u64>()),
        name: name.into(),
        windows: vec![LimitWindow { limit, seconds: 3600 }],
        per: per.iter().map(|per| (*per).into()).collect(),
        ..RateLimit::default()
    }
}

fn tools(patterns: &[&str]) -> Option<Match> {
    Some(Match { tools: patterns.iter().map(|text| (*text).to_owned()).collect(), ..Match::default() })
}

/// A gateway whose first organisation has these limits, before a server that answers everything.
async fn world(limits: Vec<RateLimit>) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    let mut scope = Scope::at(upstream.address);
    scope.orgs[0].limits = limits;
    (Gateway::start(&scope).await, upstream)
}

async fn call(gateway: &Gateway, server: &str, credential: &str, tool: &str) -> Answer {
    let headers = [("authorization", credential)];
    let headers = if credential.is_empty() { &[][..] } else { &headers[..] };
    gateway.ask(gateway.modern(server, headers, "tools/call", &format!(r#""name":"{tool}""#))).await
}

/// How many of ten calls were admitted.
async fn admitted(gateway: &Gateway, server: &str, credential: &str, tool: &str) -> usize {
    let mut count = 0;
    for _ in 0..10 {
        let answer = call(gateway, server, credential, tool).await;
        assert!(matches!(answer.status.as_u16(), 200 | 429), "{answer:?}");
        count += usize::from(answer.status == 200);
    }
    count
}

#[tokio::test]
async fn what_does_not_fit_gets_429_and_is_told_when_to_come_back() {
    let (gateway, upstream) = world(vec![limit("hourly", 2, &[LimitPer::User])]).await;
    let engineer = bearer(ENGINEER);
    for left in [1, 0] {
        let answer = call(&gateway, GITHUB, &engineer, "echo").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"hourly\";q=2;w=3600"));
        let now = answer.header("ratelimit").unwrap();
        assert!(now.starts_with(&format!("\"hourly\";r={left};t=3")), "{now}");
    }
    let refused = call(&gateway, GITHUB, &engineer, "echo").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, -31429), "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(error["message"], "The limit hourly is used up: 2 in 3600 s");
    assert_eq!((&refused.json()["id"], &error["data"]["limit"]), (&"q-1".into(), &"hourly".into()));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(error["data"]["retryAfterMs"].as_u64().unwrap().div_ceil(1000), after);
    assert!((3500..=3720).contains(&after), "{after}");
    assert_eq!(upstream.seen().len(), 2, "what is refused never leaves");

    let (decided, ended) = gateway.record(refused.request_id());
    assert_eq!((decided.class(), decided.decision()), (AuditClass::Audit, Decision::Deny));
    assert_eq!((&*decided.reason, &*decided.rule, &*decided.mode), ("limit.spent", "hourly", "limit"));
    assert_eq!(ended.status, 429);
    let page = gateway.ask(gateway.request(http::Method::GET, "/metrics", &[], "")).await;
    assert_ne!(page.status, 200, "metrics are not for clients");
}

#[tokio::test]
async fn users_servers_and_endpoints_are_told_apart_as_the_limit_says() {
    let (engineer, colleague) = (bearer(ENGINEER), bearer(COLLEAGUE));
    // Together, each user, each server, each endpoint: named tools by themselves, all of a pattern together.
    let (gateway, _upstream) = world(vec![limit("all", 3, &[])]).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_code").await, 3);
    assert_eq!(admitted(&gateway, OPEN, &colleague, "search_code").await, 0);

    let (gateway, _upstream) = world(vec![limit("user", 3, &[LimitPer::User])]).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_code").await, 3);
    assert_eq!(admitted(&gateway, OPEN, &engineer, "search_code").await, 0);
    assert_eq!(admitted(&gateway, GITHUB, &colleague, "search_code").await, 3);

    let (gateway, _upstream) = world(vec![limit("server", 3, &[LimitPer::Server])]).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_code").await, 3);
    assert_eq!(admitted(&gateway, OPEN, &engineer, "search_code").await, 3);
    assert_eq!(admitted(&gateway, GITHUB, &colleague, "search_code").await, 0);

    let endpoints = RateLimit { r#match: tools(&["search_*", "echo"]), ..limit("endpoint", 3, &[LimitPer::Endpoint]) };
    let (gateway, _upstream) = world(vec![endpoints]).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_code").await, 3);
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_other").await, 0);
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "echo").await, 3);
    assert_eq!(admitted(&gateway, OPEN, &engineer, "search_code").await, 3);
}

/// Real Redis, killed: the limit says that nothing is admitted then.
#[tokio::test]
async fn a_limit_that_is_closed_without_its_counts_answers_503_and_says_which() {
    let (mut redis, upstream) = (RedisServer::start(), Upstream::start(|seen| result(seen, "{}")).await);
    let mut scope = Scope::at(upstream.address);
    scope.orgs[0].limits = vec![RateLimit { when_away: LimitAway::Closed.into(), ..limit("strict", 5, &[]) }];
    let settings = |config: &mut Config| {
        config.redis.url = redis.url();
        config.redis.deadline = std::time::Duration::from_secs(1);
    };
    let gateway = Gateway::with(Some(&scope), settings).await;
    let engineer = bearer(ENGINEER);
    assert_eq!(call(&gateway, GITHUB, &engineer, "echo").await.header("ratelimit-policy"), Some("\"strict\";q=5;w=3600"));
    redis.kill();
    let refused = call(&gateway, GITHUB, &engineer, "echo").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.json()["error"]["data"]["limit"], "strict");
    let (decided, ended) = gateway.record(refused.request_id());
    assert_eq!((&*decided.reason, &*decided.rule, ended.status), ("limit.away", "strict", 503));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn costs_subjects_and_methods_decide_what_counts() {
    let engineer = bearer(ENGINEER);
    let costs = vec![LimitCost { tools: "search_*".into(), cost: 4 }];
    let (gateway, _upstream) = world(vec![RateLimit { costs, ..limit("weighed", 10, &[]) }]).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "search_code").await, 2);
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "echo").await, 2);

    let subjects = Some(Subjects { roles: vec!["colleague".into()], ..Subjects::default() });
    let lists = Some(Match { methods: vec!["tools/list".into()], ..Match::default() });
    let limits =
        vec![RateLimit { subjects, ..limit("colleagues", 1, &[]) }, RateLimit { r#match: lists, ..limit("lists", 1, &[]) }];
    let (gateway, _upstream) = world(limits).await;
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "echo").await, 10);
    assert_eq!(admitted(&gateway, GITHUB, &bearer(COLLEAGUE), "search_code").await, 1);
    let list = async || gateway.ask(gateway.modern(GITHUB, &[("authorization", &*engineer)], "tools/list", "")).await.status;
    assert_ne!(list().await, 429);
    assert_eq!(list().await, 429);
}

#[tokio::test]
async fn what_policy_refuses_does_not_count_and_an_edited_limit_keeps_its_counts() {
    let (gateway, upstream) = world(vec![limit("hourly", 3, &[])]).await;
    let engineer = bearer(ENGINEER);
    for _ in 0..10 {
        assert_eq!(call(&gateway, GITHUB, &engineer, "delete_all").await.code(), -32602);
    }
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "echo").await, 3);
    let mut scope = Scope::at(upstream.address);
    scope.version = 8;
    scope.orgs[0].limits = vec![limit("hourly", 5, &[])];
    gateway.swap(&scope);
    assert_eq!(admitted(&gateway, GITHUB, &engineer, "echo").await, 2, "three of the five are used");
}

#[tokio::test]
async fn every_element_of_a_batch_counts_and_is_refused_alone() {
    let upstream = Upstream::start(sessions::legacy).await;
    let mut scope = Scope::at(upstream.address);
    let calls = RateLimit { r#match: tools(&["*"]), ..limit("calls", 3, &[LimitPer::User]) };
    scope.orgs[0].limits = vec![calls];
    let gateway = Gateway::start(&scope).await;
    let engineer = bearer(ENGINEER);
    let opened = sessions::open(&gateway, GITHUB, &engineer, "2025-03-26").await;
    let session = opened.header("mcp-session-id").unwrap();
    let with = [("authorization", &*engineer), ("mcp-session-id", session)];
    let answer = gateway.ask(gateway.post(GITHUB, &with, format!("[{CALL},{CALL},{CALL},{CALL},{CALL}]"))).await;
    let codes: Vec<_> = answer.json().as_array().unwrap().iter().map(|it| it["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, None, None, Some(-31429), Some(-31429)], "{answer:?}");
    assert!(answer.json()[4]["error"]["data"]["retryAfterMs"].as_u64() > Some(1000));
}

#[tokio::test]
async fn a_cap_counts_what_is_in_flight_and_forgets_what_has_ended() {
    let capped = RateLimit { windows: Vec::new(), max_concurrent: 1, ..limit("one-by-one", 1, &[LimitPer::User]) };
    let (gateway, _upstream) = world(vec![capped]).await;
    assert_eq!(admitted(&gateway, GITHUB, &bearer(ENGINEER), "echo").await, 10, "one after the other");
}
