//! `mcpgw server process`: what nodes run of stdio servers.

use clap::{Args as Flags, Subcommand};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::commands::desk::{Desk, moment};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Processes of stdio servers, on all nodes
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists processes
    List(ListArgs),
    /// Ends a process, or all of a server
    Stop(EndArgs),
    /// Ends a process, or all of a server; the next message of a session that lost nothing starts another
    Restart(EndArgs),
}

/// Flags of `server process list`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw server process list\n  mcpgw server process list time -o json")]
pub struct ListArgs {
    /// Only of this server
    server: Option<String>,
    #[command(flatten)]
    desk: Desk,
}

/// Flags of `server process stop` and `restart`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw server process stop time\n  mcpgw server process restart 0199c2a4-2f6b-7d55-9c1f-0a52b6a3c001"
)]
pub struct EndArgs {
    /// The process, as `server process list` shows it, or a server: all of its processes
    #[arg(value_name = "PROCESS|SERVER")]
    which: String,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    processes: Vec<Process>,
}

/// As the gateway describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Process {
    process: Uuid,
    node: String,
    server: String,
    owner: String,
    pid: u32,
    started_at: u64,
    state: String,
    messages_in: u64,
    messages_out: u64,
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => {
            let processes = list(cx, &args.desk, args.server.as_deref()).await?;
            cx.out.value(&processes, || table(&processes))
        }
        Command::Stop(args) => end(cx, args, "stop").await,
        Command::Restart(args) => end(cx, args, "restart").await,
    }
}

async fn list(cx: &Context, desk: &Desk, server: Option<&str>) -> anyhow::Result<Vec<Process>> {
    let Told { mut processes } = desk.order(cx, Method::GET, "/stdio/process", None).await?;
    processes.retain(|process| server.is_none_or(|server| process.server == server));
    Ok(processes)
}

async fn end(cx: &Context, args: EndArgs, action: &str) -> anyhow::Result<()> {
    let which = match Uuid::parse_str(&args.which) {
        Ok(process) => vec![process],
        Err(_a_server) => {
            let of_server = list(cx, &args.desk, Some(&args.which)).await?;
            of_server.into_iter().map(|process| process.process).collect()
        }
    };
    if which.is_empty() {
        return Err(Failure::NotFound(format!("no process of server {:?} runs", args.which)).into());
    }
    for process in which {
        let body = json!({ "action": action, "process": process });
        args.desk.order::<Value>(cx, Method::POST, "/stdio/process", Some(&body)).await?;
        eprintln!("asked process {process} to end");
    }
    Ok(())
}

fn table(processes: &[Process]) -> String {
    let header = ["PROCESS", "SERVER", "OWNER", "PID", "STATE", "IN", "OUT", "STARTED", "NODE"];
    let rows = processes.iter().map(|it| {
        vec![
            it.process.to_string(),
            it.server.clone(),
            it.owner.clone(),
            it.pid.to_string(),
            it.state.clone(),
            it.messages_in.to_string(),
            it.messages_out.to_string(),
            output::time(Some(&moment(it.started_at))),
            it.node.clone(),
        ]
    });
    output::columns(&header, rows)
}
