//! Tools that take their time: progress, logging, reconnection, change notifications.

use std::time::Duration;

use http::request::Parts;
use rmcp::ErrorData;
use rmcp::model::Tool;
use serde_json::json;
use tokio::time::sleep;

use super::{Call, Outcome, done, plain_tool, raw_tool, tool};
use crate::backend::Change;

/// Between two notifications of one call, as the suite asks.
const STEP: Duration = Duration::from_millis(50);
/// A session never has more streams than this in our tests.
const MOST_STREAMS: u64 = 256;

pub(super) fn definitions() -> Vec<Tool> {
    let slow = json!({
        "type": "object",
        "properties": {
            "ms": { "type": "integer", "description": "How long to take, in milliseconds" },
            "steps": { "type": "integer", "description": "How many progress notifications, 5 if absent" },
        },
        "required": ["ms"],
    });
    vec![
        raw_tool("slow", "Takes its time and reports progress", slow),
        plain_tool("test_tool_with_progress", "Reports progress at 0, 50 and 100"),
        plain_tool("test_tool_with_logging", "Logs three times"),
        plain_tool("test_logging_tool", "Logs once"),
        plain_tool("test_reconnection", "Closes its stream before it answers"),
        plain_tool("test_trigger_tool_change", "Announces a changed tool list"),
        plain_tool("test_trigger_prompt_change", "Announces a changed prompt list"),
        plain_tool("test_trigger_resource_change", "Announces a changed resource list"),
        tool("test_trigger_resource_update", "Announces an updated resource", json!({ "uri": { "type": "string" } })),
    ]
}

pub(super) async fn call(call: &Call) -> Option<Outcome> {
    Some(match call.name.as_str() {
        "slow" => slow(call).await,
        "test_tool_with_progress" => {
            call.progress(0.0, 100.0).await;
            sleep(STEP).await;
            call.progress(50.0, 100.0).await;
            sleep(STEP).await;
            call.progress(100.0, 100.0).await;
            done("Progress test completed")
        }
        "test_tool_with_logging" => {
            call.log("Tool execution started").await;
            sleep(STEP).await;
            call.log("Tool processing data").await;
            sleep(STEP).await;
            call.log("Tool execution completed").await;
            done("Logging test completed")
        }
        "test_logging_tool" => {
            call.log("Logging tool called").await;
            done("Logged")
        }
        "test_reconnection" => reconnection(call).await,
        "test_trigger_tool_change" => announced(call, Change::Tools).await,
        "test_trigger_prompt_change" => announced(call, Change::Prompts).await,
        "test_trigger_resource_change" => announced(call, Change::Resources).await,
        "test_trigger_resource_update" => announced(call, Change::Resource(call.text("uri").to_owned())).await,
        _ => return None,
    })
}

async fn slow(call: &Call) -> Outcome {
    let steps = call.number("steps", 5).clamp(1, 10_000);
    let pause = Duration::from_millis(call.number("ms", 0)) / u32::try_from(steps).unwrap_or(1);
    for step in 1..=steps {
        tokio::select! {
            () = sleep(pause) => {}
            () = call.dialogue.context.ct.cancelled() => {
                call.shared.stats.cancelled(&call.name);
                return Err(ErrorData::internal_error("cancelled by the client", None));
            }
        }
        #[allow(clippy::cast_precision_loss)] // at most 10000
        call.progress(step as f64, steps as f64).await;
    }
    done(format!("slept {} ms", call.number("ms", 0)))
}

async fn announced(call: &Call, change: Change) -> Outcome {
    call.shared.notices.announce(change).await;
    done("announced")
}

/// Closes the streams of this session mid-call; the client has to come back with Last-Event-ID (SEP-1699).
async fn reconnection(call: &Call) -> Outcome {
    let session =
        call.dialogue.context.extensions.get::<Parts>().and_then(|parts| parts.headers.get("mcp-session-id")?.to_str().ok());
    if let Some(session) = session {
        let handle = call.shared.sessions.sessions.read().await.get(session).cloned();
        // rmcp numbers the streams of a session from 0 and tells no handler which is its own.
        for stream in 0..MOST_STREAMS {
            let Some(handle) = &handle else { break };
            if handle.close_sse_stream(stream, None).await.is_err() {
                continue;
            }
        }
    }
    sleep(2 * STEP).await;
    done("Reconnection test completed")
}
