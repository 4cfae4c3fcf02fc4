//! The reading side of the records, over a whole fleet: a real call appears to a follower at either of two replicas exactly once, the
//! statistics are the calls that were made, and errors of one kind are one group that tells nothing of their text.

use std::collections::BTreeMap;

use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::stats_service_client::StatsServiceClient;
use mcp_gateway::proto::admin::v1::{
    FollowRequestLogsRequest, FollowRequestLogsResponse, GetStatsRequest, ListErrorGroupsRequest, RequestLog, StatsDimension,
};
use mcpgw_tests::fleet::{Admin, Call, Control, Fleet, Http, Node, ORG, Rule, SERVER};
use secrecy::SecretString;
use serde_json::json;
use tonic::Streaming;

const CALLS: usize = 30;
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_*", "fail"],
    prompts: &[],
    resources: &[],
};

async fn follow(admin: &Admin, resume_token: &str) -> Streaming<FollowRequestLogsResponse> {
    let request = FollowRequestLogsRequest {
        parent: format!("organizations/{ORG}"),
        resume_token: resume_token.into(),
        method: "tools/call".into(),
        ..FollowRequestLogsRequest::default()
    };
    let stream = LogServiceClient::new(admin.channel.clone()).follow_request_logs(admin.request(request)).await;
    stream.unwrap().into_inner()
}

/// Reads until every id has appeared: how often each did, and where to go on.
async fn appear(
    stream: &mut Streaming<FollowRequestLogsResponse>,
    ids: &[String],
) -> (BTreeMap<String, usize>, Vec<RequestLog>, String) {
    let (mut seen, mut logs) = (BTreeMap::<String, usize>::new(), Vec::new());
    loop {
        let answer = stream.message().await.unwrap().expect("a stream lasts");
        for log in answer.request_logs {
            *seen.entry(log.request_id.clone()).or_default() += 1;
            logs.push(log);
        }
        if ids.iter().all(|id| seen.contains_key(id)) {
            return (seen, logs, answer.resume_token);
        }
    }
}

fn once(ids: &[String]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| (id.clone(), 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_appear_once_at_either_replica_and_add_up() {
    let fleet = Fleet::start().await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    // A second replica, with a node of its own.
    let second = Control::with((*fleet.control.running.core.config).clone()).await.unwrap();
    let other = second.owner().await.unwrap();
    let token = SecretString::from(fleet.admin.join_token().await.unwrap());
    let node = Node::with(&second, |config| config.control_plane.join_token = Some(token)).await.unwrap();
    node.ready().await.unwrap();

    let (mut here, mut there) = (follow(&fleet.admin, "").await, follow(&other, "").await);
    let start = here.message().await.unwrap().unwrap();
    let _begins = there.message().await.unwrap().unwrap();
    assert!(start.request_logs.is_empty());
    let (http, mut ids, mut errors) = (Http::default(), Vec::new(), 0);
    for n in 0..CALLS {
        let url = [fleet.url(SERVER), node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"))][n % 2].clone();
        let tool = if n % 3 == 0 { "fail" } else { "tool_0" };
        errors += usize::from(n % 3 == 0);
        let answer = http.send(Call::tool(&url, &key, tool, &json!({}))).await.unwrap();
        ids.push(answer.request_id().to_owned());
    }
    let (seen, logs, _) = appear(&mut here, &ids).await;
    assert_eq!(seen, once(&ids), "at the first replica");
    assert!(logs.iter().all(|log| ["ok", "error"].contains(&log.outcome.as_str())), "{logs:?}");
    let (seen, _, behind) = appear(&mut there, &ids).await;
    assert_eq!(seen, once(&ids), "at the second replica");

    // A token of one replica is good at the other: nothing twice, nothing left out.
    drop((here, there));
    let url = fleet.url(SERVER);
    let late = http.send(Call::tool(&url, &key, "tool_0", &json!({}))).await.unwrap().request_id().to_owned();
    let mut resumed = follow(&fleet.admin, &behind).await;
    assert_eq!(appear(&mut resumed, std::slice::from_ref(&late)).await.0, once(std::slice::from_ref(&late)));
    let mut whole = follow(&other, &start.resume_token).await;
    ids.push(late);
    assert_eq!(appear(&mut whole, &ids).await.0, once(&ids), "from the beginning");

    // What has appeared is counted: it was committed in one transaction.
    let request = GetStatsRequest {
        parent: format!("organizations/{ORG}"),
        group_by: vec![StatsDimension::Outcome.into()],
        filter: Some(mcp_gateway::proto::admin::v1::StatsFilter { method: "tools/call".into(), ..Default::default() }),
        ..GetStatsRequest::default()
    };
    let stats = StatsServiceClient::new(other.channel.clone()).get_stats(other.request(request)).await.unwrap().into_inner();
    let counted: BTreeMap<_, _> = stats.series.iter().map(|it| (it.outcome.as_str(), it.total.unwrap().calls)).collect();
    let made = |outcome: &'static str, count: usize| (outcome, count as u64);
    assert_eq!(counted, BTreeMap::from([made("error", errors), made("ok", CALLS + 1 - errors)]));

    let request =
        ListErrorGroupsRequest { parent: format!("organizations/{ORG}"), outcome: "error".into(), ..Default::default() };
    let groups = LogServiceClient::new(other.channel.clone()).list_error_groups(other.request(request)).await.unwrap();
    let groups = groups.into_inner().error_groups;
    assert_eq!(groups.iter().map(|group| group.calls).sum::<u64>(), errors as u64, "{groups:?}");
    assert_eq!(groups.iter().filter(|group| group.shape.len() == 16).count(), 1, "one shape: {groups:?}");
}
