//! `mcpgw session list`: open sessions.

use clap::Args as Flags;
use serde::{Deserialize, Serialize};

use crate::commands::desk::{Answer, Desk, Order, moment};
use crate::context::Context;
use crate::output;

/// Flags of `session list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw session list\n  mcpgw session list --ws -o json")]
pub struct Args {
    /// Only WebSockets
    #[arg(long, conflicts_with = "sse")]
    ws: bool,
    /// Only event streams: HTTP+SSE and Streamable HTTP
    #[arg(long)]
    sse: bool,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    #[serde(default)]
    sessions: Vec<Session>,
}

/// As the gateway describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    session: String,
    node: String,
    server: String,
    subject: String,
    transport: String,
    server_transport: String,
    version: Option<String>,
    opened_at: u64,
    streams: u32,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut all = Answer { told: Told::default(), unreachable: Vec::new() };
    for (wanted, path) in [(!args.ws, "/sse/status"), (!args.sse, "/ws/status")] {
        if wanted {
            let answer: Answer<Told> = args.desk.order(cx, Order::get(path)).await?;
            all.told.sessions.extend(answer.told.sessions);
            all.miss(answer.unreachable);
        }
    }
    all.warn();
    all.told.sessions.sort_by(|one, other| (one.opened_at, &one.session).cmp(&(other.opened_at, &other.session)));
    cx.out.value(&all, || table(&all.told.sessions))
}

fn table(sessions: &[Session]) -> String {
    let header = ["SESSION", "SERVER", "SUBJECT", "TRANSPORT", "UPSTREAM", "VERSION", "STREAMS", "OPENED", "NODE"];
    let rows = sessions.iter().map(|it| {
        vec![
            it.session.clone(),
            it.server.clone(),
            it.subject.clone(),
            it.transport.clone(),
            it.server_transport.clone(),
            it.version.clone().unwrap_or_default(),
            it.streams.to_string(),
            output::time(Some(&moment(it.opened_at))),
            it.node.clone(),
        ]
    });
    output::columns(&header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_line() {
        let session = Session {
            session: "s1".into(),
            node: "n1".into(),
            server: "time".into(),
            subject: "ann@acme.test".into(),
            transport: "websocket".into(),
            server_transport: "stdio".into(),
            version: None,
            opened_at: 0,
            streams: 1,
        };
        let table = table(&[session]);
        assert_eq!(
            table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["s1", "time", "ann@acme.test", "websocket", "stdio", "1", "1970-01-01T00:00:00Z", "n1"]
        );
    }
}
