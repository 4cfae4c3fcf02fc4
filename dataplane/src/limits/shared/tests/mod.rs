//! Limiters over real Redis servers: what they admit together, and what becomes of calls when Redis is killed, stalled, or emptied.

mod away;
mod fleet;

use std::sync::Arc;

use mcp_gateway::proto::config::v1::{LimitAway, LimitWindow, RateLimit};
use mcp_gateway::snapshot::Limit;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Config, Redis};
use crate::limits::{Admission, Caller, Decision, Demand, How, Limits, Mode, Refusal, Stats, Why};
use crate::testing::RedisServer;

/// The counts of one node, and the task that keeps them in reach.
pub(super) struct Node {
    limits: Arc<Limits>,
    stats: Arc<Stats>,
    _running: DropGuard,
}

impl Node {
    /// One of `nodes`. However busy the machine is, Redis is waited for.
    async fn start(server: &RedisServer, nodes: u32) -> Self {
        Self::with(Redis { url: server.url(), deadline: std::time::Duration::from_secs(1), ..Redis::default() }, nodes).await
    }

    async fn with(redis: Redis, nodes: u32) -> Self {
        let (stats, stop) = (Arc::new(Stats::default()), CancellationToken::new());
        let limits = Arc::new(Limits::open(&Config { redis, ..Config::default() }, stats.clone()));
        limits.connect().await.unwrap();
        limits.live_nodes(nodes);
        let (kept, until) = (limits.clone(), stop.clone());
        #[allow(clippy::disallowed_methods)] // ends with the node
        tokio::spawn(async move { kept.keep(until).await });
        Self { limits, stats, _running: stop.drop_guard() }
    }

    async fn ask(&self, demands: &[Demand<'_>]) -> Result<Admission, Refusal> {
        match self.limits.admit(demands) {
            Decision::Now(decided) => decided,
            Decision::Ask(question) => self.limits.ask(question).await,
        }
    }

    /// How many of `calls` are admitted.
    async fn admitted(&self, limit: &Limit, calls: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..calls {
            admitted += usize::from(self.ask(&[demand(limit)]).await.is_ok());
        }
        admitted
    }

    /// Returns when Redis is away, or there again. It is a state of the metrics page, which nobody announces: it is looked at until it is so.
    async fn until_away(&self, away: bool) {
        while self.stats.is_away() != away {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    fn mode(&self) -> Mode {
        self.limits.usage(10)[0].mode
    }
}

fn limit(windows: &[(u64, u32)], away: LimitAway) -> Limit {
    named("shared", windows, away)
}

fn named(name: &str, windows: &[(u64, u32)], away: LimitAway) -> Limit {
    let windows = windows.iter().map(|(limit, seconds)| LimitWindow { limit: *limit, seconds: *seconds }).collect();
    Limit::compile(&RateLimit { id: name.into(), name: name.into(), windows, when_away: away.into(), ..RateLimit::default() })
}

fn demand(limit: &Limit) -> Demand<'_> {
    Demand { org: "acme", limit, cost: 1, caller: None, server: None, pattern: None }
}

#[tokio::test]
async fn nodes_count_together_and_are_told_how_much_is_left() {
    let server = RedisServer::start();
    let (one, other) = (Node::start(&server, 2).await, Node::start(&server, 2).await);
    let limit = limit(&[(10, 60), (100, 3600)], LimitAway::Share);
    assert_eq!(one.admitted(&limit, 6).await, 6);
    let room = other.ask(&[demand(&limit)]).await.unwrap().tightest.unwrap();
    assert_eq!((room.limit, room.length, room.remaining), (10, 60, 3));
    assert_eq!(other.admitted(&limit, 6).await, 3);
    let refusal = one.ask(&[demand(&limit)]).await.unwrap_err();
    let Why::Window { room, wait } = refusal.why else { panic!("{refusal:?}") };
    assert!((room.length, room.remaining) == (60, 0) && (58_000_000..62_000_000).contains(&wait), "{room:?} {wait}");
    assert_eq!(one.limits.usage(10)[0].used, 10, "by all nodes");
    assert_eq!((one.mode(), one.stats.decisions(How::Redis, true)), (Mode::Redis, 6));
    // Raised, it keeps what is counted.
    let raised = named("shared", &[(12, 60), (100, 3600)], LimitAway::Share);
    assert_eq!(one.admitted(&raised, 5).await, 2);
}

#[tokio::test]
async fn a_call_that_one_count_refuses_counts_in_none() {
    let server = RedisServer::start();
    let node = Node::start(&server, 1).await;
    let (narrow, wide) = (named("narrow", &[(2, 60)], LimitAway::Share), named("wide", &[(10, 60)], LimitAway::Share));
    let alice = Demand { caller: Some(Caller::Subject("alice}:{bob")), ..demand(&narrow) };
    for place in 0..20 {
        let asked = node.ask(&[demand(&wide), alice]).await;
        assert_eq!(asked.map_err(|refusal| refusal.demand).err(), (place >= 2).then_some(1));
    }
    let bob = Demand { caller: Some(Caller::Subject("bob")), ..demand(&narrow) };
    assert!(node.ask(&[bob]).await.is_ok(), "another caller's count");
    assert_eq!(node.admitted(&wide, 20).await, 8);
}

#[tokio::test]
async fn what_redis_refused_is_refused_without_asking_until_it_may_fit() {
    let server = RedisServer::start();
    let node = Node::start(&server, 1).await;
    let limit = limit(&[(2, 3600)], LimitAway::Share);
    assert_eq!(node.admitted(&limit, 3).await, 2);
    let asked = server.scripts().await;
    assert_eq!(node.admitted(&limit, 500).await, 0);
    assert_eq!(server.scripts().await, asked);
    assert_eq!(node.limits.usage(1)[0].refused, 501);
}

#[tokio::test]
async fn a_hot_count_is_leased_and_costs_redis_little() {
    const CALLS: usize = 20_000;
    let server = RedisServer::start();
    let node = Node::start(&server, 1).await;
    let limit = limit(&[(1_000_000, 60)], LimitAway::Share);
    assert_eq!(node.admitted(&limit, CALLS).await, CALLS);
    let asked = server.scripts().await;
    let leased = node.stats.decisions(How::Lease, true);
    println!("{asked} scripts for {CALLS} calls, {leased} by tokens in hand");
    assert!(asked < CALLS as u64 / 4 && leased > CALLS as u64 / 2, "{asked} scripts, {leased} leased");
    assert_eq!(leased + node.stats.decisions(How::Redis, true), CALLS as u64);
    assert_eq!(node.mode(), Mode::Lease);
}

#[tokio::test]
async fn a_cluster_has_all_counts_of_an_organisation_in_one_slot() {
    let server = RedisServer::cluster().await;
    let settings = Redis { url: server.url(), cluster: true, deadline: std::time::Duration::from_secs(1), ..Redis::default() };
    let node = Node::with(settings, 1).await;
    let limits = ["a", "b", "c"].map(|name| named(name, &[(5, 60), (50, 3600)], LimitAway::Closed));
    let callers = ["alice", "bob"];
    for org in ["acme", "globex"] {
        for caller in callers {
            let demands = limits.each_ref().map(|limit| {
                let caller = Some(Caller::Subject(caller));
                Demand { org, caller, server: Some("server"), pattern: Some("tool_*"), ..demand(limit) }
            });
            for place in 0..8 {
                let asked = node.ask(&demands).await;
                assert_eq!(asked.is_ok(), place < 5, "{asked:?}");
            }
        }
    }
    assert_eq!(node.stats.decisions(How::Redis, true), 20, "none was decided without it");
}

#[tokio::test]
async fn caps_stay_with_their_node_and_are_given_back_when_redis_refuses() {
    let server = RedisServer::start();
    let node = Node::start(&server, 1).await;
    let windows = vec![LimitWindow { limit: 2, seconds: 3600 }];
    let limit =
        Limit::compile(&RateLimit { id: "c".into(), name: "c".into(), windows, max_concurrent: 1, ..RateLimit::default() });
    let first = node.ask(&[demand(&limit)]).await.unwrap();
    let asked = server.scripts().await;
    assert_eq!(node.ask(&[demand(&limit)]).await.unwrap_err().why, Why::InFlight { most: 1 });
    assert_eq!(server.scripts().await, asked, "nobody was asked");
    drop(first);
    drop(node.ask(&[demand(&limit)]).await.unwrap());
    for _ in 0..3 {
        let refusal = node.ask(&[demand(&limit)]).await.unwrap_err();
        assert!(matches!(refusal.why, Why::Window { .. }), "{refusal:?}");
    }
}
