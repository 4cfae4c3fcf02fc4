//! What is too old goes, evidence of it stays, and nobody takes it for theft.

use super::*;
use crate::maintenance::{Metrics, clean};

const DAY: i64 = 24 * 3600 * 1_000_000;

#[tokio::test]
async fn what_expired_is_not_missing_and_what_was_stolen_is() {
    let mut scene = Scene::start().await;
    let acme = scene.admin.member(scene.acme, Role::Admin).await;
    super::super::logs::server(&acme, "one").await;
    let aged = |org, days: i64| Call { at: at() - days * DAY, ..Call::of(org) };
    let (old, kept, ancient) = (aged(scene.acme, 5), aged(scene.globex, 5), aged(scene.globex, 120));
    let events = [&old, &kept, &ancient].into_iter().flat_map(|call| [call.decided(), call.ended()]).collect();
    scene.ship(events, 2).await;
    scene.sql("UPDATE organizations SET request_log_retention_days = 3 WHERE slug = 'acme'").await;
    scene.checkpoint().await;
    clean(scene.admin.running.core.store.clone(), Metrics::default()).await.unwrap();
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT request_id FROM request_logs").fetch_all(&mut scene.admin.running.sql().await).await.unwrap();
    assert_eq!(left, [kept.id]);
    let summary = scene.clean().await;
    assert_eq!((summary.expired, summary.halves), (4, 2), "{summary:?}");

    // The same row, before it was due.
    scene.sql(&format!("DELETE FROM request_logs WHERE request_id = '{}'", kept.id)).await;
    let (findings, _) = scene.verify().await;
    assert_eq!(
        findings.iter().map(|it| (it.kind.as_str(), it.row.clone())).collect::<Vec<_>>(),
        [("deleted", kept.id.to_string())]
    );
    // Who makes the record of it longer is not believed.
    scene.sql("UPDATE log_purges SET before = ARRAY[now()], orgs = '{00000000-0000-0000-0000-000000000000}', days = '{1}', counts = '{1}'").await;
    let (findings, _) = scene.verify().await;
    let found = |kind: &str, log: &str| findings.iter().any(|it| it.kind == kind && it.log == log);
    assert!(found("edited", "log_purges") && found("deleted", "request_logs"), "{findings:#?}");
}

#[tokio::test]
async fn administrative_records_expire_by_organisation_and_leave_their_numbers() {
    let mut scene = Scene::start().await;
    let (ours, theirs) = (scene.admin.member(scene.acme, Role::Admin).await, scene.admin.member(scene.globex, Role::Admin).await);
    for id in ["one", "two"] {
        super::super::logs::server(&ours, id).await;
    }
    let request = mcp_gateway::proto::admin::v1::UpdateOrganizationRequest {
        organization: Some(mcp_gateway::proto::admin::v1::Organization {
            name: "organizations/globex".into(),
            audit_log_retention_days: 30,
            ..Default::default()
        }),
        update_mask: super::super::admin::mask(&["audit_log_retention_days"]),
        ..Default::default()
    };
    let owner = scene.admin.member(scene.globex, Role::Owner).await;
    owner.organizations().update_organization(request).await.unwrap();
    super::super::logs::server(&ours, "three").await;
    drop(theirs);
    // Records as they were 40 days ago: the chain is made again by whoever has the key.
    age_records(&scene, 40).await;
    clean(scene.admin.running.core.store.clone(), Metrics::default()).await.unwrap();
    let query = "SELECT org_slug FROM audit_logs WHERE number IS NOT NULL ORDER BY number";
    let left: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut scene.admin.running.sql().await).await.unwrap();
    let kept = left.iter().filter(|slug| *slug == "acme").count();
    assert!(kept == 3 && !left.contains(&"globex".to_owned()), "only globex keeps them for 30 days: {left:?}");
    assert_eq!(scene.clean().await.records, left.len() as u64);
    scene.sql("DELETE FROM audit_logs WHERE number = 2").await;
    let (findings, _) = scene.verify().await;
    let found: Vec<_> = findings.iter().map(|it| (it.kind.as_str(), it.log.as_str(), it.sequence)).collect();
    assert_eq!(found, [("deleted", "audit_logs", 2)]);
}

/// Makes all administrative records that much older, chained and signed again.
async fn age_records(scene: &Scene, days: i64) {
    let mut sql = scene.admin.running.sql().await;
    let records = crate::store::evidence::rows::records(&mut sql, (0, Uuid::nil()), 100).await.unwrap();
    let mut previous = crate::evidence::canon::START.to_vec();
    for mut kept in records {
        let was = kept.occurred_at;
        kept.occurred_at -= chrono::Duration::days(days);
        kept.previous_hash = Some(previous);
        let hash = kept.record(kept.number.unwrap()).hash();
        let signature = scene.admin.running.core.store.signer().sign(&hash);
        let query = "UPDATE audit_logs SET occurred_at = $3, previous_hash = $4, hash = $5, signature = $6 WHERE occurred_at = $1 AND id = $2";
        let query = sqlx::query(query).bind(was).bind(kept.id).bind(kept.occurred_at).bind(kept.previous_hash);
        query.bind(hash.as_slice()).bind(signature.bytes).execute(&mut sql).await.unwrap();
        previous = hash.to_vec();
    }
    sqlx::query("UPDATE audit_chain SET hash = $1").bind(&previous).execute(&mut sql).await.unwrap();
}

/// Seals that only cover what nobody keeps go too; where a lane begins then is signed.
#[tokio::test]
async fn seals_go_when_all_that_they_cover_is_too_old() {
    let scene = Scene::start().await;
    let ancient: Vec<Call> = (0..3).map(|n| Call { at: at() - (200 - n) * DAY, ..Call::of(scene.acme) }).collect();
    let young = Call::of(scene.acme);
    let events = ancient.iter().chain([&young]).flat_map(|call| [call.decided(), call.ended()]).collect();
    scene.ship(events, 2).await;
    scene.checkpoint().await;
    // The seals are as old as the rows; what is signed says otherwise, so they are made again, by whoever has the key.
    let store = scene.admin.running.core.store.clone();
    age(&scene, 150).await;
    clean(store.clone(), Metrics::default()).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM log_seals").fetch_one(&mut scene.admin.running.sql().await).await.unwrap();
    assert_eq!(left, 1);
    let summary = scene.clean().await;
    assert_eq!((summary.rows, summary.seals), (1, 1), "{summary:?}");
    scene.sql("UPDATE log_seal_floors SET ordinal = ordinal - 1").await;
    let (findings, _) = scene.verify().await;
    assert!(findings.iter().any(|it| it.kind == "deleted" && it.log == "log_seals"), "{findings:#?}");
}

/// Makes all seals but the last that much older, chained and signed again; checkpoints go.
async fn age(scene: &Scene, days: i64) {
    let mut sql = scene.admin.running.sql().await;
    let first = (crate::store::ingest::LaneId { node_id: Uuid::nil(), boot_id: Uuid::nil(), lane: i32::MIN }, 0);
    let period = (chrono::DateTime::UNIX_EPOCH, chrono::Utc::now() + chrono::Duration::days(1));
    let seals = crate::store::evidence::seals(&mut sql, first, period, 100).await.unwrap();
    let (count, mut previous) = (seals.len(), crate::evidence::canon::START.to_vec());
    for (place, seal) in seals.into_iter().enumerate() {
        let mut header = seal.header;
        if place + 1 < count {
            header.sealed_at -= chrono::Duration::days(days);
        }
        header.previous_hash = previous;
        let hash = header.hash();
        let signature = scene.admin.running.core.store.signer().sign(&hash);
        let query = "UPDATE log_seals SET sealed_at = $2, previous_hash = $3, hash = $4, signature = $5 WHERE number = $1";
        let query = sqlx::query(query).bind(header.number).bind(header.sealed_at).bind(&header.previous_hash);
        query.bind(hash.as_slice()).bind(signature.bytes).execute(&mut sql).await.unwrap();
        previous = hash.to_vec();
    }
    let query = "UPDATE ship_cursor SET seal_hash = $1";
    sqlx::query(query).bind(&previous).execute(&mut sql).await.unwrap();
    sqlx::raw_sql("DELETE FROM log_checkpoints").execute(&mut sql).await.unwrap();
}
