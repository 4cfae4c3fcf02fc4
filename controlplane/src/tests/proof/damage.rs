//! Everything that somebody with the database's password could try, one after the other.

use super::*;

/// Everything that damage is done to.
const TABLES: [&str; 7] =
    ["request_logs", "audit_logs", "log_seals", "log_checkpoints", "ship_cursor", "audit_chain", "log_purges"];

/// What is done, and a finding that must be among those made: kind, log, and the row if one is meant.
struct Case {
    name: &'static str,
    sql: String,
    kind: &'static str,
    log: &'static str,
    row: Option<Uuid>,
}

fn case(name: &'static str, sql: impl Into<String>, kind: &'static str, log: &'static str) -> Case {
    Case { name, sql: sql.into(), kind, log, row: None }
}

impl Case {
    fn of(self, row: Uuid) -> Self {
        Self { row: Some(row), ..self }
    }
}

/// A scene with three calls in six seals, two checkpoints, and administrative records.
async fn scene() -> (Scene, Vec<Call>) {
    let mut scene = Scene::start().await;
    let acme = scene.admin.member(scene.acme, Role::Admin).await;
    super::super::logs::server(&acme, "one").await;
    let calls = scene.calls(3, 1).await;
    scene.checkpoint().await;
    super::super::logs::server(&acme, "two").await;
    scene.calls(2, 4).await;
    scene.checkpoint().await;
    scene.calls(1, 2).await;
    super::super::logs::server(&acme, "three").await;
    scene.checkpoint().await;
    (scene, calls)
}

fn of_rows(calls: &[Call]) -> Vec<Case> {
    const LOG: &str = "request_logs";
    let [a, b] = [calls[0].id, calls[1].id];
    let row = |id: Uuid| format!("request_logs WHERE request_id = '{id}'");
    let insert = "INSERT INTO request_logs (request_id, decided_at, node_id, boot_id, lane, seq, class, org_id, decision, decided_seal) \
                  SELECT '00000000-0000-7000-8000-00000000f000', decided_at, node_id, boot_id, lane, seq, class, org_id, decision";
    let forged = Uuid::try_parse("00000000-0000-7000-8000-00000000f000").unwrap();
    let blank = "outcome = NULL, ended_at = NULL, status = 0, error_code = 0, upstream = '', stage_us = '{}', ended_seal = NULL";
    vec![
        case("edited decision", format!("UPDATE request_logs SET decision = 2 WHERE request_id = '{b}'"), "edited", LOG).of(b),
        case("edited end", format!("UPDATE request_logs SET status = 500 WHERE request_id = '{b}'"), "edited", LOG).of(b),
        case("deleted row", format!("DELETE FROM {}", row(b)), "deleted", LOG).of(b),
        case("deleted first row", format!("DELETE FROM {}", row(a)), "deleted", LOG).of(a),
        case("all rows deleted", "DELETE FROM request_logs", "deleted", LOG).of(a),
        case("erased end", format!("UPDATE request_logs SET {blank} WHERE request_id = '{b}'"), "deleted", LOG).of(b),
        case("erased decision", format!("UPDATE request_logs SET decision = 0 WHERE request_id = '{b}'"), "deleted", LOG).of(b),
        case(
            "swapped order",
            format!(
                "UPDATE request_logs SET seq = CASE request_id WHEN '{a}' THEN 3 ELSE 1 END WHERE request_id IN ('{a}', '{b}')"
            ),
            "reordered",
            LOG,
        )
        .of(a),
        case(
            "moved in time",
            format!("UPDATE request_logs SET decided_at = decided_at - interval '1 s' WHERE request_id = '{b}'"),
            "deleted",
            LOG,
        )
        .of(b),
        case("forged row without a seal", format!("{insert}, NULL FROM {}", row(a)), "forged", LOG).of(forged),
        case("forged row that names a seal", format!("{insert}, decided_seal FROM {}", row(a)), "forged", LOG).of(forged),
        case(
            "forged interruption",
            format!("UPDATE request_logs SET interrupted_at = now() WHERE request_id = '{b}'"),
            "forged",
            LOG,
        )
        .of(b),
    ]
}

fn of_evidence() -> Vec<Case> {
    let last = "(node_id, boot_id, lane, ordinal) = (SELECT node_id, boot_id, lane, ordinal FROM log_seals ORDER BY number DESC LIMIT 1)";
    let cut = "DELETE FROM request_logs WHERE decided_seal = (SELECT max(number) FROM log_seals)";
    let back = "UPDATE ship_cursor c SET sealed = sealed - 1, last_seq = 0 WHERE (c.node_id, c.boot_id, c.lane) = \
                (SELECT s.node_id, s.boot_id, s.lane FROM log_seals s ORDER BY number DESC LIMIT 1)";
    vec![
        case("edited seal", "UPDATE log_seals SET last_seq = last_seq + 1 WHERE ordinal = 2", "edited", "log_seals"),
        case(
            "edited entries",
            "UPDATE log_seals SET entries = set_byte(entries, 60, 7) WHERE ordinal = 2",
            "edited",
            "log_seals",
        ),
        case(
            "seal signed by nobody",
            "UPDATE log_seals SET key_id = '', signature = '' WHERE ordinal = 5",
            "unsigned",
            "log_seals",
        ),
        case(
            "seal with another's signature",
            "UPDATE log_seals SET signature = set_byte(signature, 0, 1 # get_byte(signature, 0)) WHERE ordinal = 3",
            "bad_signature",
            "log_seals",
        ),
        case("seal of a strange key", "UPDATE log_seals SET key_id = 'strange' WHERE ordinal = 3", "bad_signature", "log_seals"),
        case("removed seal", "DELETE FROM log_seals WHERE ordinal = 3", "deleted", "log_seals"),
        case(
            "removed first seals",
            "DELETE FROM log_seals WHERE ordinal <= 2 AND (SELECT count(*) FROM log_seals) > 0",
            "deleted",
            "log_seals",
        ),
        case("removed last seal", format!("DELETE FROM log_seals WHERE {last}"), "truncated", "log_seals"),
        case("cut end of a lane", format!("{cut}; {back}; DELETE FROM log_seals WHERE {last}"), "truncated", "log_seals"),
        case(
            "removed lane",
            "DELETE FROM request_logs; DELETE FROM ship_cursor; DELETE FROM log_seals",
            "truncated",
            "log_seals",
        ),
        case("removed cursors", "DELETE FROM ship_cursor", "forged", "log_seals"),
        case("removed checkpoint", "DELETE FROM log_checkpoints WHERE number = 2", "deleted", "log_checkpoints"),
        case("removed first checkpoint", "DELETE FROM log_checkpoints WHERE number = 1", "deleted", "log_checkpoints"),
        case("edited checkpoint", "UPDATE log_checkpoints SET seals = seals + 1 WHERE number = 2", "edited", "log_checkpoints"),
        case("lanes of a checkpoint", "UPDATE log_checkpoints SET lanes = '' WHERE number = 2", "edited", "log_checkpoints"),
        case("forgotten lanes", "UPDATE log_checkpoints SET lanes = NULL WHERE number = 2", "deleted", "log_checkpoints"),
        case(
            "signature of a checkpoint",
            "UPDATE log_checkpoints SET signature = set_byte(signature, 9, 1 # get_byte(signature, 9)) WHERE number = 3",
            "bad_signature",
            "log_checkpoints",
        ),
        case(
            "unsigned checkpoint",
            "UPDATE log_checkpoints SET key_id = '', signature = '' WHERE number = 3",
            "unsigned",
            "log_checkpoints",
        ),
        case(
            "expiry that nobody ordered",
            "INSERT INTO log_purges (id, purged_at, log, orgs, before, days, counts, numbers, hash, key_id, signature) VALUES \
             (gen_random_uuid(), now(), 'request_logs', '{00000000-0000-0000-0000-000000000000}', ARRAY[now()], '{90}', '{1}', '{}', '', '', ''); \
             DELETE FROM request_logs",
            "deleted",
            "request_logs",
        ),
    ]
}

fn of_records() -> Vec<Case> {
    const LOG: &str = "audit_logs";
    let middle = "number = (SELECT max(number) - 1 FROM audit_logs)";
    let last = "number = (SELECT max(number) FROM audit_logs)";
    let copied = "INSERT INTO audit_logs (id, actor, action, outcome, number, previous_hash, hash, key_id, signature) SELECT \
                  gen_random_uuid(), actor, 'forged', outcome";
    vec![
        case("edited record", format!("UPDATE audit_logs SET actor = 'somebody else' WHERE {middle}"), "edited", LOG),
        case("edited detail", format!("UPDATE audit_logs SET detail = '{{\"a\": 1}}' WHERE {middle}"), "edited", LOG),
        case("deleted record", format!("DELETE FROM audit_logs WHERE {middle}"), "deleted", LOG),
        case("deleted last record", format!("DELETE FROM audit_logs WHERE {last}"), "truncated", LOG),
        case(
            "cut chain",
            format!(
                "DELETE FROM audit_logs WHERE {last}; UPDATE audit_chain SET (number, hash) = \
                 (SELECT number, hash FROM audit_logs WHERE number IS NOT NULL ORDER BY number DESC LIMIT 1)"
            ),
            "truncated",
            LOG,
        ),
        case("forged record", format!("{copied}, NULL, NULL, NULL, NULL, NULL FROM audit_logs WHERE {last}"), "forged", LOG),
        case(
            "forged record with a number",
            format!("{copied}, number, previous_hash, hash, key_id, signature FROM audit_logs WHERE {last}"),
            "forged",
            LOG,
        ),
        case(
            "swapped records",
            "UPDATE audit_logs SET number = CASE number WHEN 1 THEN 2 ELSE 1 END WHERE number IN (1, 2)",
            "edited",
            LOG,
        ),
        case("unsigned record", format!("UPDATE audit_logs SET key_id = '', signature = '' WHERE {last}"), "unsigned", LOG),
    ]
}

#[tokio::test]
async fn whatever_is_done_to_the_logs_is_found_and_named() {
    let (scene, calls) = scene().await;
    scene.clean().await;
    for table in TABLES {
        scene.sql(&format!("CREATE TABLE before_{table} AS TABLE {table}")).await;
    }
    for case in of_rows(&calls).into_iter().chain(of_evidence()).chain(of_records()) {
        let Case { name, sql, kind, log, row } = case;
        scene.sql(&sql).await;
        let (findings, summary) = scene.verify().await;
        let fits = |finding: &&LogFinding| {
            let names = row.is_none_or(|row| finding.row == row.to_string());
            finding.kind == kind && finding.log == log && names
        };
        assert!(findings.iter().any(|finding| fits(&finding)), "{name}: {findings:#?}");
        assert!(!summary.clean && summary.findings[kind] > 0, "{name}: {summary:?}");
        for table in TABLES {
            scene.sql(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM before_{table}")).await;
        }
    }
    scene.clean().await;
}

/// Who knows the algorithm but not the key can recompute every hash; what is signed is still not what it was.
#[tokio::test]
async fn hashes_that_were_made_again_do_not_fit_their_signatures() {
    let (scene, calls) = scene().await;
    let mut sql = scene.admin.running.sql().await;
    let first = (crate::store::ingest::LaneId { node_id: Uuid::nil(), boot_id: Uuid::nil(), lane: i32::MIN }, 0);
    let period = (chrono::DateTime::UNIX_EPOCH, chrono::Utc::now() + chrono::Duration::days(1));
    let seals = crate::store::evidence::seals(&mut sql, first, period, 100).await.unwrap();
    let seal = seals.iter().find(|seal| seal.header.ordinal == 6).unwrap();
    let mut header = seal.header.clone();
    header.chain_hash = vec![7; 32];
    let query = "UPDATE log_seals SET chain_hash = $2, hash = $3 WHERE number = $1";
    sqlx::query(query)
        .bind(header.number)
        .bind(&header.chain_hash)
        .bind(header.hash().as_slice())
        .execute(&mut sql)
        .await
        .unwrap();
    let (findings, _) = scene.verify().await;
    assert!(
        findings.iter().any(|it| it.kind == "bad_signature" && it.node == format!("nodes/{}", header.lane.node_id)),
        "{findings:#?}"
    );
    assert!(findings.iter().any(|it| it.message.contains("not the one that a checkpoint covers")), "{findings:#?}");
    drop(calls);
}

/// Only the first of each kind in each lane is shown unless all are asked for; all are counted.
#[tokio::test]
async fn the_first_bad_row_of_a_lane_is_shown_and_all_are_counted() {
    let (scene, calls) = scene().await;
    scene.sql("UPDATE request_logs SET subject = 'x'").await;
    let (findings, summary) = verify(&scene.platform, VerifyLogsRequest::default()).await;
    assert_eq!((findings.len(), summary.findings["edited"]), (3, 6), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.row == calls[0].id.to_string() && finding.sequence == 1), "{findings:#?}");
}
