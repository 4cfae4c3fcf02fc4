//! How much of the limits is used, from reports of nodes to the API.

use mcp_gateway::proto::{
    admin::v1::{CreateRateLimitRequest, LimitUsage, ListLimitUsageRequest, ListLimitUsageResponse, RateLimit, Role},
    config::v1::LimitWindow,
    node::v1::{LimitUsage as Told, ReportStatusRequest},
};
use tonic::Code;
use uuid::Uuid;

use super::{
    admin::{Admin, Person, refused},
    follow::http,
};
use crate::nodes::client::Joined;

const ACME: &str = "organizations/acme";

async fn limit(person: &Person, id: &str) -> String {
    let windows = vec![LimitWindow { limit: 10, seconds: 60 }];
    let rate_limit = Some(RateLimit { windows, ..Default::default() });
    let request = CreateRateLimitRequest { parent: ACME.into(), rate_limit_id: id.into(), rate_limit, ..Default::default() };
    person.rate_limits().create_rate_limit(request).await.unwrap().into_inner().uid
}

fn told(org: Uuid, limit: &str, subject: &str, used: u64) -> Told {
    Told {
        org_id: org.to_string(),
        limit_id: limit.into(),
        subject: subject.into(),
        seconds: 60,
        limit: 10,
        used,
        reset_ms: 5_000,
        mode: "memory".into(),
        refused: 1,
        ..Default::default()
    }
}

async fn report(node: &Joined, limit_usage: Vec<Told>) {
    let request = ReportStatusRequest { limit_usage, ..Default::default() };
    node.service().await.report_status(request).await.unwrap();
}

async fn list(person: &Person, request: ListLimitUsageRequest) -> ListLimitUsageResponse {
    let request = ListLimitUsageRequest { parent: ACME.into(), ..request };
    person.rate_limits().list_limit_usage(request).await.unwrap().into_inner()
}

fn lines(answer: &ListLimitUsageResponse) -> Vec<(&str, &str, u64)> {
    let last = |name: &LimitUsage| name.rate_limit.len() - name.rate_limit.rsplit('/').next().unwrap().len();
    answer.usage.iter().map(|it| (&it.rate_limit[last(it)..], it.subject.as_str(), it.headroom)).collect()
}

#[tokio::test]
async fn each_node_is_believed_about_organisations_of_its_pool_and_its_newest_report_counts() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let (all, searches) = (limit(&person, "all").await, limit(&person, "searches").await);
    let everything = ListLimitUsageRequest::default();
    let none = list(&person, everything.clone()).await;
    assert_eq!((lines(&none), none.reporting_nodes, none.silent_nodes), (vec![], 0, 0));

    let (one, two) = (Joined::to(&admin.running, "default").await, Joined::to(&admin.running, "default").await);
    let elsewhere = Joined::to(&admin.running, "edge").await;
    report(&one, vec![told(acme, &all, "", 9), told(acme, &searches, "alice", 4), told(acme, &searches, "bob", 1)]).await;
    report(&two, vec![told(acme, &searches, "alice", 2)]).await;
    report(&elsewhere, vec![told(acme, &all, "", 10)]).await;
    let found = list(&person, everything.clone()).await;
    let expected = [("all", "", 1), ("searches", "alice", 6), ("searches", "alice", 8), ("searches", "bob", 9)];
    let mut sorted = lines(&found);
    sorted.sort_unstable(); // nodes have no order
    assert_eq!((sorted, found.reporting_nodes), (expected.to_vec(), 2), "another pool's node is not believed");
    let first = &found.usage[0];
    assert_eq!((first.used, first.limit, first.refused, first.mode.as_str()), (9, 10, 1, "memory"));
    assert_eq!((first.node.as_str(), first.nodes), (format!("nodes/{}", one.id()).as_str(), 1));
    assert_eq!(first.free_time.unwrap().seconds - first.report_time.unwrap().seconds, 5);

    report(&one, vec![told(acme, &all, "", 3)]).await;
    let found = list(&person, everything).await;
    assert_eq!(lines(&found), [("all", "", 7), ("searches", "alice", 8)], "what it does not report any more is not used");

    sqlx::query("UPDATE organizations SET pool = 'edge' WHERE id = $1").bind(acme).execute(&mut admin.sql).await.unwrap();
    let moved = list(&person, ListLimitUsageRequest::default()).await;
    assert_eq!((lines(&moved), moved.reporting_nodes), (vec![], 1), "what the old pool's nodes told is void");
}

#[tokio::test]
async fn counts_that_nodes_share_are_one_line_and_old_reports_are_none() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let all = limit(&person, "all").await;
    let shared = |used, mode: &str| Told { mode: mode.into(), ..told(acme, &all, "", used) };
    let (one, two) = (Joined::to(&admin.running, "default").await, Joined::to(&admin.running, "default").await);
    report(&one, vec![shared(4, "redis")]).await;
    report(&two, vec![shared(6, "lease")]).await;
    let found = list(&person, ListLimitUsageRequest::default()).await;
    let [line] = &found.usage[..] else { panic!("{found:?}") };
    assert_eq!((line.used, line.refused, line.nodes, line.mode.as_str()), (6, 2, 2, "lease"));
    assert_eq!(line.node, format!("nodes/{}", two.id()), "the newest tells");

    let old = "UPDATE node_status SET reported_at = now() - interval '46 seconds', last_seen_at = now() WHERE node_id = $1";
    sqlx::query(old).bind(two.id()).execute(&mut admin.sql).await.unwrap();
    let found = list(&person, ListLimitUsageRequest::default()).await;
    assert_eq!((found.usage[0].used, found.usage[0].nodes), (4, 1));
    assert_eq!((found.reporting_nodes, found.silent_nodes), (1, 1));
}

#[tokio::test]
async fn usage_is_paged_and_filtered_for_those_who_read_the_configuration() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let (all, searches) = (limit(&person, "all").await, limit(&person, "searches").await);
    let node = Joined::to(&admin.running, "default").await;
    let subjects = ["alice", "bob", "carol"];
    let counts = subjects.iter().flat_map(|subject| [told(acme, &all, subject, 1), told(acme, &searches, subject, 2)]);
    report(&node, counts.collect()).await;

    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(&person, ListLimitUsageRequest { page_size: 4, page_token: token, ..Default::default() }).await;
        found.extend(lines(&page).into_iter().map(|(limit, subject, _)| format!("{limit} {subject}")));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected = ["all alice", "all bob", "all carol", "searches alice", "searches bob", "searches carol"];
    assert_eq!(found, expected);
    let rate_limit = format!("{ACME}/rateLimits/searches");
    let bobs = ListLimitUsageRequest { rate_limit: rate_limit.clone(), subject: "bob".into(), ..Default::default() };
    assert_eq!(lines(&list(&person, bobs).await), [("searches", "bob", 8)]);

    let ask =
        |rate_limit: &str| ListLimitUsageRequest { parent: ACME.into(), rate_limit: rate_limit.into(), ..Default::default() };
    let mut client = person.rate_limits();
    let gone = ask("organizations/acme/rateLimits/gone");
    refused("unknown", client.list_limit_usage(gone).await, Code::NotFound, &[]);
    let theirs = ask("organizations/globex/rateLimits/all");
    refused("another's", client.list_limit_usage(theirs).await, Code::InvalidArgument, &["rate_limit"]);
    let member = admin.member(acme, Role::Member).await;
    refused("a member", member.rate_limits().list_limit_usage(ask("")).await, Code::PermissionDenied, &[]);
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    refused("a stranger", stranger.rate_limits().list_limit_usage(ask("")).await, Code::NotFound, &[]);

    let path = format!("/admin/limits/usage?parent={ACME}&rateLimit={rate_limit}&subject=carol");
    let (status, body) = http(&admin.running, &path, Some(&person.authorization())).await;
    assert_eq!((status, &body["usage"][0]["headroom"]), (200, &"8".into()), "{body}");
}
