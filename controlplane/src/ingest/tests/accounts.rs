//! Rollups, groups of errors and the order of arrival, fed by real streams: what they say is what the rows say, in whatever order frames
//! arrive and however often.

use super::*;

const ORG: Uuid = Uuid::from_u128(77);

/// Now, the same for a whole test process: what is long ago is not kept.
fn at() -> i64 {
    static AT: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| chrono::Utc::now().timestamp_micros());
    *AT
}

fn begin(n: u128, name: &str) -> Event {
    let Event::Decided(decided) = decided(n) else { unreachable!() };
    let id = ORG.to_string();
    Event::Decided(Decided {
        decided_at_us: at(),
        name: name.into(),
        org_id: id.clone(),
        server_id: id,
        server: "github".into(),
        ..decided
    })
}

fn end(n: u128, outcome: i32, error_code: i32, error_shape: u64) -> Event {
    let Event::Ended(ended) = ended(n) else { unreachable!() };
    Event::Ended(Ended {
        decided_at_us: at(),
        ended_at_us: at() + 1000,
        outcome,
        error_code,
        error_shape,
        total_us: 1000,
        response_bytes: 5,
        ..ended
    })
}

/// Calls by target and outcome, as the rollups have them and as the rows do.
async fn counts(running: &Running) -> [Vec<(String, i16, i64)>; 2] {
    let sql = &mut running.sql().await;
    let rolled =
        "SELECT target, outcome, sum(calls)::bigint FROM rollup_minutes GROUP BY 1, 2 HAVING sum(calls) <> 0 ORDER BY 1, 2";
    let rows = "SELECT target, coalesce(outcome, 0::smallint), count(*) FROM request_logs \
                WHERE decision <> 0 AND (outcome IS NOT NULL OR interrupted_at IS NOT NULL) GROUP BY 1, 2 ORDER BY 1, 2";
    [sqlx::query_as(rolled).fetch_all(&mut *sql).await.unwrap(), sqlx::query_as(rows).fetch_all(sql).await.unwrap()]
}

#[tokio::test]
async fn each_call_is_counted_once_in_whatever_order_its_frames_arrive() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let boot = Uuid::now_v7();
    let (mut one, mut two) = (Lane::new(boot, 0), Lane::new(boot, 1));
    for n in 1..=4 {
        one.push(begin(n, "search"));
        one.push(end(n, 1, 0, 0));
    }
    one.push(begin(5, "search")); // its end is on the other lane, before it
    two.push(end(5, 1, 0, 0));
    two.push(begin(6, "search")); // its end is on the other lane, after it
    one.push(end(6, 3, -32000, 9));
    two.push(begin(7, "search")); // has no end
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(two.batch(0..1)).await, Ok(1));
    assert_eq!(shipping.ship(one.batch(0..3)).await, Ok(3));
    assert_eq!(shipping.ship(one.batch(0..9)).await, Ok(9), "again, and more");
    assert_eq!(shipping.ship(two.batch(0..3)).await, Ok(3));
    assert_eq!(shipping.ship(one.batch(0..10)).await, Ok(10));
    assert_eq!(shipping.ship(one.batch(0..10)).await, Ok(10));
    let [rolled, rows] = counts(&running).await;
    assert_eq!(rolled, rows);
    assert_eq!(rolled, [("search".to_owned(), 1, 5), ("search".to_owned(), 3, 1)]);
    let sums: (i64, i64, i64) = sqlx::query_as(
        "SELECT sum(total_us)::bigint, sum(response_bytes)::bigint, sum((SELECT sum(b) FROM unnest(buckets) b))::bigint FROM rollup_minutes",
    )
    .fetch_one(&mut running.sql().await)
    .await
    .unwrap();
    assert_eq!(sums, (6000, 30, 6));

    // Each complete row arrived in exactly one batch, and the open ones were begun in one.
    let arrived = "SELECT count(*), count(DISTINCT id) FROM log_arrivals, unnest(done_ids) AS id";
    let arrived: (i64, i64) = sqlx::query_as(arrived).fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(arrived, (6, 6));
    let open: Vec<Uuid> = sqlx::query_scalar("SELECT DISTINCT id FROM log_arrivals, unnest(open_ids) AS id ORDER BY 1")
        .fetch_all(&mut running.sql().await)
        .await
        .unwrap();
    assert!(open.contains(&Uuid::from_u128(7)) && !open.contains(&Uuid::from_u128(5)), "{open:?}");
    let group: (i64, i32, i64, String) =
        sqlx::query_as("SELECT calls, code, shape, target FROM error_groups").fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(group, (1, -32000, 9, "search".to_owned()));
}

#[tokio::test]
async fn calls_of_a_run_that_is_over_count_as_interrupted_until_they_end_after_all() {
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let (old, new) = (Uuid::now_v7(), Uuid::now_v7());
    let (mut before, mut after) = (Lane::new(old, 0), Lane::new(new, 0));
    before.push(begin(1, "search"));
    before.push(begin(2, "search"));
    before.push(end(1, 1, 0, 0));
    after.push(begin(3, "search"));
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(before.batch(0..2)).await, Ok(2));
    assert_eq!(shipping.ship(after.batch(0..1)).await, Ok(1));
    let (store, names) = (&running.core.store, &running.core.names);
    let status = "INSERT INTO node_status (node_id, last_seen_at) VALUES ($1, now()) ON CONFLICT (node_id) DO UPDATE SET last_seen_at = now()";
    sqlx::query(status).bind(joined.id()).execute(&mut running.sql().await).await.unwrap();
    assert_eq!(store.interrupt_lost_calls(names).await.unwrap(), 0, "its last frames may be on their way");
    let quiet = "UPDATE ship_cursor SET updated_at = now() - interval '61 s'";
    sqlx::query(quiet).execute(&mut running.sql().await).await.unwrap();
    assert_eq!(store.interrupt_lost_calls(names).await.unwrap(), 2, "not those of the newest run");
    assert_eq!(store.interrupt_lost_calls(names).await.unwrap(), 0);
    let [rolled, _] = counts(&running).await;
    assert_eq!(rolled, [("other".to_owned(), 0, 2)]);
    assert_eq!(shipping.ship(before.batch(2..3)).await, Ok(3));
    let calls: Vec<(i16, i64)> = sqlx::query_as("SELECT outcome, sum(calls)::bigint FROM rollup_minutes GROUP BY 1 ORDER BY 1")
        .fetch_all(&mut running.sql().await)
        .await
        .unwrap();
    assert_eq!(calls, [(0, 1), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_count_the_same_at_once_wait_for_each_other_and_lose_nothing() {
    const LANES: u32 = 6;
    const CALLS: u128 = 300;
    let running = Running::start().await;
    let joined = Joined::to(&running, "default").await;
    let boot = Uuid::now_v7();
    let ships = (0..LANES).map(|lane| {
        let joined = &joined;
        async move {
            let mut frames = Lane::new(boot, lane);
            for n in 0..CALLS {
                let id = u128::from(lane) * CALLS + n + 1;
                frames.push(begin(id, ["a", "b", "c"][usize::try_from(n % 3).unwrap()]));
                frames.push(end(id, if n % 5 == 0 { 3 } else { 1 }, -1, 4));
            }
            let mut shipping = Shipping::of(joined).await;
            for start in (0..frames.frames.len()).step_by(20) {
                shipping.ship(frames.batch(start..start + 20)).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(ships).await;
    let [rolled, rows] = counts(&running).await;
    assert_eq!(rolled, rows);
    let errors: i64 =
        sqlx::query_scalar("SELECT sum(calls)::bigint FROM error_groups").fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(errors, i64::from(LANES) * 60);
}
