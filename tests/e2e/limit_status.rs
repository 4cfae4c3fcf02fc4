//! How much of a limit is used, from the calls of a client to what the API shows.

use std::time::Duration;

use http::StatusCode;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::{CreateRateLimitRequest, LimitUsage, ListLimitUsageRequest, RateLimit};
use mcp_gateway::proto::config::v1::{LimitPer, LimitWindow};
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Admin, Call, Control, Fleet, Http, Node, ORG, Rule, SERVER};
use secrecy::SecretString;
use serde_json::json;

const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// A fleet whose node reports ten times a second.
async fn fleet() -> Fleet {
    let control = Control::start().await.unwrap();
    let admin = control.owner().await.unwrap();
    admin.create_org(ORG).await.unwrap();
    let backend = Backend::on_free_port().await.unwrap();
    let version = admin.create_server(ORG, SERVER, &backend.url(), false).await.unwrap().config_version;
    let token = admin.join_token().await.unwrap();
    let node = Node::with(&control, |config| {
        config.control_plane.join_token = Some(SecretString::from(token));
        config.control_plane.report_interval = Duration::from_millis(100);
    });
    let node = node.await.unwrap();
    node.ready().await.unwrap();
    admin.wait(version).await.unwrap();
    Fleet { control, node, backend, admin }
}

async fn create(fleet: &Fleet) {
    let limit = RateLimit {
        per: vec![LimitPer::User.into(), LimitPer::Server.into()],
        windows: vec![LimitWindow { limit: 3, seconds: 3600 }],
        ..RateLimit::default()
    };
    let request = CreateRateLimitRequest {
        parent: format!("organizations/{ORG}"),
        rate_limit_id: "few".into(),
        rate_limit: Some(limit),
        ..CreateRateLimitRequest::default()
    };
    let mut client = RateLimitServiceClient::new(fleet.admin.channel.clone());
    let made = client.create_rate_limit(fleet.admin.request(request)).await.unwrap().into_inner();
    fleet.admin.wait(made.config_version).await.unwrap();
}

/// The one count there is, once it is as it should be; nodes report by themselves, and there is no watch.
async fn until(admin: &Admin, holds: impl Fn(&LimitUsage) -> bool) -> LimitUsage {
    let mut client = RateLimitServiceClient::new(admin.channel.clone());
    let asked = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            let request = ListLimitUsageRequest { parent: format!("organizations/{ORG}"), ..Default::default() };
            let found = client.list_limit_usage(admin.request(request)).await.unwrap().into_inner().usage;
            if let [one] = &found[..]
                && holds(one)
            {
                return one.clone();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the node reports it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_use_of_a_limit_is_seen_by_whoever_asks() {
    let fleet = fleet().await;
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    create(&fleet).await;
    let (http, url) = (Http::default(), fleet.url(SERVER));
    let call = async || http.send(Call::tool(&url, &key, "tool_0", &json!({}))).await.unwrap().status;

    assert_eq!([call().await, call().await], [StatusCode::OK; 2]);
    let used = until(&fleet.admin, |usage| usage.used == 2).await;
    assert_eq!((used.headroom, used.limit, used.refused, used.seconds), (1, 3, 0, 3600));
    assert_eq!((used.rate_limit.as_str(), used.server.as_str()), ("organizations/acme/rateLimits/few", SERVER));
    assert!(used.subject.starts_with("key:"), "{used:?}");
    assert_eq!((used.mode.as_str(), used.node), ("memory", format!("nodes/{}", fleet.node.identity().unwrap().node_id)));

    assert_eq!([call().await, call().await, call().await][1..], [StatusCode::TOO_MANY_REQUESTS; 2]);
    let spent = until(&fleet.admin, |usage| usage.refused == 2).await;
    assert_eq!((spent.headroom, spent.used), (0, 3), "a refused call uses nothing");
}
