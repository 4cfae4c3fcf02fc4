//! Calls that a server answers with a task (2026-07-28 extension `io.modelcontextprotocol/tasks`, SEP-2663). A client of before cannot know
//! of it: it waits for its call as ever, while the bridge asks how far the task is, asks the client what the task wants to know, and ends
//! the task if the client gives up. The extension is declared only where a server does not do without, since any other answers at once.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::calls::{Call, Exchange};
use super::request::{Answers, mirrored_method};
use super::{Bridge, Over, asks, request};
use crate::transport::header::{NAME, encoded};
use crate::upstream::link::ToServer;

pub(super) const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// How long to wait before asking again, where the server does not say, and the bounds of what it may say.
const INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(30);

/// The task that a call has become.
pub(super) struct Task {
    id: String,
    interval: Duration,
    /// How often the server was asked how far it is.
    looks: u64,
    /// Questions that the client was asked already; they stay until the server has taken the answers.
    asked: HashSet<String>,
}

impl Call {
    fn task_id(&self) -> &str {
        self.task.as_ref().map_or("", |task| &task.id)
    }
}

/// Calls whose tasks are left alone for a while.
#[derive(Default)]
pub(super) struct Tasks {
    waiting: Vec<(Instant, Call)>,
}

impl Tasks {
    pub fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|(due, _)| *due).min()
    }

    fn take_due(&mut self, now: Instant) -> Vec<Call> {
        self.waiting.extract_if(.., |(due, _)| *due <= now).map(|(_, call)| call).collect()
    }

    fn take(&mut self, number: u64) -> Option<Call> {
        self.waiting.extract_if(.., |(_, call)| call.number == number).map(|(_, call)| call).next()
    }
}

/// How a task stands, as its server says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    task_id: Option<String>,
    status: String,
    status_message: Option<String>,
    poll_interval_ms: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    input_requests: Map<String, Value>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: State<'a>,
}

impl Bridge {
    /// Whether a call was refused for want of the extension, and was not sent with it yet.
    pub(super) fn wants_tasks(&self, message: &Bytes, call: &Call) -> bool {
        let required = || {
            let refused: Value = serde_json::from_slice(message).unwrap_or_default();
            refused["error"]["data"]["requiredCapabilities"]["extensions"].get(EXTENSION).is_some()
        };
        !call.declares_tasks && asks(&call.message, "tools/call") && required()
    }

    /// The server will answer later.
    pub(super) async fn became_task(&mut self, message: &Bytes, call: Call) -> Result<(), Over> {
        let Ok(Answer { result: state }) = serde_json::from_slice(message) else { return self.unknown_task(&call).await };
        let Some(id) = state.task_id.clone() else { return self.unknown_task(&call).await };
        let task = Task { id, interval: INTERVAL, looks: 0, asked: HashSet::new() };
        self.stands(state, Call { task: Some(Box::new(task)), ..call }).await
    }

    /// The server says how far a task is.
    pub(super) async fn looked(&mut self, message: &Bytes, call: Call) -> Result<(), Over> {
        match serde_json::from_slice::<Answer<'_>>(message) {
            Ok(Answer { result }) => self.stands(result, call).await,
            Err(_unreadable) => self.unknown_task(&call).await,
        }
    }

    async fn unknown_task(&self, call: &Call) -> Result<(), Over> {
        self.error(call.number, -32603, "The server says of the call's task what cannot be understood").await
    }

    async fn stands(&mut self, state: State<'_>, mut call: Call) -> Result<(), Over> {
        let number = call.number;
        match (state.status.as_str(), state.result, state.error) {
            ("working", ..) => {}
            ("input_required", ..) => return self.task_asks(state.input_requests, call).await,
            ("completed", Some(result), _) => {
                let message = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{}}}"#, result.get());
                return self.answer(message.into(), Some(number)).await;
            }
            ("failed", _, Some(error)) => {
                let message = format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{}}}"#, error.get());
                return self.answer(message.into(), Some(number)).await;
            }
            ("cancelled", ..) => return self.error(number, -32603, "The server cancelled the task of the call").await,
            _ => return self.unknown_task(&call).await,
        }
        self.tell_of_task(&mut call, state.status_message.as_deref()).await?;
        let Some(task) = &mut call.task else { return Ok(()) };
        if let Some(wished) = state.poll_interval_ms {
            task.interval = Duration::from_millis(wished).clamp(SHORTEST, LONGEST);
        }
        self.tasks.waiting.push((Instant::now() + task.interval, call));
        Ok(())
    }

    /// The call lives. Whoever wanted to hear of its progress does, and nobody gives it up.
    async fn tell_of_task(&self, call: &mut Call, words: Option<&str>) -> Result<(), Over> {
        let Some(task) = &mut call.task else { return Ok(()) };
        task.looks += 1;
        let mut params = json!({ "progressToken": call.number, "progress": task.looks });
        if let Some(words) = words {
            params["message"] = words.into();
        }
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
        self.answer(message.to_string().into(), Some(call.number)).await
    }

    /// A task wants to know something of the client; what it was asked before is on its way.
    async fn task_asks(&mut self, mut questions: Map<String, Value>, mut call: Call) -> Result<(), Over> {
        let Some(task) = &mut call.task else { return Ok(()) };
        questions.retain(|key, _| task.asked.insert(key.clone()));
        if questions.is_empty() {
            let due = Instant::now() + task.interval;
            self.tasks.waiting.push((due, call));
            return Ok(());
        }
        self.ask_client(questions, None, call).await
    }

    /// Brings a task the client's answers.
    pub(super) fn update_task(&mut self, call: Call, answers: &Answers) {
        let params = format!(r#""taskId":{},{}"#, json!(call.task_id()), answers.members());
        self.ask_of_task("tasks/update", &params, call.task_id().to_owned(), Exchange::Updated(Box::new(call)));
    }

    /// Asks after the tasks whose time has come.
    pub(super) fn look_after_tasks(&mut self) {
        for call in self.tasks.take_due(Instant::now()) {
            self.look(call);
        }
    }

    fn look(&mut self, call: Call) {
        let params = format!(r#""taskId":{}"#, json!(call.task_id()));
        self.ask_of_task("tasks/get", &params, call.task_id().to_owned(), Exchange::Task(Box::new(call)));
    }

    /// The server took the client's answers, or could not be asked.
    pub(super) fn look_again(&mut self, call: Call) {
        let due = Instant::now() + call.task.as_ref().map_or(INTERVAL, |task| task.interval);
        self.tasks.waiting.push((due, call));
    }

    /// Ends the task of a call that its client gives up.
    pub(super) fn cancel_task(&mut self, number: u64) {
        if let Some(call) = self.tasks.take(number) {
            self.end_task(&call);
        }
    }

    pub(super) fn end_task(&mut self, call: &Call) {
        if call.task.is_some() {
            let params = format!(r#""taskId":{}"#, json!(call.task_id()));
            self.ask_of_task("tasks/cancel", &params, call.task_id().to_owned(), Exchange::Farewell);
        }
    }

    fn ask_of_task(&mut self, method: &'static str, params: &str, id: String, exchange: Exchange) {
        let number = self.number();
        let Some(client) = &self.client else { return };
        let message = client.request_of_task(number, method, params);
        self.exchanges.insert(number, exchange);
        let mirrored = self.setting.has_headers.then(|| {
            let mut headers = mirrored_method(method);
            // Which server of several has it (SEP-2663, transports).
            headers.insert(NAME, encoded(&id));
            headers
        });
        self.say(ToServer { mirrored, ..request(message, number) });
    }
}
