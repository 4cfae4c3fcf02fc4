//! Rollouts as publishers see them: who gets what, at which version, on every replica.

use std::time::Duration;

use super::*;
use crate::{
    domain::{
        Labels,
        rollout::{Rollout, Share, State},
    },
    store::{change::Row, rollouts},
};

const NODE: Uuid = Uuid::from_u128(100);
const OTHER: Uuid = Uuid::from_u128(200);

fn rollout(org: Uuid) -> Rollout {
    Rollout {
        id: Uuid::now_v7(),
        org_id: org,
        org_slug: format!("org{}", org.as_u128()),
        pool: "default".into(),
        state: State::Running,
        diff: Vec::new(),
        labels: Labels::new(),
        steps: vec![Share::Nodes(1), Share::Percent(100)],
        step: 0,
        bake: Duration::ZERO,
        min_calls: 20,
        canaries: BTreeSet::from([NODE]),
        version: Version::default(),
        step_started_at: chrono::DateTime::UNIX_EPOCH,
        baking_since: None,
        halt: None,
        actor: "test".into(),
        reason: String::new(),
        meta: Meta::default(),
    }
}

impl Replica {
    /// Begins a rollout of what `sql` makes of the organisation.
    async fn start(&self, org: Uuid, sql: &'static str) -> (Rollout, u64) {
        let mut change = self.core.store.begin_system("test").await.unwrap();
        let mut part = store::begin_within(change.connection()).await.unwrap();
        sqlx::query(sql).bind(org).execute(&mut *part).await.unwrap();
        let candidate = rollouts::capture(&mut part, org).await.unwrap().rows;
        part.rollback().await.unwrap();
        let row = rollouts::insert(change.connection(), &rollout(org), &candidate).await.unwrap();
        let version = seal(change, &row).await;
        (row, version)
    }

    async fn turn(&self, row: &mut Rollout, state: State, canaries: &[Uuid]) -> u64 {
        let mut change = self.core.store.begin_system("test").await.unwrap();
        row.state = state;
        row.canaries.extend(canaries);
        *row = rollouts::update(change.connection(), row, true).await.unwrap();
        seal(change, row).await
    }
}

async fn seal(mut change: Change, row: &Rollout) -> u64 {
    change.touch(Touched {
        org: Some((row.org_id, row.org_slug.clone())),
        row: Row::Rollout(row.id),
        reaches_nodes: true,
        ..Touched::aside(Kind::Rollout, Operation::Update, row.name())
    });
    let sealed = change.seal().await.unwrap();
    let version = sealed.version();
    sealed.commit(&[]).await.unwrap();
    version
}

fn gets(published: &Published, node: Uuid) -> Arc<Scope> {
    Arc::clone(published.scope("default", node).unwrap())
}

fn version(version: u64) -> Version {
    Version { epoch: 1, version }
}

fn display_name(replica: &Replica, scope: &Scope) -> String {
    let bundles = &scope.types[type_url::ORG_BUNDLE];
    let encoded = &bundles[&*format!("org/{}/0", org(1))];
    compiled(replica, scope); // whatever is published compiles
    let bundle = mcp_gateway::proto::config::v1::OrgBundle::decode(encoded.body.clone()).unwrap();
    bundle.organization.unwrap().display_name
}

#[tokio::test]
async fn canaries_get_the_candidate_and_nobody_else_whichever_replica_serves_them() {
    let database = database().await;
    let (mut early, mut late) = (Replica::on(&database).await, Replica::on(&database).await);
    early.change(org(1), ORG).await;
    early.change(org(1), SERVER).await;
    let before = early.refresh().await;
    let (_, start) = early.start(org(1), RENAME).await;
    let now = early.refresh().await;
    assert_eq!(gets(&now, OTHER), gets(&before, OTHER), "nothing changed for the others");
    assert_eq!(gets(&now, NODE).version, version(start));
    assert_eq!(display_name(&early, &gets(&now, NODE)), "x");
    assert_eq!(display_name(&early, &gets(&now, OTHER)), "");

    let elsewhere = early.change(org(2), ORG).await;
    let (early_has, late_has) = (early.refresh().await, late.refresh().await);
    assert_eq!(early_has.trials, late_has.trials, "the same bytes, read whole or in steps");
    assert_eq!(early_has.scopes, late_has.scopes);
    for node in [NODE, OTHER] {
        assert_eq!(gets(&late_has, node).version, version(elsewhere), "other organisations' changes reach both");
    }
}

#[tokio::test]
async fn whoever_is_moved_gets_a_version_that_is_newer_than_what_it_ran() {
    let database = database().await;
    let (mut replica, mut other) = (Replica::on(&database).await, Replica::on(&database).await);
    replica.change(org(1), ORG).await;
    let stable = replica.refresh().await.scopes["default"].clone();
    let (mut row, start) = replica.start(org(1), RENAME).await;
    let now = replica.refresh().await;
    let candidate = gets(&now, NODE);
    assert_eq!((candidate.version, stable.version < candidate.version), (version(start), true));

    // The content goes back to what it was; the version goes on.
    let halt = replica.turn(&mut row, State::Halted, &[]).await;
    for replica in [&mut replica, &mut other] {
        let now = replica.refresh().await;
        assert!(now.trials.is_empty());
        assert_eq!((gets(&now, NODE).version, gets(&now, NODE).digest), (version(halt), stable.digest));
    }
    // And again to the candidate's, which is the same as before.
    let resume = replica.turn(&mut row, State::Running, &[]).await;
    let advance = replica.turn(&mut row, State::Running, &[OTHER]).await;
    for replica in [&mut other, &mut replica] {
        let now = replica.refresh().await;
        for node in [NODE, OTHER] {
            assert_eq!((gets(&now, node).version, gets(&now, node).digest), (version(advance), candidate.digest));
        }
        assert_eq!(gets(&now, Uuid::nil()).version, version(halt), "who is no canary is left alone");
    }
    assert!(resume < advance);

    let abort = replica.turn(&mut row, State::Aborted, &[]).await;
    for replica in [&mut replica, &mut other] {
        let now = replica.refresh().await;
        assert_eq!((gets(&now, OTHER).version, gets(&now, OTHER).digest), (version(abort), stable.digest));
    }
    assert_eq!(rollouts::candidate(&mut replica.core.store.connection().await.unwrap(), row.id).await.unwrap(), None);
}

#[tokio::test]
async fn an_organisation_waits_for_its_rollout_and_a_pool_has_one_at_a_time() {
    let replica = Replica::on(&database().await).await;
    for id in [1, 2] {
        replica.change(org(id), ORG).await;
    }
    let (mut row, _) = replica.start(org(1), RENAME).await;
    let mut change = replica.begin(org(1), RENAME).await;
    change.touch(touched(org(1)));
    let refused = change.seal().await.err().unwrap().to_string();
    assert!(refused.contains(&row.name()) && refused.contains("abort"), "{refused}");
    let mut change = replica.core.store.begin_system("test").await.unwrap();
    let candidate = rollouts::capture(change.connection(), org(2)).await.unwrap().rows;
    let second = rollouts::insert(change.connection(), &rollout(org(2)), &candidate).await.unwrap_err();
    assert!(matches!(second, store::Error::Precondition(_)), "{second}");
    drop(change);
    replica.turn(&mut row, State::Aborted, &[]).await;
    replica.change(org(1), RENAME).await;
    replica.start(org(2), RENAME).await;
}

#[tokio::test]
async fn a_candidate_that_cannot_be_read_stops_nobody_else() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    let (row, _) = replica.start(org(1), RENAME).await;
    let mut sql = replica.core.store.connection().await.unwrap();
    let broken = "UPDATE rollouts SET candidate = jsonb_set(candidate, '{organization,audit_full}', '\"x\"') WHERE id = $1";
    sqlx::query(broken).bind(row.id).execute(&mut *sql).await.unwrap();
    drop(sql);
    let version = replica.change(org(2), ORG).await;
    let now = replica.refresh().await;
    assert!(now.trials.is_empty());
    assert_eq!(now.scopes["default"].version, self::version(version));
}
