//! Sessions that live in one of three nodes, before which a proxy knows no affinity: every request may come to any of them.

mod client;
mod modern;
mod proxy;
mod server;
mod world;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;
use serde_json::json;

use client::Client;
use mcpgw_tests::fleet::ORG;
use world::{MODERN, NAME, World};

use crate::streams::{Events, Socket, refused};

const SESSIONS: usize = 100;
const CALLS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sessions_call_a_hundred_times_each_through_any_node_and_every_broadcast_arrives_once() {
    let world = World::start().await.unwrap();
    let clients = join_all((0..SESSIONS).map(|number| Client::open(&world, NAME, number))).await;
    let opened_on: usize = join_all(world.nodes.iter().map(|node| node.metric("mcpgw_dataplane_sessions")))
        .await
        .into_iter()
        .map(|count| usize::try_from(count.unwrap()).unwrap())
        .inspect(|count| assert!(*count > 0, "the proxy spreads sessions over all nodes"))
        .sum();
    assert_eq!(opened_on, SESSIONS);

    let failures: usize = join_all(clients.iter().map(|client| client.calls(CALLS))).await.into_iter().sum();
    assert_eq!(failures, 0);
    assert_eq!(world.server.calls(), SESSIONS * CALLS, "each call was carried out once");

    // Whoever listens hears each announcement once, on whatever node it is.
    let listening = join_all(clients.iter().map(Client::listen)).await;
    for round in 0..3 {
        let told =
            world.broadcast(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": round}})).await;
        assert_eq!((&told["reached"], &told["unreachable"]), (&json!(SESSIONS), &json!([])), "{told}");
    }
    for mut heard in listening {
        for round in 0..3 {
            assert_eq!(heard.next().await["params"]["data"], round);
        }
    }
    let status = world.status().await;
    let sessions: HashSet<_> =
        status["sessions"].as_array().unwrap().iter().map(|session| session["session"].to_string()).collect();
    assert_eq!(sessions.len(), SESSIONS);
    let nodes: HashSet<_> = status["sessions"].as_array().unwrap().iter().map(|session| session["node"].to_string()).collect();
    assert_eq!(nodes.len(), 3);
}

/// Clients of each kind, of either server.
const OF_EACH: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_both_eras_call_servers_of_both_through_any_node_and_each_gets_its_own_answers() {
    let world = World::start().await.unwrap();
    let legacy = (0..2 * OF_EACH).map(async |number| Client::open(&world, [NAME, MODERN][number % 2], number).await);
    let legacy = join_all(legacy).await;
    let modern: Vec<_> = (0..2 * OF_EACH).map(|number| modern::Client::of(&world, [NAME, MODERN][number % 2], number)).collect();
    let failures: (Vec<usize>, Vec<usize>) = tokio::join!(
        join_all(legacy.iter().map(|client| client.calls(CALLS))),
        join_all(modern.iter().map(|client| client.calls(CALLS))),
    );
    let failures: usize = failures.0.into_iter().chain(failures.1).sum();
    println!("{} calls of both eras at servers of both, {failures} failures", 4 * OF_EACH * CALLS);
    assert_eq!(failures, 0);
    assert_eq!(world.server.calls(), 2 * OF_EACH * CALLS, "each call was carried out once");
    assert_eq!(world.modern.done(), 2 * OF_EACH * CALLS, "each call was carried out once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_goes_on_through_any_node_and_is_lost_with_its_own() {
    let mut world = World::start().await.unwrap();
    let at = |world: &World, node: usize| {
        let url = world.nodes[node].url(&format!("/o/{ORG}/servers/{NAME}/mcp"));
        modern::Client::at(url, world, node)
    };
    let retry = |asked: &serde_json::Value| {
        let answers = json!({"q1": {"action": "accept", "content": {"say": "x"}}});
        let state = &asked["result"]["requestState"];
        json!({"name": "ask", "arguments": {"say": "x"}, "requestState": state, "inputResponses": answers})
    };
    let call = json!({"name": "ask", "arguments": {"say": "x"}});
    let asked = at(&world, 0).ask(1, &call).await.unwrap();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let answered = at(&world, 1).ask(2, &retry(&asked)).await.unwrap();
    assert_eq!(answered["result"]["content"][0]["text"], "x", "{answered}");
    let again = at(&world, 2).ask(3, &retry(&asked)).await.unwrap();
    assert_eq!(again["error"]["code"], -32603, "answered once: {again}");

    let asked = at(&world, 0).ask(4, &call).await.unwrap();
    world.nodes[0].kill().await.unwrap();
    let lost = at(&world, 1).ask(5, &retry(&asked)).await.unwrap();
    assert_eq!(lost["error"]["code"], -32603, "{lost}");
    assert!(lost["error"]["message"].as_str().unwrap().contains("start over"), "{lost}");
    assert_eq!(world.server.calls(), 2, "nothing ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_takes_only_its_own_sessions_with_it_and_every_client_finishes() {
    let mut world = World::start().await.unwrap();
    let clients = join_all((0..30).map(|number| Client::open(&world, NAME, number))).await;
    let mut owned = Vec::new();
    for node in &world.nodes {
        owned.push(usize::try_from(node.metric("mcpgw_dataplane_sessions").await.unwrap()).unwrap());
    }
    let (called, killed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running: Vec<_> = Vec::new();
    for client in clients {
        let (called, killed) = (called.clone(), killed.clone());
        #[allow(clippy::disallowed_methods)] // joined below
        running.push(tokio::spawn(async move { client.finishes(40, &called, &killed).await }));
    }
    // In mid-run: once a third of all calls has been answered.
    let mut turn = tokio::time::interval(std::time::Duration::from_millis(2));
    while called.load(Relaxed) < 400 {
        turn.tick().await;
    }
    world.nodes[1].kill().await.unwrap();
    killed.store(true, Relaxed);
    let mut started_over = 0;
    for client in running {
        let outcome = client.await.unwrap();
        started_over += usize::from(outcome.started_over > 0);
        assert!(outcome.started_over <= 1, "one node died once");
        assert_eq!(outcome.answered, 40);
    }
    println!("{started_over} of 30 sessions started over; the killed node owned {}", owned[1]);
    assert_eq!(started_over, owned[1], "only those that the killed node owned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_node_opens_a_socket_at_any() {
    let world = World::start().await.unwrap();
    for node in &world.nodes {
        let path = world.ticket(&world.nodes[0]).await;
        let mut socket = Socket::with_ticket(node.address(), &path).await;
        assert_eq!(socket.call("echo", "hello").await, "hello");
        assert_eq!(refused(node.address(), &path).await, 401, "once, wherever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_streams_of_every_transport_on_every_node() {
    let world = World::start().await.unwrap();
    let key = world.key().await;
    let (mut sockets, mut streams, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for (number, node) in world.nodes.iter().enumerate() {
        let client = Client::with(&world, NAME, number, &key.secret).await;
        let heard = client.listen().await;
        sessions.push((client, heard));
        sockets.push(Socket::open(node.address(), NAME, &key.secret).await);
        streams.push(Events::open(node.address(), NAME, &key.secret).await);
    }
    world.revoke(&key).await;
    for (mut socket, events) in sockets.into_iter().zip(streams) {
        assert_eq!(socket.closed().await, 1008);
        assert_eq!(events.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await, 401, "the next message is refused");
        events.ended().await;
    }
    for (client, mut heard) in sessions {
        assert_eq!(client.calls(1).await, 1, "the next message is refused");
        while !heard.next().await.is_null() {}
    }
}
