//! Starting: with a database, without one, with the wrong master key.

use crate::testing::{Postgres, Running, config, database};

#[tokio::test]
async fn it_opens_and_is_ready_and_stops_when_told() {
    let running = Running::start().await;
    assert!(running.core.is_open());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn with_another_master_key_it_refuses_to_start_and_names_the_key() {
    let url = database().await;
    Running::with(config(&url)).await.stop().await.unwrap();
    let mut other = config(&url);
    other.master_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    let (running, opened) = Running::unopened(other).await;
    let error = opened.wait().await.unwrap_err().to_string();
    assert!(error.contains("master key"), "{error}");
    assert!(running.ended().await.is_err());
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_waited_for() {
    let postgres = Postgres::start();
    postgres.execute("CREATE DATABASE later").await;
    postgres.down();
    let (running, opened) = Running::unopened(config(&postgres.url("later"))).await;
    let mut opening = running.core.opened.clone();
    opening.wait_for(|o| matches!(o, crate::app::Opening::Waiting(Some(_)))).await.unwrap();
    postgres.up();
    opened.wait().await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn replicas_that_start_together_create_one_owner_and_share_their_keys() {
    let url = database().await;
    let (a, b) = tokio::join!(Running::with(config(&url)), Running::with(config(&url)));
    assert_eq!([&a, &b].iter().filter(|running| running.owner.is_some()).count(), 1);
    let ids = |running: &Running| {
        let keys = running.core.custody.keys().unwrap();
        [keys.jwt.current().id.clone(), keys.manifest.current().id.clone(), keys.node_ca.current().id.clone()]
    };
    assert_eq!(ids(&a), ids(&b));
    let token = a.owner().await.tokens.access_token;
    let issuer = &b.core.config.issuer;
    assert!(b.core.custody.check_token(&token, issuer, crate::keys::token::ADMIN_AUDIENCE).unwrap().is_some());
}

#[tokio::test]
async fn no_key_lies_in_the_database_as_it_is() {
    let running = Running::start().await;
    let keys = running.core.custody.keys().unwrap();
    let plain = keys.session.iter().chain(keys.credential.iter()).map(|key| key.material.as_bytes().to_vec());
    let secrets: Vec<Vec<u8>> = plain.chain(keys.pools["default"].iter().map(|key| key.material.as_bytes().to_vec())).collect();
    assert_eq!(secrets.len(), 6, "a current and a next one each");
    let mut sql = running.sql().await;
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT purpose, wrapped, public FROM keys").fetch_all(&mut sql).await.unwrap();
    let mut purposes: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    purposes.sort_unstable();
    purposes.dedup();
    assert_eq!(purposes, ["credential", "jwt", "manifest", "node_ca", "pool/default", "session"]);
    let shows = |stored: &[u8], secret: &[u8]| stored.windows(secret.len()).any(|window| window == secret);
    assert!(rows.iter().all(|(_, wrapped, public)| !secrets.iter().any(|s| shows(wrapped, s) || shows(public, s))));
}
