//! The backend's tools. This file owns their catalogue and one call's view of its request; each submodule
//! holds the tools of one kind and declines names that are not its own.

mod asking;
mod content;
mod rounds;
mod running;
mod tasks;

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, LoggingLevel,
    LoggingMessageNotificationParam, ProgressNotificationParam, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use super::Shared;
use super::dialogue::Dialogue;
use super::server::Session;

/// One red pixel.
pub(super) const PIXEL_PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A WAV file of no samples.
pub(super) const SILENT_WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

type Outcome = Result<CallToolResponse, ErrorData>;

/// One `tools/call` as the tools see it.
struct Call {
    name: String,
    arguments: JsonObject,
    dialogue: Dialogue,
    shared: Arc<Shared>,
    threshold: LoggingLevel,
}

/// Every tool, always in the same order.
pub(super) fn definitions() -> Vec<Tool> {
    [running::definitions(), content::definitions(), asking::definitions(), rounds::definitions(), tasks::definitions()].concat()
}

pub(super) async fn call(session: &Session, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Outcome {
    session.shared.stats.called(&request.name);
    let call = Call {
        name: request.name.into_owned(),
        arguments: request.arguments.unwrap_or_default(),
        dialogue: Dialogue { context, responses: request.input_responses, state: request.request_state },
        shared: session.shared.clone(),
        threshold: *session.level.lock().expect("no holder of this lock can panic"),
    };
    if let Some(outcome) = content::call(&call) {
        return outcome;
    }
    if let Some(outcome) = running::call(&call).await {
        return outcome;
    }
    if let Some(outcome) = asking::call(&call).await {
        return outcome;
    }
    if let Some(outcome) = rounds::call(&call).await {
        return outcome;
    }
    if let Some(outcome) = tasks::call(&call).await {
        return outcome;
    }
    Err(ErrorData::invalid_params(format!("there is no tool {}", call.name), None))
}

impl Call {
    fn text(&self, argument: &str) -> &str {
        self.arguments.get(argument).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, argument: &str, otherwise: u64) -> u64 {
        self.arguments.get(argument).and_then(Value::as_u64).unwrap_or(otherwise)
    }

    /// Progress, if the caller asked for it.
    async fn progress(&self, done: f64, total: f64) {
        let Some(token) = self.dialogue.context.meta.get_progress_token() else {
            return;
        };
        let progress = ProgressNotificationParam::new(token, done).with_total(total);
        if let Err(error) = self.dialogue.context.peer.notify_progress(progress).await {
            tracing::debug!(%error, "progress was not delivered");
        }
    }

    /// A log message at info level, unless the client wants none (modern) or only graver ones (legacy).
    async fn log(&self, message: &str) {
        let wanted = match self.dialogue.context.meta.log_level() {
            Some(level) => level as u8 <= LoggingLevel::Info as u8,
            None => !self.dialogue.modern() && self.threshold as u8 <= LoggingLevel::Info as u8,
        };
        if !wanted {
            return;
        }
        let line = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(message)).with_logger("conformance-backend");
        if let Err(error) = self.dialogue.context.peer.notify_logging_message(line).await {
            tracing::debug!(%error, "a log message was not delivered");
        }
    }
}

/// A tool whose input schema has these `properties`, all of them required.
fn tool(name: &'static str, description: &'static str, properties: Value) -> Tool {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|p| p.keys()).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    raw_tool(name, description, schema)
}

/// A tool without arguments.
fn plain_tool(name: &'static str, description: &'static str) -> Tool {
    raw_tool(name, description, json!({ "type": "object", "properties": {} }))
}

fn raw_tool(name: &'static str, description: &'static str, schema: Value) -> Tool {
    let Value::Object(schema) = schema else { unreachable!("input schemas are objects") };
    Tool::new(name, description, schema)
}

fn said(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

fn done(text: impl Into<String>) -> Outcome {
    Ok(said(text).into())
}
