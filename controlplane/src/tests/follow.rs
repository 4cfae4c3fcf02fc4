//! Following the logs and what they add up to, over gRPC and HTTP, on a real database: each row once, in whatever order transactions
//! commit, at any replica, for those who may read it.

use chrono::{DateTime, Duration, Utc};
use mcp_gateway::proto::{
    admin::v1::{
        FollowAuditLogsRequest, FollowRequestLogsRequest, FollowRequestLogsResponse, GetStatsRequest, ListErrorGroupsRequest,
        ListRequestLogsRequest, Role, StatsDimension, WatchStatsRequest, log_service_client::LogServiceClient,
        stats_service_client::StatsServiceClient,
    },
    node::v1::{AuditEvent, AuditFrame, Decided, Ended, audit_event::Event},
};
use prost::Message as _;
use tonic::{Code, Streaming};
use uuid::Uuid;

use super::admin::{Admin, Person, refused};
use crate::{
    evidence::seal::Run,
    ingest::{
        lane::{START, link},
        record::{self, number},
    },
    store::{
        accounts,
        ingest::{LaneId, write},
    },
    testing::Running,
};

const ACME: &str = "organizations/acme";

/// One call as its node reports it.
#[derive(Clone, Copy)]
struct Call {
    id: Uuid,
    org: Uuid,
    target: &'static str,
    outcome: i32,
    ends: bool,
}

impl Call {
    fn new(org: Uuid) -> Self {
        Self { id: Uuid::now_v7(), org, target: "search", outcome: 1, ends: true }
    }

    fn decided(&self) -> Event {
        Event::Decided(Decided {
            request_id: self.id.to_string(),
            decided_at_us: at(self.id).timestamp_micros(),
            class: 1,
            decision: if self.outcome == 2 { 2 } else { 1 },
            org_id: self.org.to_string(),
            server_id: Uuid::from_u128(5).to_string(),
            server: "github".into(),
            method: "tools/call".into(),
            name: self.target.into(),
            subject: "key:one".into(),
            reason: if self.outcome == 2 { "authorize.not_granted".into() } else { String::new() },
            ..Decided::default()
        })
    }

    fn ended(&self) -> Event {
        Event::Ended(Ended {
            request_id: self.id.to_string(),
            decided_at_us: at(self.id).timestamp_micros(),
            ended_at_us: at(self.id).timestamp_micros() + 1000,
            outcome: self.outcome,
            error_code: if self.outcome == 3 { -32000 } else { 0 },
            error_shape: if self.outcome == 3 { 0xab } else { 0 },
            total_us: 2000,
            ..Ended::default()
        })
    }

    fn events(&self) -> Vec<Event> {
        if self.ends { vec![self.decided(), self.ended()] } else { vec![self.decided()] }
    }
}

/// When the id was made.
fn at(id: Uuid) -> DateTime<Utc> {
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).unwrap(), nanos).unwrap()
}

/// A batch that is written and not committed yet, on a lane of its own.
async fn begin(running: &Running, events: Vec<Event>) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let id = LaneId { node_id: Uuid::now_v7(), boot_id: Uuid::now_v7(), lane: 0 };
    begin_on(running, id, events).await
}

async fn begin_on(running: &Running, id: LaneId, events: Vec<Event>) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let (mut tx, mut cursor, head) = running.core.store.lock_lane(id).await.unwrap();
    let first_seq = number(cursor.last_seq + 1);
    let mut frames = Vec::new();
    for event in events {
        let payload = AuditEvent { event: Some(event) }.encode_to_vec().into();
        let frame = AuditFrame { seq: cursor.last_seq + 1, previous_hash: START.last_hash.to_vec().into(), payload };
        (cursor.last_seq, cursor.last_hash) = (frame.seq, link(&frame));
        frames.push(frame);
    }
    let batch = record::fold(&frames);
    let run = Run { lane: id, first_seq, last_seq: number(cursor.last_seq), chain_hash: &cursor.last_hash };
    let touched = write(&mut tx, &head, &run, &batch, running.core.store.signer()).await.unwrap();
    let account = crate::ingest::account::Account::of(&batch, &touched, &running.core.names);
    accounts::add(&mut tx, &account).await.unwrap();
    tx
}

async fn ship(running: &Running, calls: &[Call]) {
    let tx = begin(running, calls.iter().flat_map(Call::events).collect()).await;
    tx.commit().await.unwrap();
}

fn all() -> FollowRequestLogsRequest {
    FollowRequestLogsRequest { parent: ACME.into(), ..Default::default() }
}

/// A stream of requests, with what came of it so far.
struct Follower {
    stream: Streaming<FollowRequestLogsResponse>,
    token: String,
}

impl Follower {
    /// Returns when the stream stands where it begins.
    async fn of(person: &Person, request: FollowRequestLogsRequest) -> Self {
        let mut stream = person.logs().follow_request_logs(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.request_logs, []);
        Self { stream, token: first.resume_token }
    }

    /// The next so many ids and outcomes; more in the same answer are one too many.
    async fn next(&mut self, count: usize) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while found.len() < count {
            let answer = self.stream.message().await.unwrap().unwrap();
            self.token = answer.resume_token;
            found.extend(answer.request_logs.into_iter().map(|log| (log.request_id, log.outcome)));
        }
        assert_eq!(found.len(), count, "{found:?}");
        found
    }
}

fn ids(calls: &[Call]) -> Vec<(String, String)> {
    let word = |outcome| ["", "ok", "denied", "error"][usize::try_from(outcome).unwrap()].to_owned();
    calls.iter().map(|call| (call.id.to_string(), if call.ends { word(call.outcome) } else { "interrupted".into() })).collect()
}

#[tokio::test]
async fn every_request_appears_once_when_it_has_ended_in_whatever_order_batches_commit() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let globex = admin.organization("globex").await;
    let running = &admin.running;
    let earlier = Call::new(acme);
    ship(running, &[earlier]).await;
    let mut follower = Follower::of(&person, all()).await;
    let mut calls: Vec<Call> = (0..6).map(|_| Call::new(acme)).collect();
    calls[0].target = "slow"; // whoever counts the same waits for the commit
    // A number is drawn, another one is drawn and committed; a third never comes.
    let slow = begin(running, calls[0].events()).await;
    let never = begin(running, Call { target: "never", ..Call::new(acme) }.events()).await;
    ship(running, &calls[1..2]).await;
    never.rollback().await.unwrap();
    slow.commit().await.unwrap();
    assert_eq!(follower.next(2).await, ids(&calls[..2]), "in the order of their numbers");

    // A call without an end waits for it; another organisation's is not shown.
    let lane = LaneId { node_id: Uuid::now_v7(), boot_id: Uuid::now_v7(), lane: 0 };
    begin_on(running, lane, vec![calls[2].decided()]).await.commit().await.unwrap();
    ship(running, &[Call::new(globex), calls[3]]).await;
    assert_eq!(follower.next(1).await, ids(&calls[3..4]));
    begin_on(running, lane, vec![calls[2].ended()]).await.commit().await.unwrap();
    assert_eq!(follower.next(1).await, ids(&calls[2..3]));

    // Another replica goes on where this one stopped, and misses nothing of the time between.
    let token = follower.token.clone();
    drop(follower);
    ship(running, &calls[4..5]).await;
    let second = Running::with((*running.core.config).clone()).await;
    let other = LogServiceClient::new(person.at(&second).await);
    let request = FollowRequestLogsRequest { resume_token: token.clone(), ..all() };
    let stream = other.clone().follow_request_logs(request).await.unwrap().into_inner();
    let mut follower = Follower { stream, token: token.clone() };
    assert_eq!(follower.next(1).await, ids(&calls[4..5]));
    ship(&second, &calls[5..]).await;
    assert_eq!(follower.next(1).await, ids(&calls[5..]));

    // What is there first, without what was shown twice or not at all.
    let since = Some(crate::api::aip::timestamp(at(earlier.id) - Duration::minutes(1)));
    let mut history = Follower::of(&person, FollowRequestLogsRequest { since, ..all() }).await;
    let mut expected = ids(&[&[earlier][..], &calls].concat());
    let mut found = history.next(expected.len()).await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let last = Call { outcome: 2, ..Call::new(acme) };
    ship(running, &[last]).await;
    assert_eq!(history.next(1).await, ids(&[last]));

    let stranger = FollowRequestLogsRequest { resume_token: token, subject: "x".into(), ..all() };
    refused("another filter", person.logs().follow_request_logs(stranger).await, Code::InvalidArgument, &["resume_token"]);
}

#[tokio::test]
async fn a_history_longer_than_a_page_joins_what_arrives_meanwhile() {
    let (admin, acme, person) = Admin::with_acme().await;
    let calls: Vec<Call> = (0..230).map(|_| Call::new(acme)).collect();
    ship(&admin.running, &calls).await;
    let since = Some(crate::api::aip::timestamp(Utc::now() - Duration::minutes(5)));
    let mut follower = Follower::of(&person, FollowRequestLogsRequest { since, ..all() }).await;
    let first = follower.next(100).await;
    let more: Vec<Call> = (0..3).map(|_| Call::new(acme)).collect();
    ship(&admin.running, &more).await;
    let resumed = FollowRequestLogsRequest { since, resume_token: follower.token.clone(), ..all() };
    let rest = follower.next(133).await;
    let mut found = [first, rest.clone()].concat();
    assert_eq!(found.split_off(230), ids(&more));
    assert_eq!(found, ids(&calls));
    let stream = person.logs().follow_request_logs(resumed).await.unwrap().into_inner();
    let mut again = Follower { stream, token: String::new() };
    assert_eq!(again.next(133).await, rest, "from the middle of the history");
}

#[tokio::test]
async fn filters_and_open_calls() {
    let (admin, acme, person) = Admin::with_acme().await;
    let pattern = FollowRequestLogsRequest { target: "del*".into(), outcome: "error".into(), ..all() };
    let mut errors = Follower::of(&person, pattern).await;
    let mut open = Follower::of(&person, FollowRequestLogsRequest { include_open: true, ..all() }).await;
    let calls = [
        Call { target: "delete", ..Call::new(acme) },
        Call { target: "delete", outcome: 3, ..Call::new(acme) },
        Call { target: "search", outcome: 3, ..Call::new(acme) },
        Call { ends: false, ..Call::new(acme) },
    ];
    ship(&admin.running, &calls).await;
    assert_eq!(errors.next(1).await, ids(&calls[1..2]));
    assert_eq!(open.next(4).await, ids(&calls), "its node is unknown: interrupted, as lists say");

    let list = |change: &dyn Fn(&mut ListRequestLogsRequest)| {
        let mut request = ListRequestLogsRequest { parent: ACME.into(), ..Default::default() };
        change(&mut request);
        request
    };
    let id = calls[1].id.to_string();
    for (case, request, count) in [
        ("pattern", list(&|r| r.target = "d*e".into()), 2),
        ("a pattern is no LIKE", list(&|r| r.target = "d_lete*".into()), 0),
        ("method", list(&|r| r.method = "tools/*".into()), 4),
        ("another method", list(&|r| r.method = "tools/list".into()), 0),
        ("request id", list(&|r| r.request_id.clone_from(&id)), 1),
        ("reason", list(&|r| r.reason = "authorize.*".into()), 0),
        ("rule", list(&|r| r.rule = "nobody".into()), 0),
        ("node", list(&|r| r.node = format!("nodes/{}", Uuid::nil())), 0),
    ] {
        let found = person.logs().list_request_logs(request).await.unwrap().into_inner();
        assert_eq!(found.request_logs.len(), count, "{case}");
    }
    for (field, request) in [("node", list(&|r| r.node = "x".into())), ("request_id", list(&|r| r.request_id = "x".into()))] {
        refused(field, person.logs().list_request_logs(request).await, Code::InvalidArgument, &[field]);
    }
    let groups = ListErrorGroupsRequest { parent: ACME.into(), ..Default::default() };
    let groups = person.logs().list_error_groups(groups).await.unwrap().into_inner().error_groups;
    let mut shown: Vec<_> = groups.iter().map(|it| (it.target.as_str(), it.calls, it.error_code, it.shape.as_str())).collect();
    shown.sort_unstable();
    assert_eq!(shown, [("delete", 1, -32000, "00000000000000ab"), ("other", 1, -32000, "00000000000000ab")]);
    assert!(groups.iter().any(|group| group.sample_request_id == id && group.organization == ACME));
}

#[tokio::test]
async fn administrative_records_are_followed_in_order() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let auditor = admin.member(acme, Role::Auditor).await;
    let request = FollowAuditLogsRequest { parent: ACME.into(), action: "server.*".into(), ..Default::default() };
    let mut stream = auditor.logs().follow_audit_logs(request.clone()).await.unwrap().into_inner();
    let token = stream.message().await.unwrap().unwrap().resume_token;
    for id in ["a", "b"] {
        super::logs::server(&person, id).await;
    }
    let mut found = Vec::new();
    while found.len() < 2 {
        found.extend(stream.message().await.unwrap().unwrap().audit_logs.into_iter().map(|log| log.resource));
    }
    assert_eq!(found, ["a", "b"].map(|id| format!("{ACME}/servers/{id}")));
    let resumed = FollowAuditLogsRequest { resume_token: token, ..request };
    let mut stream = auditor.logs().follow_audit_logs(resumed).await.unwrap().into_inner();
    let mut again = Vec::new();
    while again.len() < 2 {
        again.extend(stream.message().await.unwrap().unwrap().audit_logs.into_iter().map(|log| log.resource));
    }
    assert_eq!(again, found);
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let member = admin.member(acme, Role::Member).await;
    let stats = GetStatsRequest { parent: ACME.into(), ..Default::default() };
    let watch = WatchStatsRequest { parent: ACME.into(), ..Default::default() };
    for (who, code) in [(&stranger, Code::NotFound), (&member, Code::PermissionDenied)] {
        refused("follow", who.logs().follow_request_logs(all()).await, code, &[]);
        let groups = ListErrorGroupsRequest { parent: ACME.into(), ..Default::default() };
        refused("errors", who.logs().list_error_groups(groups).await, code, &[]);
        refused("stats", StatsServiceClient::new(who.client()).get_stats(stats.clone()).await, code, &[]);
        refused("watch", StatsServiceClient::new(who.client()).watch_stats(watch.clone()).await, code, &[]);
    }
    let everything = FollowRequestLogsRequest::default();
    refused("all", person.logs().follow_request_logs(everything).await, Code::PermissionDenied, &[]);
    let mut follower = Follower::of(&person, all()).await;
    let query = sqlx::query("UPDATE memberships SET role = $2 WHERE user_id = $1");
    query.bind(person.user).bind(Role::Member as i16).execute(&mut admin.sql).await.unwrap();
    let end = loop {
        match follower.stream.message().await {
            Ok(Some(answer)) => assert_eq!(answer.request_logs, []),
            Ok(None) => panic!("an end has a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn statistics_are_the_calls_that_were_made() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let globex = admin.organization("globex").await;
    let calls = [
        Call::new(acme),
        Call::new(acme),
        Call { target: "delete", ..Call::new(acme) },
        Call { outcome: 3, ..Call::new(acme) },
        Call { target: "guess", outcome: 2, ..Call::new(acme) },
        Call { ends: false, ..Call::new(acme) },
        Call::new(globex),
    ];
    ship(&admin.running, &calls).await;
    let mut client = StatsServiceClient::new(person.client());
    let by = |dimension: StatsDimension| GetStatsRequest {
        parent: ACME.into(),
        group_by: vec![dimension.into()],
        ..Default::default()
    };
    let whole =
        client.get_stats(GetStatsRequest { group_by: Vec::new(), ..by(StatsDimension::Server) }).await.unwrap().into_inner();
    let total = whole.series[0].total.unwrap();
    assert_eq!((whole.series.len(), total.calls, total.errors, total.denied), (1, 5, 1, 1));
    assert_eq!(total.mean_us, 2000);
    assert!((1536..=2048).contains(&total.p99_us), "{}", total.p99_us);
    let tools = client.get_stats(by(StatsDimension::Target)).await.unwrap().into_inner();
    let tools: Vec<_> = tools.series.iter().map(|it| (it.target.as_str(), it.total.unwrap().calls)).collect();
    assert_eq!(tools, [("search", 3), ("delete", 1), ("other", 1)]);
    let outcomes = client.get_stats(by(StatsDimension::Outcome)).await.unwrap().into_inner();
    let outcomes: Vec<_> = outcomes.series.iter().map(|it| (it.outcome.as_str(), it.total.unwrap().calls)).collect();
    assert_eq!(outcomes, [("ok", 3), ("denied", 1), ("error", 1)]);
    let step = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let bad: [(&str, GetStatsRequest); 3] = [
        ("step", GetStatsRequest { step: step(90), ..by(StatsDimension::Server) }),
        (
            "since",
            GetStatsRequest { since: super::logs::timestamp(Utc::now() + Duration::hours(1)), ..by(StatsDimension::Server) },
        ),
        ("group_by", by(StatsDimension::Unspecified)),
    ];
    for (field, request) in bad {
        refused(field, client.get_stats(request).await, Code::InvalidArgument, &[field]);
    }
    let watch = WatchStatsRequest { parent: ACME.into(), minutes: 2, interval: step(1), ..Default::default() };
    let mut watched = client.watch_stats(watch).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().series[0].total.unwrap().calls, 5);
    ship(&admin.running, &[Call::new(acme)]).await;
    while watched.message().await.unwrap().unwrap().series[0].total.unwrap().calls < 6 {}
}

/// What the HTTP listener answers: status, and JSON.
pub async fn http(running: &Running, path: &str, token: Option<&str>) -> (u16, serde_json::Value) {
    let (status, text) = raw(running, path, token, |_| false).await;
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Reads until the end, or until `enough`.
async fn raw(running: &Running, path: &str, token: Option<&str>, enough: impl Fn(&str) -> bool) -> (u16, String) {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    let mut request = http::Request::get(format!("http://{}{path}", running.addresses.http));
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let mut response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
    let (status, mut text) = (response.status().as_u16(), String::new());
    assert_eq!(response.headers().get("cache-control").map(|it| it.as_bytes()), Some(&b"no-store"[..]));
    while let Some(frame) = response.body_mut().frame().await {
        text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        if enough(&text) {
            break;
        }
    }
    (status, text)
}

#[tokio::test]
async fn http_says_what_grpc_says() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let member = admin.member(acme, Role::Member).await;
    let calls = [Call::new(acme), Call { target: "delete", outcome: 3, ..Call::new(acme) }];
    ship(&admin.running, &calls).await;
    let running = &admin.running;
    let (token, strange) = (person.authorization(), stranger.authorization());
    let logs = "/admin/logs?parent=organizations/acme";

    let (status, found) = http(running, &format!("{logs}&target=del*&pageSize=5"), Some(&token)).await;
    assert_eq!((status, found["requestLogs"].as_array().map(Vec::len)), (200, Some(1)), "{found}");
    assert_eq!(found["requestLogs"][0]["requestId"], calls[1].id.to_string());
    let (status, page) = http(running, &format!("{logs}&page_size=1"), Some(&token)).await;
    let next = page["nextPageToken"].as_str().unwrap();
    let (_, second) = http(running, &format!("{logs}&page_size=1&page_token={next}"), Some(&token)).await;
    assert_eq!((status, &second["requestLogs"][0]["requestId"]), (200, &calls[0].id.to_string().into()));
    let (status, one) = http(running, &format!("/admin/logs/{}", calls[0].id), Some(&token)).await;
    assert_eq!((status, &one["target"]), (200, &"search".into()));
    let (status, stats) =
        http(running, "/admin/stats?parent=organizations/acme&groupBy=target&filter.outcome=ok", Some(&token)).await;
    assert_eq!((status, &stats["series"][0]["total"]["calls"]), (200, &"1".into()), "{stats}");
    let (status, groups) = http(running, "/admin/logs/errors?parent=organizations/acme", Some(&token)).await;
    assert_eq!((status, &groups["errorGroups"][0]["calls"]), (200, &"1".into()), "{groups}");
    let (status, records) = http(running, "/admin/logs/audit?parent=organizations/acme", Some(&token)).await;
    assert_eq!((status, records.get("nextPageToken")), (200, None));

    for (case, path, token, status, code) in [
        ("nobody", logs, None, 401, 16),
        ("no token", logs, Some("Bearer x"), 401, 16),
        ("a member", logs, Some(member.authorization().as_str()), 403, 7),
        ("a stranger", logs, Some(strange.as_str()), 404, 5),
        ("everything", "/admin/logs", Some(token.as_str()), 403, 7),
        ("unknown id", "/admin/logs/0198c0de-0000-7000-8000-000000000001", Some(token.as_str()), 404, 5),
    ] {
        let (found, body) = http(running, path, token).await;
        assert_eq!((found, &body["code"]), (status, &code.into()), "{case}: {body}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{case}");
    }
    for (query, field) in [
        ("&outcome=fine", "outcome"),
        ("&colour=red", "colour"),
        ("&since=yesterday", "since"),
        ("&pageSize=-1", "page_size"),
        ("&subject=a&subject=b", "subject"),
        ("&follow=perhaps", "follow"),
    ] {
        let (status, body) = http(running, &format!("{logs}{query}"), Some(&token)).await;
        assert_eq!((status, &body["code"]), (400, &3.into()), "{query}");
        let detail = &body["details"][0];
        assert_eq!(detail["@type"], "type.googleapis.com/google.rpc.BadRequest", "{query}");
        assert_eq!(detail["fieldViolations"][0]["field"], field, "{query}: {body}");
    }

    let since = (Utc::now() - Duration::minutes(5)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let both = |text: &str| calls.iter().all(|call| text.contains(&call.id.to_string()));
    let (status, events) = raw(running, &format!("{logs}&follow=true&since={since}"), Some(&token), both).await;
    assert_eq!(status, 200);
    assert!(events.starts_with("data: {") && events.contains("\nid: "), "{events}");
    let (status, _) = http(running, &format!("{logs}&follow=true"), Some(&strange)).await;
    assert_eq!(status, 404, "a stream that may not be is no stream");
}

#[tokio::test]
async fn what_was_missed_for_too_long_is_said_to_be_missed() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    // The first number never comes: nothing is missing because of that.
    let never = begin(&admin.running, Call::new(acme).events()).await;
    never.rollback().await.unwrap();
    let mut follower = Follower::of(&person, all()).await;
    let begins = follower.token.clone();
    let calls: Vec<Call> = (0..4).map(|_| Call::new(acme)).collect();
    for call in &calls[..3] {
        ship(&admin.running, &[*call]).await;
    }
    assert_eq!(follower.next(3).await, ids(&calls[..3]));
    let stands = follower.token.clone();
    drop(follower);
    let age = "UPDATE log_arrivals SET arrived_at = now() - interval '61 min'";
    sqlx::query(age).execute(&mut admin.sql).await.unwrap();
    for forgotten in [2, 0] {
        assert_eq!(crate::store::logs::follow::forget(&mut admin.sql).await.unwrap(), forgotten, "the last one is emptied");
    }
    ship(&admin.running, &calls[3..]).await;
    let resume = |token: &str| FollowRequestLogsRequest { resume_token: token.into(), ..all() };
    let mut stream = person.logs().follow_request_logs(resume(&begins)).await.unwrap().into_inner();
    let end = loop {
        match stream.message().await {
            Ok(answer) => assert_eq!(answer.unwrap().request_logs, []),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::FailedPrecondition);
    let stream = person.logs().follow_request_logs(resume(&stands)).await.unwrap().into_inner();
    let mut stands = Follower { stream, token: stands };
    assert_eq!(stands.next(1).await, ids(&calls[3..]), "nothing is forgotten behind it");
}
