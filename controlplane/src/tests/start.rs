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
