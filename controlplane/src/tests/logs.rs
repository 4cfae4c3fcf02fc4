//! LogService, over gRPC, on a real database: who reads what, in which order, and what becomes of calls without an end.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use mcp_gateway::proto::{
    admin::v1::{
        CreateServerRequest, GetRequestLogRequest, ListAuditLogsRequest, ListRequestLogsRequest, RequestLog, Role, Server,
    },
    config::v1::Endpoint,
};
use prost_types::{Timestamp, value::Kind};
use sqlx::PgConnection;
use tonic::{Code, Status};
use uuid::Uuid;

use super::admin::{Admin, Person, email, refused};

const ACME: &str = "organizations/acme";

/// One request as its row is made here.
#[derive(Clone)]
struct Row {
    id: Uuid,
    at: DateTime<Utc>,
    org: Option<Uuid>,
    node: Uuid,
    boot: Uuid,
    subject: &'static str,
    server: &'static str,
    target: &'static str,
    decision: i16,
    outcome: Option<i16>,
}

impl Row {
    fn new(org: Uuid) -> Self {
        Self {
            id: Uuid::now_v7(),
            at: Utc::now(),
            org: Some(org),
            node: Uuid::now_v7(),
            boot: Uuid::now_v7(),
            subject: "key:one",
            server: "github",
            target: "search",
            decision: 1,
            outcome: Some(1),
        }
    }

    async fn insert(&self, sql: &mut PgConnection) {
        let query = sqlx::query(
            "INSERT INTO request_logs (request_id, decided_at, node_id, boot_id, lane, seq, class, org_id, subject, server, target, \
             decision, outcome, via, roles, groups, stage_us, org_digest, error_code, status, total_us) VALUES \
             ($1, $2, $3, $4, 3, 7, 1, $5, $6, $7, $8, $9, $10, 3, '{engineer}', '{platform}', '{1,2,3,4,5,6}', '\\xab01', -32602, 200, 99)",
        )
        .bind(self.id)
        .bind(self.at)
        .bind(self.node)
        .bind(self.boot)
        .bind(self.org)
        .bind(self.subject)
        .bind(self.server)
        .bind(self.target)
        .bind(self.decision)
        .bind(self.outcome);
        query.execute(sql).await.unwrap();
    }
}

pub fn timestamp(at: DateTime<Utc>) -> Option<Timestamp> {
    Some(Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap() })
}

pub async fn server(person: &Person, id: &str) {
    let endpoints = vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 1 }];
    let server = Some(Server { endpoints, ..Default::default() });
    let request = CreateServerRequest { parent: ACME.into(), server_id: id.into(), server, ..Default::default() };
    person.servers().create_server(request).await.unwrap();
}

fn requests() -> ListRequestLogsRequest {
    ListRequestLogsRequest { parent: ACME.into(), ..Default::default() }
}

async fn list(person: &Person, request: ListRequestLogsRequest) -> Result<Vec<RequestLog>, Status> {
    person.logs().list_request_logs(request).await.map(|answer| answer.into_inner().request_logs)
}

async fn get(person: &Person, id: &str) -> Result<RequestLog, Status> {
    person.logs().get_request_log(GetRequestLogRequest { request_id: id.into() }).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_administrators_did_is_listed_newest_first_to_those_who_may_read_it() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let start = Utc::now();
    for id in ["a", "b", "c"] {
        server(&person, id).await;
    }
    let auditor = admin.member(acme, Role::Auditor).await;
    let audit = |change: &dyn Fn(&mut ListAuditLogsRequest)| {
        let mut request = ListAuditLogsRequest { parent: ACME.into(), page_size: 2, ..Default::default() };
        change(&mut request);
        request
    };
    let first = auditor.logs().list_audit_logs(audit(&|_| ())).await.unwrap().into_inner();
    let token = first.next_page_token.clone();
    let second = auditor.logs().list_audit_logs(audit(&|r| r.page_token.clone_from(&token))).await.unwrap().into_inner();
    let found: Vec<_> = first.audit_logs.iter().chain(&second.audit_logs).collect();
    let resources: Vec<&str> = found.iter().map(|log| log.resource.as_str()).collect();
    assert_eq!(resources, ["c", "b", "a"].map(|id| format!("{ACME}/servers/{id}")));
    assert_eq!(second.next_page_token, "");
    let newest = found[0];
    assert_eq!((&newest.actor, newest.action.as_str(), newest.outcome.as_str()), (&email(person.user), "server.create", "ok"));
    assert_eq!((newest.organization.as_str(), newest.client_address.as_str()), (ACME, "127.0.0.1"));
    assert_eq!(newest.config_version, admin.version().await);
    let fields = newest.detail.as_ref().and_then(|detail| detail.fields.get("fields")).and_then(|value| value.kind.clone());
    assert!(matches!(fields, Some(Kind::ListValue(list)) if list.values.len() == 12));

    type Change = Box<dyn Fn(&mut ListAuditLogsRequest)>;
    let whose = email(person.user);
    let filters: Vec<(&str, Change, usize)> = vec![
        ("actor", Box::new(move |r| r.actor.clone_from(&whose)), 3),
        ("nobody", Box::new(|r| r.actor = "nobody".into()), 0),
        ("action", Box::new(|r| r.action = "server.create".into()), 3),
        ("another action", Box::new(|r| r.action = "server.delete".into()), 0),
        ("since", Box::new(move |r| r.since = timestamp(start)), 3),
        ("since later", Box::new(|r| r.since = timestamp(Utc::now() + Duration::hours(1))), 0),
        ("until", Box::new(move |r| r.until = timestamp(start)), 0),
    ];
    for (case, filter, count) in filters {
        let request = audit(&|r| {
            r.page_size = 500;
            filter(r);
        });
        assert_eq!(auditor.logs().list_audit_logs(request).await.unwrap().into_inner().audit_logs.len(), count, "{case}");
        let request = audit(&|r| {
            r.page_token.clone_from(&token);
            filter(r);
        });
        refused(case, auditor.logs().list_audit_logs(request).await, Code::InvalidArgument, &["page_token"]);
    }
    let operator = admin.member(acme, Role::Operator).await;
    let before = admin.state().await;
    let request = audit(&|r| r.actor = "a\0".into());
    refused("zero byte", auditor.logs().list_audit_logs(request).await, Code::InvalidArgument, &["actor"]);
    let request = audit(&|r| r.since = Some(Timestamp { seconds: i64::MAX, nanos: 0 }));
    refused("no moment", auditor.logs().list_audit_logs(request).await, Code::InvalidArgument, &["since"]);
    let request = audit(&|r| r.page_size = -1);
    refused("negative", auditor.logs().list_audit_logs(request).await, Code::InvalidArgument, &["page_size"]);
    refused("an operator", operator.logs().list_audit_logs(audit(&|_| ())).await, Code::PermissionDenied, &[]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn nobody_reads_the_logs_of_another_organisation_but_platform_administrators() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let platform = admin.platform_admin().await;
    let (ours, theirs, nobodys) = (Row::new(acme), Row::new(globex), Row { org: None, ..Row::new(acme) });
    for row in [&ours, &theirs, &nobodys] {
        row.insert(&mut admin.sql).await;
    }
    let audit = |parent: &str| ListAuditLogsRequest { parent: parent.into(), ..Default::default() };
    let all = ListRequestLogsRequest::default();
    refused("audit", stranger.logs().list_audit_logs(audit(ACME)).await, Code::NotFound, &[]);
    refused("audit of all", stranger.logs().list_audit_logs(audit("")).await, Code::PermissionDenied, &[]);
    refused("requests", list(&stranger, requests()).await, Code::NotFound, &[]);
    refused("requests of all", list(&stranger, all.clone()).await, Code::PermissionDenied, &[]);
    refused(
        "not a name",
        list(&stranger, ListRequestLogsRequest { parent: "acme".into(), ..all.clone() }).await,
        Code::InvalidArgument,
        &["parent"],
    );
    let own = audit("organizations/globex");
    assert_eq!(stranger.logs().list_audit_logs(own).await.unwrap().into_inner().audit_logs, []);
    assert_eq!(list(&person, requests()).await.unwrap().len(), 1);

    let unknown = get(&stranger, &Uuid::now_v7().to_string()).await.unwrap_err();
    for row in [&ours, &nobodys] {
        let status = get(&stranger, &row.id.to_string()).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message().len(), unknown.message().len());
    }
    assert_eq!(get(&stranger, &theirs.id.to_string()).await.unwrap().organization, "organizations/globex");
    assert_eq!(get(&person, &ours.id.to_string()).await.unwrap().name, format!("{ACME}/requestLogs/{}", ours.id));

    assert_eq!(list(&platform, all).await.unwrap().len(), 3);
    assert!(platform.logs().list_audit_logs(audit("")).await.unwrap().into_inner().audit_logs.len() > 1);
    let unplaced = get(&platform, &nobodys.id.to_string()).await.unwrap();
    assert_eq!((unplaced.organization.as_str(), unplaced.name), ("", format!("requestLogs/{}", nobodys.id)));
    let member = admin.member(acme, Role::Member).await;
    refused("a member", list(&member, requests()).await, Code::PermissionDenied, &[]);
    refused("a member", get(&member, &ours.id.to_string()).await, Code::PermissionDenied, &[]);
}

#[tokio::test]
async fn a_request_is_found_by_its_id_in_the_days_around_its_making() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let row = Row::new(acme);
    row.insert(&mut admin.sql).await;
    let found = get(&person, &row.id.to_string()).await.unwrap();
    let expected = RequestLog {
        request_id: row.id.to_string(),
        name: format!("{ACME}/requestLogs/{}", row.id),
        decide_time: found.decide_time, // microseconds of a moment in nanoseconds
        class: "audit".into(),
        organization: ACME.into(),
        server: "github".into(),
        subject: "key:one".into(),
        roles: vec!["engineer".into()],
        groups: vec!["platform".into()],
        via: "api_key".into(),
        target: "search".into(),
        decision: "allow".into(),
        org_digest: "ab01".into(),
        outcome: "ok".into(),
        status: 200,
        error_code: -32602,
        total_us: 99,
        stage_us: vec![1, 2, 3, 4, 5, 6],
        node: format!("nodes/{}", row.node),
        boot_id: row.boot.to_string(),
        lane: 3,
        seq: 7,
        ..Default::default()
    };
    assert_eq!(found, expected);
    assert_eq!(found.decide_time.unwrap().seconds, row.at.timestamp());

    // A clock that was set back a little, and one that is nonsense.
    let near = Row { at: row.at - Duration::hours(20), ..Row::new(acme) };
    let far = Row { at: row.at - Duration::days(3), ..Row::new(acme) };
    for row in [&near, &far] {
        row.insert(&mut admin.sql).await;
    }
    assert!(get(&person, &near.id.to_string()).await.is_ok());
    refused("far", get(&person, &far.id.to_string()).await, Code::NotFound, &[]);
    refused("unknown", get(&person, &Uuid::now_v7().to_string()).await, Code::NotFound, &[]);
    for id in [
        "",
        "x",
        "00000000-0000-0000-0000-000000000000",
        "b9f4e2c0-5f3a-4d2b-9c1e-8a7b6c5d4e3f",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
    ] {
        refused(id, get(&person, id).await, Code::InvalidArgument, &["request_id"]);
    }
    assert!(get(&person, "00000000-0000-7000-8000-000000000000").await.is_err_and(|status| status.code() == Code::NotFound));
}

#[tokio::test]
async fn requests_are_listed_newest_first_and_filtered() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let now = Utc::now();
    let rows = [
        Row { at: now - Duration::days(40), ..Row::new(acme) }, // long before the first partition
        Row { at: now - Duration::minutes(2), subject: "key:two", ..Row::new(acme) },
        Row { at: now - Duration::minutes(1), server: "other", decision: 2, outcome: Some(2), ..Row::new(acme) },
        Row { at: now - Duration::minutes(1), target: "delete", outcome: Some(3), ..Row::new(acme) },
        Row { at: now - Duration::minutes(1), ..Row::new(acme) },
    ];
    for row in &rows {
        row.insert(&mut admin.sql).await;
    }
    let mut newest_first: Vec<_> = rows.iter().map(|row| (row.at, row.id)).collect();
    newest_first.sort();
    newest_first.reverse();
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListRequestLogsRequest { page_size: 2, page_token: token, ..requests() };
        let page = person.logs().list_request_logs(request).await.unwrap().into_inner();
        found.extend(page.request_logs.into_iter().map(|log| log.request_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, newest_first.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>());

    let with = |change: &dyn Fn(&mut ListRequestLogsRequest)| {
        let mut request = requests();
        change(&mut request);
        request
    };
    for (case, request, which) in [
        ("subject", with(&|r| r.subject = "key:two".into()), vec![1]),
        ("server", with(&|r| r.server = "other".into()), vec![2]),
        ("target", with(&|r| r.target = "delete".into()), vec![3]),
        ("denied", with(&|r| r.decision = "deny".into()), vec![2]),
        (
            "allowed since",
            with(&|r| (r.decision, r.since) = ("allow".into(), timestamp(now - Duration::minutes(3)))),
            vec![1, 3, 4],
        ),
        ("error", with(&|r| r.outcome = "error".into()), vec![3]),
        ("cancelled", with(&|r| r.outcome = "cancelled".into()), vec![]),
        ("until", with(&|r| r.until = timestamp(now - Duration::minutes(2))), vec![0]),
        ("two at once", with(&|r| (r.server, r.decision) = ("other".into(), "allow".into())), vec![]),
    ] {
        let mut found: Vec<String> = list(&person, request).await.unwrap().into_iter().map(|log| log.request_id).collect();
        let mut expected: Vec<String> = which.into_iter().map(|index: usize| rows[index].id.to_string()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{case}");
    }
    for (field, request) in [
        ("outcome", with(&|r| r.outcome = "fine".into())),
        ("decision", with(&|r| r.decision = "ALLOW".into())),
        ("subject", with(&|r| r.subject = "\0".into())),
        ("until", with(&|r| r.until = Some(Timestamp { seconds: 0, nanos: -1 }))),
        ("page_token", with(&|r| r.page_token = "AAAA".into())),
    ] {
        refused(field, list(&person, request).await, Code::InvalidArgument, &[field]);
    }
    let first = person.logs().list_request_logs(with(&|r| r.page_size = 1)).await.unwrap().into_inner();
    let other = with(&|r| (r.page_token, r.subject) = (first.next_page_token.clone(), "key:two".into()));
    refused("a token under another filter", list(&person, other).await, Code::InvalidArgument, &["page_token"]);
}

#[tokio::test]
async fn a_call_without_an_end_is_pending_while_its_run_of_the_node_may_still_report_one() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let (old, new) = (Uuid::now_v7(), Uuid::now_v7());
    let open = |node: Uuid, boot: Uuid| Row { node, boot, outcome: None, ..Row::new(acme) };
    let [alive, gone, silent] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    for (node, age) in [(alive, 0), (gone, 61)] {
        let query = sqlx::query(
            "INSERT INTO nodes (id, pool, spki_sha256, hpke_public_key, certificate_expires_at) VALUES ($1, 'default', '', '', now())",
        );
        query.bind(node).execute(&mut admin.sql).await.unwrap();
        let query = sqlx::query("INSERT INTO node_status (node_id, last_seen_at) VALUES ($1, now() - make_interval(secs => $2))");
        query.bind(node).bind(f64::from(age)).execute(&mut admin.sql).await.unwrap();
        for (boot, seen) in [(new, "1 h"), (old, "0 s")] {
            // The old run's last frames may arrive after the new run's first ones.
            let query = sqlx::query(
                "INSERT INTO ship_cursor (node_id, boot_id, lane, last_seq, last_hash, updated_at) \
                 VALUES ($1, $2, 0, 1, '', now() - $3::interval)",
            );
            query.bind(node).bind(boot).bind(seen).execute(&mut admin.sql).await.unwrap();
        }
    }
    let cases = [
        ("the newest run of a node that is alive", open(alive, new), "pending"),
        ("an older run of it", open(alive, old), "interrupted"),
        ("a node that was not seen for a minute", open(gone, new), "interrupted"),
        ("a node that nobody knows", open(silent, new), "interrupted"),
        ("ended", Row { outcome: Some(4), ..open(alive, new) }, "upstream_failed"),
        ("ended in an older run", Row { outcome: Some(7), ..open(alive, old) }, "gateway_failed"),
        ("ended in a way of a later version", Row { outcome: Some(99), ..open(alive, new) }, "unknown"),
    ];
    let mut by_outcome: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (case, row, outcome) in &cases {
        row.insert(&mut admin.sql).await;
        assert_eq!(get(&person, &row.id.to_string()).await.unwrap().outcome, *outcome, "{case}");
        by_outcome.entry(outcome).or_default().push(row.id.to_string());
    }
    for outcome in ["pending", "interrupted", "upstream_failed", "gateway_failed"] {
        let request = ListRequestLogsRequest { outcome: outcome.into(), ..requests() };
        let mut found: Vec<String> = list(&person, request).await.unwrap().into_iter().map(|log| log.request_id).collect();
        found.sort();
        by_outcome.get_mut(outcome).unwrap().sort();
        assert_eq!(found, by_outcome[outcome], "{outcome}");
    }
}
