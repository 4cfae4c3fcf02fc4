//! What reached the backend: calls per tool, calls given up by the client, and the headers of the latest
//! requests. Written by the HTTP layer and the handler, read by tests directly or as JSON at `/stats`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use http::request::Parts;
use serde::{Deserialize, Serialize};

/// Enough for one test; older requests are forgotten.
const REMEMBERED_REQUESTS: usize = 2000;

/// One HTTP request as it arrived at `/mcp`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SeenRequest {
    /// HTTP method
    pub method: String,
    /// Path and query
    pub path: String,
    /// Header names (lower case) and values in order of arrival
    pub headers: Vec<(String, String)>,
}

impl SeenRequest {
    /// The first value of the header `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Everything counted so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// `tools/call` requests that reached the handler, by tool name (unknown names too)
    pub calls: BTreeMap<String, u64>,
    /// calls whose client gave up before they ended, by tool name
    pub cancelled: BTreeMap<String, u64>,
    /// the latest requests, oldest first
    pub requests: VecDeque<SeenRequest>,
}

impl Snapshot {
    /// How often the tool `name` was called.
    pub fn calls_of(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Snapshot>);

impl Stats {
    /// A copy of everything counted so far.
    pub fn snapshot(&self) -> Snapshot {
        self.locked(|seen| seen.clone())
    }

    /// Forgets everything counted so far.
    pub fn reset(&self) {
        self.locked(|seen| *seen = Snapshot::default());
    }

    pub(super) fn called(&self, tool: &str) {
        self.locked(|seen| *seen.calls.entry(tool.to_owned()).or_default() += 1);
    }

    pub(super) fn cancelled(&self, tool: &str) {
        self.locked(|seen| *seen.cancelled.entry(tool.to_owned()).or_default() += 1);
    }

    pub(super) fn arrived(&self, parts: &Parts) {
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let request = SeenRequest { method: parts.method.to_string(), path: parts.uri.to_string(), headers };
        self.locked(|seen| {
            if seen.requests.len() == REMEMBERED_REQUESTS {
                seen.requests.pop_front();
            }
            seen.requests.push_back(request);
        });
    }

    fn locked<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.0.lock().expect("no holder of this lock can panic"))
    }
}
