//! Each column of both logs, one after the other: none can be changed unnoticed.

use super::*;

/// What changes a value of a type, in SQL.
fn changed(column: &str, kind: &str) -> String {
    match kind {
        "text" => format!("{column} || 'x'"),
        "smallint" => format!("(coalesce({column}, 0) # 1)::smallint"),
        "integer" | "bigint" => format!("coalesce({column}, 0) # 1"),
        "uuid" => "'00000000-0000-7000-8000-00000000beef'".into(),
        "timestamp with time zone" => format!("coalesce({column}, now()) + interval '1 microsecond'"),
        "ARRAY" => format!("{column}[2:]"),
        "bytea" => format!("coalesce({column}, '') || '\\x01'"),
        "jsonb" => format!("{column} || '{{\"x\": 1}}'"),
        other => panic!("{column}: a new type, {other}"),
    }
}

async fn columns(scene: &Scene, table: &str) -> Vec<(String, String)> {
    let query = "SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_name = $1 ORDER BY 1";
    sqlx::query_as(query).bind(table).fetch_all(&mut scene.admin.running.sql().await).await.unwrap()
}

#[tokio::test]
async fn no_column_of_a_request_can_be_changed_unnoticed() {
    let scene = Scene::start().await;
    let calls = scene.calls(3, 2).await;
    scene.clean().await;
    scene.sql("CREATE TABLE before AS TABLE request_logs").await;
    let all = columns(&scene, "request_logs").await;
    assert!(all.len() > 45, "{all:?}");
    for (column, kind) in all {
        let id = calls[1].id;
        let value = changed(&column, &kind);
        scene.sql(&format!("UPDATE request_logs SET {column} = {value} WHERE request_id = '{id}'")).await;
        let (findings, summary) = scene.verify().await;
        assert!(!summary.clean, "{column} was changed unnoticed");
        let named = findings.iter().any(|finding| finding.row == id.to_string() && finding.log == "request_logs");
        assert!(named, "{column}: {findings:#?}");
        let others =
            findings.iter().any(|finding| finding.row == calls[0].id.to_string() || finding.row == calls[2].id.to_string());
        assert!(!others, "{column}: {findings:#?}");
        scene.sql("TRUNCATE request_logs; INSERT INTO request_logs SELECT * FROM before").await;
    }
    scene.clean().await;
}

#[tokio::test]
async fn no_column_of_an_administrative_record_can_be_changed_unnoticed() {
    let mut scene = Scene::start().await;
    let acme = scene.admin.member(scene.acme, Role::Admin).await;
    for id in ["one", "two", "three"] {
        super::super::logs::server(&acme, id).await;
    }
    scene.clean().await;
    scene.sql("CREATE TABLE before AS TABLE audit_logs").await;
    let query = "SELECT id::text FROM audit_logs WHERE resource LIKE '%two'";
    let id: String = sqlx::query_scalar(query).fetch_one(&mut scene.admin.running.sql().await).await.unwrap();
    for (column, kind) in columns(&scene, "audit_logs").await {
        let value = match column.as_str() {
            "outcome" => "'denied'".into(), // a constraint knows the others
            _ => changed(&column, &kind),
        };
        scene.sql(&format!("UPDATE audit_logs SET {column} = {value} WHERE id = '{id}'")).await;
        let (findings, summary) = scene.verify().await;
        assert!(!summary.clean, "{column} was changed unnoticed");
        assert!(findings.iter().all(|finding| finding.log == "audit_logs"), "{column}: {findings:#?}");
        scene.sql("TRUNCATE audit_logs; INSERT INTO audit_logs SELECT * FROM before").await;
    }
    scene.clean().await;
}
