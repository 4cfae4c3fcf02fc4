//! `mcpgw session replay`: what a session of the caller's own was told lately.

use clap::Args as Flags;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::commands::desk::{Desk, Order};
use crate::context::Context;
use crate::output;

/// Flags of `session replay`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw session replay 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001\n  mcpgw session replay 5f0c2a4e-2f6b-4d55-9c1f-0a52b6a3c001 --after 0-17 -o json"
)]
pub struct Args {
    /// The session, as `session list` shows it
    session: Uuid,
    /// Only what came after this event
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    #[command(flatten)]
    desk: Desk,
}

/// A message that a session was told.
#[derive(Debug, PartialEq, Serialize)]
struct Event {
    id: String,
    message: Value,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let order = Order::get(format!("/sse/replay/{}", args.session));
    let order = args.after.iter().fold(order, |order, after| order.with("after", after));
    let text = args.desk.text(cx, order).await?;
    let events = events(&String::from_utf8_lossy(&text))?;
    cx.out.value(&events, || {
        let rows = events.iter().map(|event| vec![event.id.clone(), event.message.to_string()]);
        output::columns(&["EVENT", "MESSAGE"], rows)
    })
}

/// The events of a whole answer.
fn events(text: &str) -> anyhow::Result<Vec<Event>> {
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    let field = |block: &str, name: &str| -> Vec<String> {
        let values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned()).collect()
    };
    let event = |block: &str| {
        let data = field(block, "data").join("\n");
        let message = serde_json::from_str(&data).map_err(|error| anyhow::anyhow!("an event is not JSON: {error}"))?;
        Ok(Event { id: field(block, "id").concat(), message })
    };
    blocks.map(event).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_with_their_ids() {
        let text = "id: 0-1\ndata: {\"a\":\ndata: 1}\n\nid:0-2\ndata:{}\n\n";
        let read = events(text).unwrap();
        let expected = [("0-1", json!({"a": 1})), ("0-2", json!({}))];
        assert_eq!(read, expected.map(|(id, message)| Event { id: id.into(), message }));
        assert!(events("data: x\n\n").is_err());
        assert_eq!(events("").unwrap(), []);
    }
}
