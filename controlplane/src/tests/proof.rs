//! Verification on a real Postgres: what nodes shipped and administrators did is clean; whatever somebody does to it by SQL is found and
//! named, and nothing else is.

mod columns;
mod damage;
mod expiry;
mod lost;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use std::collections::BTreeSet;

use mcp_gateway::proto::{
    admin::v1::{LogFinding, Role, VerifyLogsRequest, VerifySummary, verify_logs_response::Said},
    node::v1::{Decided, Ended, audit_event::Event},
};
use sqlx::{AssertSqlSafe, Connection as _};
use tonic::Code;
use uuid::Uuid;

use super::{
    admin::{Admin, Person, refused},
    logs::timestamp,
};
use crate::{
    evidence::checkpoint,
    ingest::{
        names::Names,
        tests::{Lane, Shipping},
    },
    nodes::client::Joined,
};

/// When the calls of these tests were decided, in microseconds: a while after evidence began, as far as the database knows.
fn at() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = chrono::Utc::now().timestamp_micros();
    // Never the same moment twice: calls are told apart by it.
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1))).expect("it is always some");
    now.max(last + 1)
}

/// A control plane with two organisations and what a node recorded of both.
struct Scene {
    admin: Admin,
    platform: Person,
    acme: Uuid,
    globex: Uuid,
    joined: Joined,
}

/// A call as its node records it.
struct Call {
    id: Uuid,
    at: i64,
    org: Uuid,
}

impl Call {
    fn of(org: Uuid) -> Self {
        Self { id: Uuid::now_v7(), at: at(), org }
    }

    fn decided(&self) -> Event {
        Event::Decided(Decided {
            request_id: self.id.to_string(),
            decided_at_us: self.at,
            class: 1,
            org_id: self.org.to_string(),
            server_id: Uuid::from_u128(7).to_string(),
            server: "github".into(),
            subject: "user:ada".into(),
            roles: vec!["a\"b".into(), "c,d\\".into()],
            groups: vec!["{}".into(), String::new()],
            via: 3,
            decision: 1,
            method: "tools/call".into(),
            name: "search é\u{1f980}".into(),
            org_digest: vec![0, 1, 255].into(),
            config_epoch: u64::MAX,
            ..Decided::default()
        })
    }

    fn ended(&self) -> Event {
        Event::Ended(Ended {
            request_id: self.id.to_string(),
            decided_at_us: self.at,
            ended_at_us: self.at + 1000,
            outcome: 1,
            status: 200,
            error_code: -32602,
            upstream: "http://127.0.0.1:9/mcp".into(),
            stage_us: vec![1, 2, u32::MAX],
            ..Ended::default()
        })
    }
}

impl Scene {
    async fn start() -> Self {
        let mut admin = Admin::start().await;
        let (acme, globex) = (admin.organization("acme").await, admin.organization("globex").await);
        let platform = admin.platform_admin().await;
        let joined = Joined::to(&admin.running, "default").await;
        Self { admin, platform, acme, globex, joined }
    }

    /// Ships whole calls of `acme` on a lane of their own, `split` frames at a time.
    async fn calls(&self, count: usize, split: usize) -> Vec<Call> {
        let calls: Vec<Call> = (0..count).map(|_| Call::of(self.acme)).collect();
        let events = calls.iter().flat_map(|call| [call.decided(), call.ended()]).collect();
        self.ship(events, split).await;
        calls
    }

    async fn ship(&self, events: Vec<Event>, split: usize) {
        let mut lane = Lane::new(Uuid::now_v7(), 0);
        events.into_iter().for_each(|event| lane.push(event));
        let (mut shipping, total) = (Shipping::of(&self.joined).await, lane.frames.len());
        for start in (0..total).step_by(split) {
            let end = (start + split).min(total);
            assert_eq!(shipping.ship(lane.batch(start..end)).await, Ok(end as u64));
        }
    }

    async fn checkpoint(&self) -> i64 {
        checkpoint::take(&self.admin.running.core).await.unwrap().expect("something is new")
    }

    async fn sql(&self, statement: &str) {
        let mut sql = self.admin.running.sql().await;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut sql).await.unwrap();
        sql.close().await.unwrap();
    }

    async fn verify(&self) -> (Vec<LogFinding>, VerifySummary) {
        verify(&self.platform, VerifyLogsRequest { all_findings: true, ..Default::default() }).await
    }

    /// Nothing is found.
    #[track_caller]
    fn clean(&self) -> impl Future<Output = VerifySummary> {
        let caller = std::panic::Location::caller();
        async move {
            let (findings, summary) = self.verify().await;
            assert!(summary.clean && findings.is_empty(), "{caller}: {findings:#?}");
            summary
        }
    }
}

/// What a verification says in the end.
async fn verify(person: &Person, request: VerifyLogsRequest) -> (Vec<LogFinding>, VerifySummary) {
    let mut stream = person.evidence().verify_logs(request).await.unwrap().into_inner();
    let (mut findings, mut stages, mut summary) = (Vec::new(), BTreeSet::new(), None);
    while let Some(answer) = stream.message().await.unwrap() {
        assert!(summary.is_none(), "the summary is the end");
        match answer.said.unwrap() {
            Said::Progress(progress) => drop(stages.insert(progress.stage)),
            Said::Finding(finding) => findings.push(finding),
            Said::Summary(said) => summary = Some(said),
        }
    }
    assert_eq!(stages.len(), 4, "{stages:?}");
    (findings, summary.unwrap())
}

#[tokio::test]
async fn what_was_recorded_is_clean_however_it_arrived() {
    let mut scene = Scene::start().await;
    let calls = scene.calls(50, 7).await; // halves of one call in different batches
    // An end before its beginning, on other lanes; the same once more on a lane that is left of a given-up one; a call that is open.
    let (early, open) = (Call::of(scene.globex), Call::of(scene.globex));
    scene.ship(vec![early.ended()], 1).await;
    scene.clean().await;
    scene.ship(vec![early.decided(), open.decided()], 2).await;
    scene.ship(vec![calls[0].decided(), calls[0].ended(), early.decided(), early.ended(), open.decided()], 2).await;
    // Frames that cannot be read, and text that does not fit.
    let Event::Decided(plain) = open.decided() else { unreachable!() };
    let unreadable = Event::Decided(Decided { request_id: "nobody".into(), ..plain.clone() });
    let hostile = Event::Decided(Decided {
        request_id: Uuid::now_v7().to_string(),
        method: "\0".into(),
        name: "é".repeat(5000),
        config_version: u64::MAX,
        org_id: "no id".into(),
        class: 99_999,
        ..plain
    });
    scene.ship(vec![unreadable, hostile], 1).await;
    let summary = scene.clean().await;
    assert_eq!((summary.rows, summary.checkpoints, summary.unsigned), (53, 0, 0));
    assert_eq!(summary.halves, 50 * 2 + 2 + 1 + 1);
    assert!(summary.seals_since_checkpoint == summary.seals && summary.lanes == 5, "{summary:?}");

    // Nobody has heard of the node for long: what is open counts as interrupted. One ends after all.
    scene.sql("UPDATE node_status SET last_seen_at = now() - interval '1 h'; UPDATE ship_cursor SET updated_at = now() - interval '2 min'").await;
    assert_eq!(scene.admin.running.core.store.interrupt_lost_calls(&Names::default()).await.unwrap(), 2);
    scene.ship(vec![open.ended()], 1).await;
    let acme = scene.admin.member(scene.acme, Role::Admin).await;
    super::logs::server(&acme, "github").await;
    assert_eq!(scene.checkpoint().await, 1);
    assert_eq!(checkpoint::take(&scene.admin.running.core).await.unwrap(), None, "nothing is new");
    scene.calls(3, 6).await;
    assert_eq!(scene.checkpoint().await, 2);
    let summary = scene.clean().await;
    assert_eq!((summary.rows, summary.checkpoints, summary.seals_since_checkpoint), (56, 2, 0));
    assert!(summary.records >= 1 && !summary.key_id.is_empty() && summary.last_checkpoint_time.is_some(), "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_during_a_verification_is_no_damage() {
    let scene = Scene::start().await;
    scene.calls(200, 20).await;
    let arriving = async {
        for _ in 0..10 {
            scene.calls(40, 11).await;
            checkpoint::take(&scene.admin.running.core).await.unwrap();
        }
    };
    tokio::pin!(arriving);
    let mut runs = 0;
    loop {
        tokio::select! {
            () = &mut arriving => break,
            summary = scene.clean() => runs += usize::from(summary.clean),
        }
    }
    assert_eq!(scene.clean().await.rows, 600);
    assert!(runs > 0, "no verification came to its end in the meantime");
}

#[tokio::test]
async fn a_caller_verifies_the_rows_that_it_may_read() {
    let mut scene = Scene::start().await;
    let ours = scene.calls(3, 6).await;
    let theirs = Call::of(scene.globex);
    scene.ship(vec![theirs.decided(), theirs.ended()], 2).await;
    let auditor = scene.admin.member(scene.acme, Role::Auditor).await;
    let operator = scene.admin.member(scene.acme, Role::Operator).await;
    let of = |org: &str| VerifyLogsRequest { parent: format!("organizations/{org}"), ..Default::default() };
    for parent in ["", "organizations/globex"] {
        let answer = auditor.evidence().verify_logs(VerifyLogsRequest { parent: parent.into(), ..Default::default() }).await;
        let code = if parent.is_empty() { Code::PermissionDenied } else { Code::NotFound };
        refused(parent, answer.map(|_| ()), code, &[]);
    }
    refused("operator", operator.evidence().verify_logs(of("acme")).await.map(|_| ()), Code::PermissionDenied, &[]);
    let wrong = VerifyLogsRequest {
        since: timestamp(chrono::Utc::now()),
        until: timestamp(chrono::Utc::now() - chrono::Duration::hours(1)),
        ..of("acme")
    };
    refused("a period backwards", auditor.evidence().verify_logs(wrong).await.map(|_| ()), Code::InvalidArgument, &["until"]);

    let (findings, summary) = verify(&auditor, of("acme")).await;
    assert!(findings.is_empty() && summary.rows == 3, "{findings:?} {summary:?}");
    scene.sql(&format!("DELETE FROM request_logs WHERE request_id = '{}'", theirs.id)).await;
    let (findings, _) = verify(&auditor, of("acme")).await;
    assert!(findings.is_empty(), "what is missing of others is not ours to know: {findings:?}");
    scene.sql(&format!("UPDATE request_logs SET subject = 'x' WHERE request_id = '{}'", ours[1].id)).await;
    let (findings, _) = verify(&auditor, of("acme")).await;
    assert_eq!(findings.iter().map(|it| it.row.as_str()).collect::<Vec<_>>(), [ours[1].id.to_string()]);
    assert_eq!(findings[0].organization, "organizations/acme");
    // Before and after it, nothing is wrong.
    let then = chrono::DateTime::from_timestamp_micros(ours[1].at);
    let before = VerifyLogsRequest { until: then.and_then(timestamp), ..of("acme") };
    let after = VerifyLogsRequest { since: then.and_then(|at| timestamp(at + chrono::Duration::microseconds(1))), ..of("acme") };
    let (before, after) = (verify(&auditor, before).await, verify(&auditor, after).await);
    assert!(before.1.clean && after.1.clean && before.1.rows + after.1.rows == 2, "{before:?} {after:?}");
}
