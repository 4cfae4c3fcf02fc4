//! SIGKILL under load, again and again: every request id that a client received has exactly one record, and whose answer came whole has its end.

use std::collections::BTreeSet;

use mcpgw_controlplane::testing::{self, Postgres};

use super::traffic::Traffic;
use super::{Scene, records};

/// How often the node is killed.
const KILLS: usize = 20;
/// Whole answers of each life of the node, at least.
const ANSWERS: usize = 25;

/// Kills the node in mid-stream, and lets `also` do its own after each time.
async fn kill_again_and_again(scene: &mut Scene, traffic: &mut Traffic, mut also: impl FnMut(usize)) {
    for life in 1..=KILLS {
        let before = traffic.whole.len();
        // In mid-stream, and after enough calls that some have been shipped and some not.
        traffic.until(|traffic| traffic.whole.len() >= before + ANSWERS && !traffic.streaming.is_empty()).await;
        scene.node.kill().await.unwrap();
        also(life);
        scene.node.again().await.unwrap();
    }
}

/// Nothing that a client received is missing, and nothing is there twice. What was counted.
async fn check(scene: &Scene, traffic: Traffic) -> String {
    let traffic = traffic.stop().await;
    scene.shipped().await;
    let records = records(&scene.config()).await;
    let missing = |ids: &BTreeSet<String>| ids.iter().filter(|id| !records.contains_key(*id)).cloned().collect::<Vec<_>>();
    assert_eq!(missing(&traffic.whole), Vec::<String>::new(), "answers that came whole");
    assert_eq!(missing(&traffic.broken), Vec::<String>::new(), "answers that broke off");
    let endless: Vec<_> = traffic.whole.iter().filter(|id| !records[*id]).collect();
    assert_eq!(endless, Vec::<&String>::new(), "the end is on disk before the last byte leaves");
    assert!(traffic.broken.len() >= KILLS, "{} answers broke off: every kill met a stream", traffic.broken.len());
    format!("{} whole answers, {} broken ones, {} records", traffic.whole.len(), traffic.broken.len(), records.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_twenty_times_loses_no_record() {
    let mut scene = Scene::on(testing::config(&testing::database().await)).await;
    let mut traffic = Traffic::start(&scene.client(), 6, 6);
    kill_again_and_again(&mut scene, &mut traffic, |_| ()).await;
    println!("{}", check(&scene, traffic).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_no_control_plane_is_there_loses_no_record() {
    let mut scene = Scene::on(testing::config(&testing::database().await)).await;
    let config = scene.deprive().await;
    let mut traffic = Traffic::start(&scene.client(), 6, 6);
    kill_again_and_again(&mut scene, &mut traffic, |_| ()).await;
    scene.restore(config).await;
    println!("{}", check(&scene, traffic).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_the_database_restarts_loses_no_record() {
    let postgres = Postgres::start(); // its own: the others' must not stop
    postgres.execute("CREATE DATABASE frail").await;
    let mut config = testing::config(&postgres.url("frail"));
    config.database_acquire_seconds = 1;
    let mut scene = Scene::on(config).await;
    let mut traffic = Traffic::start(&scene.client(), 6, 6);
    kill_again_and_again(&mut scene, &mut traffic, |life| {
        // Batches are on their way: the ones before the kill, and what the last run left.
        if life % 4 == 0 {
            postgres.down();
            postgres.up();
        }
    })
    .await;
    println!("{}", check(&scene, traffic).await);
}
