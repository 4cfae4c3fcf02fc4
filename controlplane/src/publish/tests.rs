mod rollouts;

use std::collections::BTreeSet;

use mcp_gateway::{
    proto::config::v1::{ApiKey, CredentialShard, Manifest, Revocation, UpstreamCredential},
    snapshot::{Snapshot, Staged, Version, compile, verify_manifest},
    type_url,
};
use prost::Message;
use tokio::sync::watch;
use uuid::Uuid;

use super::{publisher::Publisher, *};
use crate::{
    app::App,
    domain::{Meta, Organization, bundle::OrgRows},
    store,
    store::change::{Change, Kind, Operation, Touched},
    testing::{config, database},
};

/// A replica without its loops.
struct Replica {
    core: Core,
    publisher: Publisher,
    out: watch::Receiver<Option<Arc<Published>>>,
}

impl Replica {
    async fn on(database: &str) -> Self {
        let core = App::build(config(database)).await.unwrap().core().clone();
        core.custody.load().await.unwrap();
        let (sender, out) = watch::channel(None);
        let publisher = Publisher::new(core.clone(), Metrics::register(&core.metrics), sender);
        Self { core, publisher, out }
    }

    async fn refresh(&mut self) -> Arc<Published> {
        self.publisher.refresh().await.unwrap();
        self.out.borrow().clone().unwrap()
    }

    /// One version that touches `orgs` with `sql`.
    async fn change(&self, org: Uuid, sql: &'static str) -> u64 {
        let mut change = self.begin(org, sql).await;
        change.touch(touched(org));
        let sealed = change.seal().await.unwrap();
        let version = sealed.version();
        sealed.commit(&[]).await.unwrap();
        version
    }

    async fn begin(&self, org: Uuid, sql: &'static str) -> Change {
        let mut change = self.core.store.begin_system("test").await.unwrap();
        sqlx::query(sql).bind(org).execute(change.connection()).await.unwrap();
        change
    }
}

fn touched(org: Uuid) -> Touched {
    let slug = format!("org{}", org.as_u128());
    let resource = format!("organizations/{slug}");
    let aside = Touched::aside(Kind::Organization, Operation::Update, resource);
    Touched { org: Some((org, slug)), reaches_nodes: true, ..aside }
}

const ORG: &str = "INSERT INTO organizations (id, slug) VALUES ($1, 'org' || right($1::text, 1))";
const ORG_ELSEWHERE: &str = "INSERT INTO organizations (id, slug, pool) VALUES ($1, 'org' || right($1::text, 1), 'edge')";
const KEY: &str =
    "INSERT INTO api_keys (id, uid, org_id, secret_sha256) VALUES ('aaaaaaaaaaaaaaaa', gen_random_uuid(), $1, sha256('x'))";
const REVOKE: &str = "UPDATE api_keys SET revoked_at = now() WHERE org_id = $1";
const SERVER: &str = "INSERT INTO mcp_servers (id, org_id, slug, transport, endpoints) \
    VALUES (gen_random_uuid(), $1, 's' || (SELECT count(*) FROM mcp_servers), 1, '[{\"url\": \"http://a.example/mcp\"}]')";
const RENAME: &str = "UPDATE organizations SET display_name = display_name || 'x' WHERE id = $1";
const DELETE: &str = "DELETE FROM organizations WHERE id = $1";

fn org(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// What a node makes of a scope.
fn compiled(replica: &Replica, scope: &Scope) -> Snapshot {
    let snapshot = compiled_after(replica, scope, None);
    assert_eq!(snapshot.report(), [""; 0], "nothing is left out");
    snapshot
}

fn compiled_after(replica: &Replica, scope: &Scope, previous: Option<&Snapshot>) -> Snapshot {
    let keys = replica.core.custody.keys().unwrap();
    let manifest = manifest(scope);
    let manifest_keys = keys.manifest.iter().map(|key| (key.id.clone(), key.material.public().to_vec())).collect();
    verify_manifest(&manifest, &manifest_keys).unwrap();
    let mut staged = Staged::new();
    for covered in type_url::COVERED {
        for (name, encoded) in &*scope.types[covered] {
            staged.put(covered, name, encoded.body.clone()).unwrap();
        }
    }
    assert_eq!(staged.digest().as_bytes().as_slice(), &manifest.digest[..]);
    assert_eq!(staged.len(), manifest.resource_count as usize);
    let ring = &keys.pools[&manifest.scope];
    let pool_keys = ring.iter().map(|key| (key.id.clone(), key.material.clone())).collect();
    compile(&manifest, &staged, &pool_keys, previous).unwrap()
}

fn manifest(scope: &Scope) -> Manifest {
    let (_, encoded) = scope.types[type_url::MANIFEST].first_key_value().unwrap();
    Manifest::decode(encoded.body.clone()).unwrap()
}

#[tokio::test]
async fn an_installation_without_organisations_compiles_on_a_node() {
    let mut replica = Replica::on(&database().await).await;
    let published = replica.refresh().await;
    let snapshot = compiled(&replica, &published.scopes["default"]);
    assert_eq!(snapshot.issuers().len(), 1);
    assert_eq!(snapshot.issuers()[0].issuer, replica.core.config.issuer);
    assert_eq!(published.scopes["default"].types[type_url::CREDENTIAL_SHARD].len(), 0, "only shards with a key exist");
}

#[tokio::test]
async fn replicas_send_the_same_bytes_whichever_way_they_came_to_a_version() {
    let database = database().await;
    let (mut early, mut late) = (Replica::on(&database).await, Replica::on(&database).await);
    early.refresh().await;
    for (id, sql) in [(1, ORG), (2, ORG_ELSEWHERE), (1, KEY), (1, SERVER), (2, RENAME), (3, ORG), (3, DELETE), (1, SERVER)] {
        early.change(org(id), sql).await;
        early.refresh().await;
    }
    let (early_has, late_has) = (early.refresh().await, late.refresh().await);
    assert_eq!(early_has.head, late_has.head);
    assert_eq!(early_has.scopes, late_has.scopes);
    assert_eq!(early_has.beside, late_has.beside);
    let snapshot = compiled(&late, &late_has.scopes["default"]);
    assert!(snapshot.api_key("aaaaaaaaaaaaaaaa").is_some() && snapshot.org(&org(1).to_string()).is_some());
    assert!(snapshot.org(&org(2).to_string()).is_none(), "of another pool");
}

#[tokio::test]
async fn a_manifest_changes_only_with_the_content_of_its_pool() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    replica.change(org(2), ORG_ELSEWHERE).await;
    replica.refresh().await; // makes the keys of the new pool
    let version = replica.change(org(2), RENAME).await;
    let first = replica.refresh().await;
    let head = replica.change(org(2), RENAME).await;
    let second = replica.refresh().await;
    assert_eq!((second.head.version.version, version + 1), (head, head));
    assert!(Arc::ptr_eq(&second.scopes["default"], &first.scopes["default"]), "and costs nothing otherwise");
    assert_eq!(second.scopes["edge"].version, Version { epoch: 1, version: head });
    assert_eq!(manifest(&second.scopes["edge"]).version, head);
}

#[tokio::test]
async fn a_change_of_one_organisation_leaves_the_rest_as_it_was() {
    let mut replica = Replica::on(&database().await).await;
    for (id, sql) in [(1, ORG), (2, ORG), (1, KEY), (1, SERVER)] {
        replica.change(org(id), sql).await;
    }
    let before = replica.refresh().await;
    replica.change(org(2), RENAME).await;
    let after = replica.refresh().await;
    let (before, after) = (&before.scopes["default"].types, &after.scopes["default"].types);
    assert!(Arc::ptr_eq(&before[type_url::CREDENTIAL_SHARD], &after[type_url::CREDENTIAL_SHARD]));
    assert!(Arc::ptr_eq(&before[type_url::SECRET_ENVELOPE], &after[type_url::SECRET_ENVELOPE]));
    let changed = after[type_url::ORG_BUNDLE].iter().filter(|(name, is)| before[type_url::ORG_BUNDLE].get(*name) != Some(is));
    assert_eq!(changed.map(|(name, _)| &**name).collect::<Vec<_>>(), [format!("org/{}/0", org(2))]);
}

/// A random organisation: some servers, credentials and keys.
fn some_part(random: &mut impl rand::RngExt, id: u128) -> build::OrgPart {
    let number = |random: &mut _, most: u128| rand::RngExt::random_range(random, 0..=most);
    let organization = sample_organization(id, ["default", "edge"][random.random_range(0..2)], &number(random, 3).to_string());
    let keys = (0..number(random, 4)).map(|_| {
        let key_id = format!("{id:014}{:02}", number(random, 30));
        ApiKey { key_id, org_id: org(id).to_string(), subject: number(random, 2).to_string(), ..ApiKey::default() }
    });
    let mut keys: Vec<ApiKey> = keys.collect();
    keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    keys.dedup_by(|a, b| a.key_id == b.key_id);
    let credential = |n: u128| UpstreamCredential { id: org(id * 100 + n).to_string(), header: "x".into(), value: "y".into() };
    let credentials = (0..number(random, 2)).map(credential).collect();
    build::org_part(&OrgRows::bare(organization), credentials, keys)
}

fn sample_organization(id: u128, pool: &str, display_name: &str) -> Organization {
    let at = chrono::DateTime::UNIX_EPOCH;
    Organization {
        id: org(id),
        slug: format!("org{id}"),
        display_name: display_name.into(),
        allowed_origins: Vec::new(),
        audit_full: 1,
        pool: pool.into(),
        request_log_retention_days: 90,
        audit_sync: 1,
        capture: crate::domain::Capture::default(),
        audit_log_retention_days: 400,
        meta: Meta { revision: 1, config_version: 0, created_at: at, updated_at: at },
    }
}

#[tokio::test]
async fn what_is_made_of_changes_is_what_is_made_of_everything() {
    use rand::{RngExt as _, SeedableRng as _};
    let replica = Replica::on(&database().await).await;
    let settings = build::Settings { issuer: "i".into(), gateway_public_url: "g".into(), allowed_origins: Vec::new() };
    let fewer = replica.core.custody.with_pool("edge").await.unwrap();
    let rings = [fewer, replica.core.custody.load().await.unwrap()];
    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut orgs = build::Orgs::new();
        let mut made: BTreeMap<&str, (build::Ingredients, build::Content)> = BTreeMap::new();
        for _ in 0..30 {
            let id = random.random_range(1..8);
            match random.random_range(0..6) {
                0 => drop(orgs.remove(&org(id))),
                _ => drop(orgs.insert(org(id), Arc::new(some_part(&mut random, id)))),
            }
            let keys = &rings[usize::from(random.random_range(0..10) == 0)];
            for pool in ["default", "edge"] {
                let orgs = orgs.iter().filter(|(_, part)| part.pool == pool).map(|(id, part)| (*id, Arc::clone(part))).collect();
                let now = build::Ingredients { orgs, keys: Arc::clone(keys) };
                let before = made.get(pool).map(|(before, content)| (before, content));
                let content = build::content(pool, &now, &settings, before).unwrap();
                assert_eq!(Some(&content), build::content(pool, &now, &settings, None).as_ref(), "seed {seed}");
                made.insert(pool, (now, content));
            }
        }
    }
}

#[tokio::test]
async fn a_replica_that_starts_later_gives_a_scope_the_version_that_brought_its_content() {
    let database = database().await;
    let mut first = Replica::on(&database).await;
    first.change(org(1), ORG).await;
    let before = first.refresh().await;
    first.change(org(2), ORG_ELSEWHERE).await;
    let mut second = Replica::on(&database).await;
    assert_eq!(second.refresh().await.scopes["default"], before.scopes["default"]);
}

#[tokio::test]
async fn a_revoked_key_vanishes_and_is_listed() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    replica.change(org(1), KEY).await;
    let with = replica.refresh().await;
    let shards = &with.scopes["default"].types[type_url::CREDENTIAL_SHARD];
    let (name, shard) = shards.first_key_value().unwrap();
    let shard = CredentialShard::decode(shard.body.clone()).unwrap();
    assert_eq!(**name, *format!("credentials/default/{}", shard.shard));
    assert_eq!(shard.keys[0].subject, "key:aaaaaaaaaaaaaaaa");

    replica.change(org(1), REVOKE).await;
    let without = replica.refresh().await;
    assert_eq!(without.scopes["default"].types[type_url::CREDENTIAL_SHARD].len(), 0);
    let (_, revocation) = without.beside["default"].types[type_url::REVOCATION].first_key_value().unwrap();
    assert_eq!(Revocation::decode(revocation.body.clone()).unwrap().api_keys, ["aaaaaaaaaaaaaaaa"]);
    assert_ne!(with.beside, without.beside);
}

#[tokio::test]
async fn the_key_of_a_user_works_while_the_user_is_a_member() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    let join = "WITH u AS (INSERT INTO users (id, email, password_hash) VALUES (gen_random_uuid(), 'u@x', '') RETURNING id), \
        m AS (INSERT INTO memberships (org_id, user_id, role, policy_roles, groups) SELECT $1, id, 5, '{engineer}', '{g}' FROM u) \
        INSERT INTO api_keys (id, uid, org_id, user_id, secret_sha256) \
        SELECT 'bbbbbbbbbbbbbbbb', gen_random_uuid(), $1, id, sha256('x') FROM u";
    replica.change(org(1), join).await;
    let published = replica.refresh().await;
    let snapshot = compiled(&replica, &published.scopes["default"]);
    let key = snapshot.api_key("bbbbbbbbbbbbbbbb").unwrap();
    assert_eq!(key.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["engineer", "member"]);
    replica.change(org(1), "DELETE FROM memberships WHERE org_id = $1").await;
    let published = replica.refresh().await;
    assert!(compiled(&replica, &published.scopes["default"]).api_key("bbbbbbbbbbbbbbbb").is_none());
}

#[tokio::test]
async fn tokens_and_sessions_are_void_while_they_could_still_be_good() {
    let mut replica = Replica::on(&database().await).await;
    let lifetime = replica.core.config.access_token_seconds;
    let mut connection = replica.core.store.connection().await.unwrap();
    let ids: Vec<Uuid> = (1..=4).map(org).collect();
    for (id, age) in ids.iter().zip([0, lifetime - 60, lifetime + 600, 0]) {
        let insert = "WITH u AS (INSERT INTO users (id, email, password_hash, tokens_not_before) \
            VALUES ($1, $1::text, '', now() - make_interval(secs => $2)) RETURNING id) \
            INSERT INTO sessions (id, user_id, refresh_sha256, expires_at, revoked_at) \
            SELECT id, id, '', now(), now() - make_interval(secs => $2) FROM u";
        sqlx::query(insert).bind(id).bind(age as f64).execute(&mut *connection).await.unwrap();
    }
    store::users::delete(&mut connection, ids[3]).await.unwrap();
    let published = replica.refresh().await;
    let (_, revocation) = published.beside["default"].types[type_url::REVOCATION].first_key_value().unwrap();
    let revocation = Revocation::decode(revocation.body.clone()).unwrap();
    let text = |of: &[Uuid]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(revocation.login_sessions, text(&[ids[0], ids[1], ids[3]]), "those of a deleted user outlive it");
    let subjects: Vec<_> = revocation.subjects.iter().map(|subject| subject.subject.clone()).collect();
    assert_eq!(subjects, text(&ids[..2]));
    let moment = revocation.subjects[0].not_before;
    assert!((moment - chrono::Utc::now().timestamp()).abs() < 60, "in seconds since the epoch");
}

#[tokio::test]
async fn a_credential_that_no_key_opens_switches_off_its_server_and_nothing_else() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    replica.change(org(1), SERVER).await;
    replica.change(org(1), SERVER).await;
    let broken = "UPDATE mcp_servers SET credential_header = 'authorization', credential_wrapped = 'rubbish' WHERE org_id = $1 AND slug = 's0'";
    replica.change(org(1), broken).await;
    let published = replica.refresh().await;
    let snapshot = compiled(&replica, &published.scopes["default"]);
    assert!(snapshot.server_by_slug("org1", "s0").is_none() && snapshot.server_by_slug("org1", "s1").is_some());
}

#[tokio::test]
async fn rows_that_cannot_be_read_withhold_their_organisation_and_nobody_else() {
    let database = database().await;
    let (mut replica, mut late) = (Replica::on(&database).await, Replica::on(&database).await);
    for (id, sql) in [(1, ORG), (2, ORG), (1, KEY), (1, SERVER)] {
        replica.change(org(id), sql).await;
    }
    let published = replica.refresh().await;
    let good = compiled(&replica, &published.scopes["default"]);
    for id in [1, 2] {
        replica.change(org(id), RENAME).await;
    }
    // A row that this version does not understand, written by something else.
    let edit = async |sql| sqlx::query(sql).execute(replica.core.store.pool()).await.unwrap();
    edit("UPDATE mcp_servers SET endpoints = '\"nonsense\"'").await;
    let published = replica.refresh().await;
    assert_eq!(published.scopes, late.refresh().await.scopes, "the same bytes from a replica that knows nothing of the past");
    let after = compiled_after(&replica, &published.scopes["default"], Some(&good));
    let (first, second) = (org(1).to_string(), org(2).to_string());
    assert_eq!(after.quarantined()[&*first].serving, good.org(&first).map(|org| org.digest));
    assert_ne!(after.org(&second).map(|org| org.digest), good.org(&second).map(|org| org.digest), "everybody else moves on");
    assert!(after.api_key("aaaaaaaaaaaaaaaa").is_some(), "keys are as they are");
    let edit = async |sql| sqlx::query(sql).execute(replica.core.store.pool()).await.unwrap();
    edit("UPDATE mcp_servers SET endpoints = '[{\"url\": \"http://a.example/mcp\"}]'").await;
    replica.change(org(1), RENAME).await;
    let published = replica.refresh().await;
    compiled(&replica, &published.scopes["default"]);
}

#[tokio::test]
async fn what_is_void_is_told_even_if_nothing_else_can_be() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    replica.change(org(1), KEY).await;
    let before = replica.refresh().await;
    replica.change(org(1), REVOKE).await;
    replica.change(org(1), SERVER).await;
    // Something that no reading of one organisation can be blamed for.
    sqlx::query("ALTER TABLE policies RENAME TO elsewhere").execute(replica.core.store.pool()).await.unwrap();
    assert!(replica.publisher.refresh().await.is_err());
    let after = replica.out.borrow().clone().unwrap();
    assert_eq!((&after.scopes, after.head), (&before.scopes, before.head));
    assert_ne!(after.beside, before.beside);
}

#[tokio::test]
async fn late_commit_lower_version_is_not_lost() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    replica.change(org(2), ORG).await;
    replica.refresh().await;
    // The slow writer has written its row and not yet taken its version.
    let mut slow = replica.begin(org(1), SERVER).await;
    let quick = replica.change(org(2), SERVER).await;
    let seen = replica.refresh().await;
    assert_eq!(seen.head.version.version, quick);
    slow.touch(touched(org(1)));
    let sealed = slow.seal().await.unwrap();
    assert_eq!(sealed.version(), quick + 1, "the version is taken in commit order");
    // Numbered, and not yet committed: nobody may publish it or anything after it.
    assert_eq!(replica.refresh().await.head.version.version, quick);
    sealed.commit(&[]).await.unwrap();
    let seen = replica.refresh().await;
    assert_eq!(seen.head.version.version, quick + 1);
    let snapshot = compiled(&replica, &seen.scopes["default"]);
    let servers = [(1, "s0"), (2, "s0"), (1, "s1"), (2, "s1")];
    let found = servers.iter().filter(|(org, slug)| snapshot.server_by_slug(&format!("org{org}"), slug).is_some()).count();
    assert_eq!(found, 2, "one of each writer");
}

#[tokio::test]
async fn a_log_that_does_not_tell_is_not_trusted() {
    let database = database().await;
    let mut replica = Replica::on(&database).await;
    replica.change(org(1), ORG).await;
    replica.refresh().await;
    replica.change(org(1), RENAME).await;
    sqlx::query("DELETE FROM config_change").execute(replica.core.store.pool()).await.unwrap();
    let incremental = replica.refresh().await;
    assert_eq!(incremental.scopes, Replica::on(&database).await.refresh().await.scopes);
}

#[tokio::test]
async fn a_restored_database_needs_a_higher_epoch_and_then_starts_over() {
    let mut replica = Replica::on(&database().await).await;
    replica.change(org(1), ORG).await;
    let before = replica.refresh().await;
    sqlx::query("UPDATE config_head SET epoch = 2, version = 1").execute(replica.core.store.pool()).await.unwrap();
    let after = replica.refresh().await;
    assert_eq!(after.scopes["default"].version, Version { epoch: 2, version: 1 });
    assert_eq!(after.scopes["default"].digest, before.scopes["default"].digest);
}

#[tokio::test]
async fn a_pool_exists_as_soon_as_somebody_may_join_it() {
    let mut replica = Replica::on(&database().await).await;
    assert_eq!(replica.refresh().await.scopes.keys().collect::<BTreeSet<_>>().len(), 1);
    let token =
        "INSERT INTO join_tokens (id, secret_sha256, pool, expires_at) VALUES ('t', '', 'edge', now() + interval '1 minute')";
    sqlx::query(token).execute(replica.core.store.pool()).await.unwrap();
    let published = replica.refresh().await;
    assert!(published.scopes.contains_key("edge") && published.beside.contains_key("edge"));
    compiled(&replica, &published.scopes["edge"]);
}

#[tokio::test]
async fn nothing_new_publishes_nothing() {
    let mut replica = Replica::on(&database().await).await;
    replica.refresh().await;
    replica.out.mark_unchanged();
    replica.refresh().await;
    assert!(!replica.out.has_changed().unwrap());
}

#[tokio::test]
async fn notify_lost_poll_recovers() {
    let replica = Replica::on(&database().await).await;
    let Replica { core, publisher, mut out } = replica;
    // Nobody listens: only the poll can find the change.
    core.tasks.spawn("publisher", crate::tasks::OnExit::Ignore, publisher.run(Arc::new(Notify::new())));
    out.wait_for(Option::is_some).await.unwrap();
    sqlx::query("UPDATE config_head SET version = 7").execute(core.store.pool()).await.unwrap();
    out.wait_for(|published| published.as_ref().is_some_and(|p| p.head.version.version == 7)).await.unwrap();
    core.tasks.stop_token().cancel();
}

#[tokio::test]
async fn a_call_wakes_the_publisher() {
    let replica = Replica::on(&database().await).await;
    let wake = Arc::new(Notify::new());
    replica.core.tasks.spawn("listen", crate::tasks::OnExit::Ignore, publisher::listen(replica.core.clone(), Arc::clone(&wake)));
    wake.notified().await; // it listens
    replica.change(org(1), ORG).await;
    wake.notified().await;
    replica.core.tasks.stop_token().cancel();
}
