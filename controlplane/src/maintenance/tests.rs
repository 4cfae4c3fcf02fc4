use super::*;
use crate::testing::{config, database};

async fn store() -> Store {
    Store::new(&config(&database().await)).unwrap()
}

async fn run(store: &Store, sql: &'static str) {
    sqlx::raw_sql(sql).execute(store.pool()).await.unwrap();
}

async fn text(store: &Store, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(store.pool()).await.unwrap()
}

const PARTITIONS: &str = "SELECT coalesce(string_agg(c.relname::text, ' ' ORDER BY c.relname), '') FROM pg_inherits i \
    JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'request_logs'::regclass AND c.relname <> 'request_logs_default'";

#[tokio::test]
async fn there_is_a_partition_for_each_of_the_next_days() {
    let store = store().await;
    run(
        &store,
        "DO $$ DECLARE p record; BEGIN FOR p IN SELECT i.inhrelid::regclass AS t FROM pg_inherits i \
        WHERE i.inhrelid::regclass::text ~ '[0-9]{8}$' LOOP EXECUTE 'DROP TABLE ' || p.t; END LOOP; END $$",
    )
    .await;
    clean(store.clone(), Metrics::default()).await.unwrap();
    clean(store.clone(), Metrics::default()).await.unwrap();
    assert_eq!(text(&store, PARTITIONS).await.split(' ').count(), 8);
    let tomorrow = "SELECT count(*)::text FROM pg_class WHERE relname = 'audit_logs_' || to_char((now() AT TIME ZONE 'UTC')::date + 7, 'YYYYMMDD')";
    assert_eq!(text(&store, tomorrow).await, "1");
}

#[tokio::test]
async fn each_organisation_keeps_its_logs_as_long_as_it_says() {
    let store = store().await;
    run(
        &store,
        "INSERT INTO organizations (id, slug, request_log_retention_days) VALUES \
        ('00000000-0000-0000-0000-000000000001', 'brief', 3), ('00000000-0000-0000-0000-000000000002', 'long', 200); \
        SELECT create_log_partitions((now() AT TIME ZONE 'UTC')::date - 203, (now() AT TIME ZONE 'UTC')::date - 190); \
        INSERT INTO request_logs (request_id, decided_at, node_id, boot_id, lane, seq, class, org_id, decision) \
        SELECT gen_random_uuid(), now() - make_interval(days => age), gen_random_uuid(), gen_random_uuid(), 0, 1, 1, org, 1 \
        FROM (VALUES (2, '00000000-0000-0000-0000-000000000001'::uuid), (4, '00000000-0000-0000-0000-000000000001'), \
        (195, '00000000-0000-0000-0000-000000000002'), (201, '00000000-0000-0000-0000-000000000002'), (5, NULL)) AS r (age, org)",
    )
    .await;
    clean(store.clone(), Metrics::default()).await.unwrap();
    let left = "SELECT string_agg((now()::date - decided_at::date)::text, ' ' ORDER BY decided_at DESC) FROM request_logs";
    assert_eq!(text(&store, left).await, "2 5 195");
    let oldest = text(&store, PARTITIONS).await;
    let kept = "SELECT 'request_logs_' || to_char((now() AT TIME ZONE 'UTC')::date - 201, 'YYYYMMDD')";
    assert_eq!(oldest.split(' ').next().unwrap(), text(&store, kept).await);
}

#[tokio::test]
async fn what_expired_is_deleted_and_the_rest_stays() {
    let store = store().await;
    run(
        &store,
        "INSERT INTO users (id, email, password_hash) VALUES ('00000000-0000-0000-0000-000000000001', 'u', ''); \
        INSERT INTO sessions (id, user_id, refresh_sha256, expires_at) SELECT gen_random_uuid(), \
        '00000000-0000-0000-0000-000000000001', '', now() + make_interval(hours => h) FROM unnest(ARRAY[1, -1, -25]) AS h; \
        INSERT INTO idempotent_answers (actor, method, request_id, request_sha256, answer, created_at) SELECT 'a', 'm', \
        gen_random_uuid(), '', '', now() - make_interval(hours => h) FROM unnest(ARRAY[1, 25]) AS h; \
        INSERT INTO join_tokens (id, secret_sha256, pool, expires_at) SELECT d::text, '', 'p', now() - make_interval(days => d) \
        FROM unnest(ARRAY[1, 31]) AS d",
    )
    .await;
    clean(store.clone(), Metrics::default()).await.unwrap();
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM sessions), (SELECT count(*) FROM idempotent_answers), \
        (SELECT count(*) FROM join_tokens))";
    assert_eq!(text(&store, counts).await, "2 1 1");
}

#[tokio::test]
async fn one_replica_at_a_time_keeps_house() {
    let store = store().await;
    let leader = store.lead_maintenance().await.unwrap().unwrap();
    assert!(store.lead_maintenance().await.unwrap().is_none());
    drop(leader);
    // The server notices the closed connection in its own time.
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while store.lead_maintenance().await.unwrap().is_none() {
        ticks.tick().await;
    }
}

#[tokio::test]
async fn streams_of_a_replica_that_died_are_forgotten() {
    let store = store().await;
    run(
        &store,
        "INSERT INTO nodes (id, pool, spki_sha256, hpke_public_key, certificate_expires_at) SELECT \
        ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'p', '', '', now() FROM generate_series(1, 2) AS n; \
        INSERT INTO node_status (node_id, connected, last_seen_at) VALUES \
        ('00000000-0000-0000-0000-000000000001', true, now() - interval '46 s'), \
        ('00000000-0000-0000-0000-000000000002', true, now() - interval '30 s')",
    )
    .await;
    sweep(store.clone(), Arc::default()).await.unwrap();
    assert_eq!(text(&store, "SELECT string_agg(connected::text, ' ' ORDER BY node_id) FROM node_status").await, "false true");
}

#[tokio::test]
async fn payloads_are_kept_as_long_as_their_organisation_says_and_no_longer_than_it() {
    let store = store().await;
    run(
        &store,
        "INSERT INTO organizations (id, slug, capture_retention_days) VALUES \
        ('00000000-0000-0000-0000-000000000001', 'brief', 1), ('00000000-0000-0000-0000-000000000002', 'default', 0); \
        INSERT INTO captured_payloads (request_id, decided_at, kind, org_id, text, bytes, cut, redactions, captured_at) \
        SELECT gen_random_uuid(), now(), 1, org, '', 0, false, 0, now() - make_interval(hours => age) FROM (VALUES \
        (23, '00000000-0000-0000-0000-000000000001'::uuid), (25, '00000000-0000-0000-0000-000000000001'), \
        (167, '00000000-0000-0000-0000-000000000002'), (169, '00000000-0000-0000-0000-000000000002'), \
        (1, '00000000-0000-0000-0000-000000000003')) AS r (age, org)",
    )
    .await;
    clean(store.clone(), Metrics::default()).await.unwrap();
    let left = "SELECT string_agg((extract(epoch FROM now() - captured_at)::int / 3600)::text, ' ' ORDER BY captured_at DESC) FROM captured_payloads";
    assert_eq!(text(&store, left).await, "23 167");
}
