//! What a legacy session hears of by itself, and a modern client asks for: one `subscriptions/listen` with all of it, opened again
//! whenever it changes or breaks (2026-07-28 subscriptions).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::calls::Exchange;
use super::{Bridge, Over};
use crate::transport::scan::Message;

/// How long a stream that ended is left alone, doubled each time until it holds.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What is listened for.
#[derive(Default)]
pub(super) struct Subscriptions {
    lists: Vec<&'static str>,
    uris: BTreeSet<String>,
    /// The server's number for the stream, once it is asked for.
    stream: Option<u64>,
    /// Requests of the client's that are answered when the stream is there, and what each added.
    waiting: Vec<(u64, Option<String>)>,
    /// When a stream that ended is opened again.
    due: Option<Instant>,
    wait: Duration,
}

impl Subscriptions {
    /// The session is open: from now on changes of these lists are heard of.
    pub fn begin(&mut self, lists: impl Iterator<Item = &'static str>, listens: bool) {
        self.lists = if listens { lists.collect() } else { Vec::new() };
        self.wait = AGAIN;
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    fn wanted(&self) -> Option<Value> {
        if self.lists.is_empty() && self.uris.is_empty() {
            return None;
        }
        let mut wanted: serde_json::Map<String, Value> =
            self.lists.iter().map(|list| ((*list).to_owned(), true.into())).collect();
        if !self.uris.is_empty() {
            wanted.insert("resourceSubscriptions".to_owned(), self.uris.iter().cloned().collect());
        }
        Some(wanted.into())
    }
}

impl Bridge {
    /// Opens the stream for everything that is wanted now, in place of the one before.
    pub(super) fn listen(&mut self) {
        self.subscriptions.due = None;
        if let Some(before) = self.subscriptions.stream.take()
            && self.exchanges.remove(&before).is_some()
        {
            self.say_cancelled(before);
        }
        let Some(wanted) = self.subscriptions.wanted() else { return };
        let number = self.number();
        let Some(client) = &self.client else { return };
        let message = client.request(number, "subscriptions/listen", &format!(r#""notifications":{wanted}"#));
        self.subscriptions.stream = Some(number);
        self.exchanges.insert(number, Exchange::Listen);
        self.send(message, number, "subscriptions/listen");
    }

    /// `resources/subscribe`, or the end of it.
    pub(super) async fn subscribe(&mut self, number: u64, message: &Message) -> Result<(), Over> {
        if !self.offer.subscribes() {
            return self.error(number, -32601, "The server does not tell of changes of resources").await;
        }
        let Some(uri) = message.uri() else { return self.error(number, -32602, "params.uri is missing").await };
        let subscribes = message.method() == Some("resources/subscribe");
        let changed =
            if subscribes { self.subscriptions.uris.insert(uri.to_owned()) } else { self.subscriptions.uris.remove(uri) };
        if !changed && self.subscriptions.waiting.is_empty() {
            return self.result(number, json!({})).await;
        }
        let added = (subscribes && changed).then(|| uri.to_owned());
        self.subscriptions.waiting.push((number, added));
        self.listen();
        if self.subscriptions.stream.is_none() { self.settle(None).await } else { Ok(()) }
    }

    /// The stream is there, for what the server agreed to.
    pub(super) async fn acknowledged(&mut self, message: &Bytes) -> Result<(), Over> {
        const KEY: &str = "io.modelcontextprotocol/subscriptionId";
        let message: Value = serde_json::from_slice(message).unwrap_or_default();
        let params = &message["params"];
        let stream = params["_meta"].get(KEY).and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
        // An older one may still have something to say.
        if stream.is_some_and(|stream| Some(stream) != self.subscriptions.stream) {
            return Ok(());
        }
        self.subscriptions.wait = AGAIN;
        let agreed: BTreeSet<&str> = params["notifications"]["resourceSubscriptions"]
            .as_array()
            .map(|uris| uris.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        self.settle(Some(&agreed)).await
    }

    /// Answers whoever waits for the stream; `agreed`: what the server tells of, if there is a stream.
    async fn settle(&mut self, agreed: Option<&BTreeSet<&str>>) -> Result<(), Over> {
        for (number, added) in std::mem::take(&mut self.subscriptions.waiting) {
            let refused = added.filter(|uri| !agreed.is_some_and(|agreed| agreed.contains(uri.as_str())));
            match refused {
                Some(uri) => {
                    self.subscriptions.uris.remove(&uri);
                    self.error(number, -32602, "The server does not tell of changes of this resource").await?;
                }
                None => self.result(number, json!({})).await?,
            }
        }
        Ok(())
    }

    /// The stream ended: by its server's will, or because something broke.
    pub(super) async fn listened(&mut self) -> Result<(), Over> {
        self.subscriptions.stream = None;
        let wait = self.subscriptions.wait;
        tracing::debug!(server = self.slug(), ?wait, "a server's stream of changes ended");
        self.subscriptions.due = Some(Instant::now() + wait);
        self.subscriptions.wait = (wait * 2).min(LONGEST);
        self.settle(None).await
    }

    /// `notifications/cancelled`: how some servers end the stream over stdio.
    pub(super) async fn hung_up(&mut self, message: &Bytes) -> Result<(), Over> {
        let message: Value = serde_json::from_slice(message).unwrap_or_default();
        let request = message["params"]["requestId"].as_u64();
        if request.is_some() && request == self.subscriptions.stream {
            self.subscriptions.stream.take().map(|stream| self.exchanges.remove(&stream));
            return self.listened().await;
        }
        Ok(())
    }
}
