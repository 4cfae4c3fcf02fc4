//! What was in force is freed by the thread that is there for it, whoever held it last.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use mcp_gateway::snapshot::Snapshot;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::scope::{ACME, ENGINEER, GITHUB, RIVAL, Scope, bearer};
use super::world::{Gateway, Upstream};
use crate::live::Live;

const RECLAIMER: &str = "snapshot-reclaim";

/// Memory of an organisation that tells on which thread it is freed.
struct Probe {
    org: String,
    body: Vec<u8>,
    freed: Sender<(String, String)>,
}

impl AsRef<[u8]> for Probe {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let _the_test_may_be_over = self.freed.send((self.org.clone(), thread));
    }
}

/// A snapshot, and who frees its organisations.
fn probed(scope: &Scope) -> (Arc<Snapshot>, Receiver<(String, String)>) {
    let (freed, heard) = channel();
    let probe = |org: &str, body| Bytes::from_owner(Probe { org: org.to_owned(), body, freed: freed.clone() });
    (Arc::new(scope.compile_after(None, probe)), heard)
}

/// The same with every organisation changed.
fn changed(mut scope: Scope) -> Scope {
    scope.version += 1;
    for org in &mut scope.orgs {
        org.organization.as_mut().unwrap().display_name.push('x');
    }
    scope
}

fn freed(heard: &Receiver<(String, String)>) -> (String, String) {
    heard.recv_timeout(Duration::from_secs(30)).expect("it is freed")
}

/// A server whose every answer is written by the test: an event stream to who listens, else JSON.
async fn dictated() -> (Upstream, UnboundedReceiver<UnboundedSender<String>>) {
    let (opened, answers) = unbounded_channel();
    let opened = Mutex::new(opened);
    let upstream = Upstream::start(move |seen| {
        let (say, said) = unbounded_channel::<String>();
        opened.lock().unwrap().send(say).unwrap();
        let listens = seen.json()["method"] == "subscriptions/listen";
        let body = Body::from_stream(UnboundedReceiverStream::new(said).map(Ok::<_, std::io::Error>));
        let content_type = if listens { "text/event-stream" } else { "application/json" };
        Response::builder().header("content-type", content_type).body(body).unwrap()
    })
    .await;
    (upstream, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_of_old_snapshot_not_on_request_thread() {
    let (upstream, mut answers) = dictated().await;
    let scope = Scope::at(upstream.address);
    let gateway = Gateway::start(&scope).await;
    let (snapshot, heard) = probed(&scope);
    gateway.live.swap(snapshot);

    let auth = [("authorization", &*bearer(ENGINEER))];
    let stream = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
    let say = answers.recv().await.unwrap();
    let call = gateway.ask(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#));
    let swapped = async {
        // The server has it: the call holds its snapshot until it is answered.
        let answer = answers.recv().await.unwrap();
        gateway.swap(&changed(Scope::at(upstream.address)));
        gateway.swap(&changed(changed(Scope::at(upstream.address))));
        assert_eq!(heard.try_recv(), Err(TryRecvError::Empty), "a request still decides by it");
        answer.send(r#"{"jsonrpc":"2.0","id":"q-1","result":{"content":[]}}"#.into()).unwrap();
    };
    let (answer, ()) = tokio::join!(call, swapped);
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");

    let mut all = [freed(&heard), freed(&heard)];
    all.sort();
    assert_eq!(all, [(ACME.to_owned(), RECLAIMER.to_owned()), (RIVAL.to_owned(), RECLAIMER.to_owned())]);
    say.send("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n".into()).unwrap();
    assert!(stream.into_body().frame().await.unwrap().is_ok(), "the stream goes on under the new one");
}

#[test]
fn an_organisation_that_a_stream_holds_longer_than_anybody_its_snapshot_is_freed_there_too() {
    let scope = Scope::at(([127, 0, 0, 1], 9).into());
    let live = Live::new().unwrap();
    let (snapshot, heard) = probed(&scope);
    let held = snapshot.org(ACME).cloned().unwrap();
    live.swap(snapshot);
    live.swap(Arc::new(changed(scope).compile()));
    assert_eq!(freed(&heard), (RIVAL.to_owned(), RECLAIMER.to_owned()), "the snapshot is gone");
    assert_eq!(heard.try_recv(), Err(TryRecvError::Empty));
    drop(held);
    assert_eq!(freed(&heard), (ACME.to_owned(), RECLAIMER.to_owned()));
}

#[test]
fn what_the_next_snapshot_goes_on_with_is_not_waited_for() {
    let scope = Scope::at(([127, 0, 0, 1], 9).into());
    let live = Live::new().unwrap();
    let (snapshot, heard) = probed(&scope);
    live.swap(snapshot);
    let mut next = changed(Scope::at(([127, 0, 0, 1], 9).into()));
    next.orgs[0] = Scope::at(([127, 0, 0, 1], 9).into()).orgs.remove(0);
    let next = Arc::new(next.compile_after(live.snapshot().as_deref(), |_, body| body.into()));
    live.swap(next);
    assert_eq!(freed(&heard), (RIVAL.to_owned(), RECLAIMER.to_owned()));
    assert_eq!(heard.try_recv(), Err(TryRecvError::Empty), "in force still");
}
