//! Several replicas on one database: nodes that move between them, and writers that are slow or not heard.

use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use mcp_gateway::type_url::ORG_BUNDLE;
use mcpgw_controlplane::nodes::client::{add_org, answer, begin_org, commit, hello, manifest, published, row_where, seal};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{bodies, bundle, chain, holding, names, replica_of, settled, versions};

#[tokio::test]
async fn replica_switch_mid_push_same_bytes() {
    let (one, joined, stream) = settled().await;
    drop(stream);
    let two = replica_of(&one).await;
    // More than one response holds.
    for n in 1..=2 {
        let mut change = begin_org(&one, n).await;
        let policies = format!(
            "INSERT INTO policies (id, org_id, name, effect, subjects, servers, match) \
             SELECT gen_random_uuid(), $1, 'p' || n, 1, '{{\"roles\": [\"{role}\"]}}', '{{*}}', '{{\"tools\": [\"t*\"]}}' \
             FROM generate_series(1, 2500) n",
            role = "r".repeat(200)
        );
        sqlx::query(AssertSqlSafe(policies)).bind(Uuid::from_u128(n)).execute(change.connection()).await.unwrap();
        commit(change, n).await;
    }
    published(&one).await;
    published(&two).await;

    // What a node that is not disturbed gets.
    let whole = chain(&mut joined.discover(hello(&joined, &[])).await.unwrap()).await;
    let whole = bodies(&whole);
    // The same node again: cut off in the middle, before the manifest, with nothing of the last response acknowledged.
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    let mut before = Vec::new();
    let bundles = |before: &[DeltaDiscoveryResponse]| versions(before).keys().filter(|(of, _)| of == ORG_BUNDLE).count();
    while bundles(&before) < 2 {
        before.push(stream.next().await);
        if let Some(last) = before.last().filter(|last| last.type_url != ORG_BUNDLE) {
            stream.say(answer(last)).await;
        }
    }
    drop(stream);
    let held = versions(&before);

    let joined = joined.at(two.addresses.node);
    let mut stream = joined.discover(holding(&joined, &held)).await.unwrap();
    let after = chain(&mut stream).await;
    for ((type_url, name), resource) in &bodies(&before) {
        assert_eq!(Some(resource), whole.get(&(type_url.clone(), name.clone())), "{name}");
    }
    let rest = bodies(&after);
    assert!(rest.keys().any(|(type_url, _)| type_url == ORG_BUNDLE), "it was in the middle");
    for (key, resource) in &rest {
        assert_eq!(Some(resource), whole.get(key), "{key:?}: byte for byte");
        assert!(!held.contains_key(key), "{key:?} was there already");
    }
    let mut together: Vec<_> = held.keys().chain(rest.keys()).collect();
    together.sort_unstable();
    assert_eq!(together, whole.keys().collect::<Vec<_>>(), "each resource once, the manifest among them");
    assert!(after.iter().all(|response| response.removed_resources.is_empty()));
    let version = manifest(after.last().unwrap()).version;
    row_where(&two, joined.id(), |row| row.applied.version == version).await;
}

#[tokio::test]
async fn late_commit_lower_version_is_not_lost() {
    let (running, _joined, mut stream) = settled().await;
    let two = replica_of(&running).await;
    // The slow writer has written its row and then pauses; it has no version yet.
    let slow = begin_org(&running, 1).await;
    let quick = add_org(&two, 2).await;
    let seen = chain(&mut stream).await;
    assert_eq!((names(&seen[0]), manifest(&seen[1]).version), (vec![bundle(2).as_str()], quick));
    // It takes the next version and pauses again, before its commit: nobody sees it, and nobody can take a version after it.
    let slow = seal(slow, 1).await;
    assert_eq!(slow.version(), quick + 1, "the version order is the commit order");
    assert_eq!(running.core.store.head().await.unwrap().version.version, quick);
    let blocked = commit(begin_org(&two, 3).await, 3);
    let landed = async {
        stream.quiet().await;
        let version = slow.version();
        slow.commit(&[]).await.unwrap();
        version
    };
    let (third, late) = tokio::join!(blocked, landed);
    assert_eq!((late, third), (quick + 1, quick + 2));
    let mut told = Vec::new();
    let mut versions = Vec::new();
    while versions.last() != Some(&third) {
        let next = chain(&mut stream).await;
        told.extend(names(&next[0]).into_iter().map(str::to_owned));
        versions.push(manifest(next.last().unwrap()).version);
    }
    assert_eq!(told, [bundle(1), bundle(3)], "in versions {versions:?}");
}

#[tokio::test]
async fn notify_lost_poll_recovers() {
    let (running, joined, mut stream) = settled().await;
    let mut sql = running.sql().await;
    // A version that nobody was called for, as when the listening connection was cut at that moment.
    let statements = [
        "BEGIN",
        "INSERT INTO organizations (id, slug) VALUES ('00000000-0000-0000-0000-000000000001', 'org1')",
        "UPDATE config_head SET version = version + 1",
        "INSERT INTO config_change (epoch, version, seq, org_id, kind, resource, operation, actor) \
         SELECT epoch, version, 1, '00000000-0000-0000-0000-000000000001', 'organization', 'org1', 'create', 'test' FROM config_head",
        "COMMIT",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut sql).await.unwrap();
    }
    let version = running.core.store.head().await.unwrap().version.version;
    let next = chain(&mut stream).await;
    assert_eq!((names(&next[0]), manifest(&next[1]).version), (vec![bundle(1).as_str()], version));

    // Nor is one lost that is committed while no connection listens.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(&mut sql).await.unwrap();
    assert!(cut > 0, "there was a listener");
    let version = add_org(&running, 2).await;
    let next = chain(&mut stream).await;
    assert_eq!(manifest(next.last().unwrap()).version, version);
    row_where(&running, joined.id(), |row| row.applied.version == version).await;
}
