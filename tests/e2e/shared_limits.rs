//! Limits that three nodes share in one Redis, with real calls through HTTP: never more than the limit, whatever happens to Redis.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::{CreateRateLimitRequest, RateLimit};
use mcp_gateway::proto::config::v1::LimitWindow;
use mcpgw_dataplane::testing::RedisServer;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Admin, Answer, Call, Control, Http, Node, ORG, Rule, SERVER};
use secrecy::SecretString;
use serde_json::json;

/// In an hour: no test lasts long enough for anything to become free again.
const LIMIT: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes over one Redis, and a key whose calls are limited.
struct World {
    redis: RedisServer,
    nodes: Vec<Node>,
    key: String,
    http: Http,
    _control: Control,
    _backend: Backend,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let (redis, control, backend) = (RedisServer::start(), Control::start().await?, Backend::on_free_port().await?);
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        admin.create_server(ORG, SERVER, &backend.url(), false).await?;
        let rule = Rule { name: "tester", server: SERVER, roles: &["tester"], tools: &["tool_0"], ..Rule::default() };
        admin.create_policy(ORG, rule).await?;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(join(&control, &admin, &redis).await?);
        }
        let key = admin.create_key(ORG, &["tester"]).await?;
        let limited = limit(&admin).await?;
        admin.wait(limited).await?;
        for node in &nodes {
            until(node, "mcpgw_limit_nodes", 3).await;
        }
        Ok(Self { redis, nodes, key: key.secret, http: Http::default(), _control: control, _backend: backend })
    }

    async fn call(&self, node: &Node) -> Answer {
        let url = node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"));
        self.http.send(Call::tool(&url, &self.key, "tool_0", &json!({}))).await.unwrap()
    }

    /// `calls` at every node, one after the other there; how many were admitted. Whatever else happens, no call meets an error.
    async fn calls(&self, calls: usize, answered: &AtomicUsize) -> usize {
        let at = async |node: &Node| {
            let mut admitted = 0;
            for _ in 0..calls {
                let answer = self.call(node).await;
                match answer.status.as_u16() {
                    200 => admitted += 1,
                    429 => assert!(answer.headers.contains_key("retry-after"), "{answer:?}"),
                    _ => panic!("{answer:?}"),
                }
                answered.fetch_add(1, Relaxed);
            }
            admitted
        };
        join_all(self.nodes.iter().map(at)).await.into_iter().sum()
    }
}

async fn join(control: &Control, admin: &Admin, redis: &RedisServer) -> anyhow::Result<Node> {
    let token = admin.join_token().await?;
    let node = Node::with(control, |config| {
        config.control_plane.join_token = Some(SecretString::from(token));
        config.redis.url = redis.url();
        // However busy the machine is.
        config.redis.deadline = Duration::from_millis(500);
    });
    let node = node.await?;
    node.ready().await?;
    Ok(node)
}

async fn limit(admin: &Admin) -> anyhow::Result<u64> {
    let windows = vec![LimitWindow { limit: LIMIT as u64, seconds: 3600 }];
    let request = CreateRateLimitRequest {
        parent: format!("organizations/{ORG}"),
        rate_limit_id: "hourly".to_owned(),
        rate_limit: Some(RateLimit { windows, ..RateLimit::default() }),
        ..CreateRateLimitRequest::default()
    };
    let created = RateLimitServiceClient::new(admin.channel.clone()).create_rate_limit(admin.request(request)).await?;
    Ok(created.into_inner().config_version)
}

/// Returns when a metric of the node has this value. There is no watch on metrics, so this asks again and again.
async fn until(node: &Node, name: &str, expected: u64) {
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        while node.metric(name).await.unwrap() != expected {
            turn.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_elapsed| panic!("{name} never was {expected}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_admit_a_limit_together_and_no_more_while_redis_is_killed_and_comes_back_empty() {
    let mut world = World::start().await.unwrap();
    let answered = AtomicUsize::new(0);
    assert_eq!(world.calls(5, &answered).await, 15);

    // In mid-run: the tenth answer to these calls kills it.
    let kill = answered.load(Relaxed) + 10;
    let killer = async {
        let mut turn = tokio::time::interval(Duration::from_millis(1));
        while answered.load(Relaxed) < kill {
            turn.tick().await;
        }
        world.redis.strike();
    };
    let (admitted, ()) = tokio::join!(world.calls(40, &answered), killer);
    let total = 15 + admitted;
    for node in &world.nodes {
        until(node, "mcpgw_limit_redis_away", 1).await;
        let alone = node.metric("mcpgw_limit_decisions_total{mode=\"share\",outcome=\"admitted\"}").await.unwrap();
        assert!(alone > 0, "it went on by itself");
    }
    println!("{total} of {LIMIT} admitted when Redis was killed in mid-run");
    assert!((LIMIT * 8 / 10..=LIMIT * 11 / 10).contains(&total), "{total}");

    world.redis.restart();
    for node in &world.nodes {
        until(node, "mcpgw_limit_redis_away", 0).await;
    }
    let total = total + world.calls(10, &answered).await;
    println!("{total} of {LIMIT} admitted when Redis was back, empty");
    assert!(total <= LIMIT * 11 / 10, "{total}");
    let fresh = world.call(&world.nodes[0]).await;
    assert_eq!((fresh.status.as_u16(), fresh.code()), (429, Some(-31429)), "{fresh:?}");
    assert_eq!(fresh.headers["ratelimit-policy"], "\"hourly\";q=60;w=3600");
}
