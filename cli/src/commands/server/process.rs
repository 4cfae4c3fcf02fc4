//! `mcpgw server process`: what nodes run of stdio servers.

use clap::{Args as Flags, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::commands::desk::{Answer, Desk, Order, moment};
use crate::context::Context;
use crate::failure::{self, Failure};
use crate::{names, output};

/// Processes of stdio servers, on all nodes
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists processes
    List(ListArgs),
    /// Ends a process, or all of a server; sessions that lost nothing with it go on with another one
    Stop(EndArgs),
    /// Ends a process that sessions share, and starts another as the server is registered now
    #[command(
        after_help = "Examples:\n  mcpgw server process restart time\n  mcpgw server process restart 0199c2a4-2f6b-7d55-9c1f-0a52b6a3c001 -o json\n\nOnly for servers that were registered with --shared: a process of one session is started by its session, so `stop` is all that there is."
    )]
    Restart(EndArgs),
}

/// Flags of `server process list`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw server process list\n  mcpgw server process list organizations/acme/servers/time -o json"
)]
pub struct ListArgs {
    /// Only of this server
    server: Option<String>,
    #[command(flatten)]
    desk: Desk,
}

/// Flags of `server process stop` and `restart`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw server process stop time\n  mcpgw server process stop 0199c2a4-2f6b-7d55-9c1f-0a52b6a3c001 -o json"
)]
pub struct EndArgs {
    /// The process, as `server process list` shows it, or a server: all of its processes
    #[arg(value_name = "PROCESS|SERVER")]
    which: String,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Serialize, Deserialize)]
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

/// How a process is ended.
#[derive(Debug, Clone, Copy)]
enum Action {
    Stop,
    /// With another in its place.
    Restart,
}

/// Processes that were asked to end, for machines.
#[derive(Debug, Serialize)]
struct Ended {
    processes: Vec<Uuid>,
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => {
            let (org, server) = args.server.as_deref().map(|server| names::parts("servers", server)).transpose()?.unzip();
            let answer = list(cx, &args.desk, org.flatten(), server).await?;
            answer.warn();
            cx.out.value(&answer, || table(&answer.told.processes))
        }
        Command::Stop(args) => end(cx, args, Action::Stop).await,
        Command::Restart(args) => end(cx, args, Action::Restart).await,
    }
}

async fn list(cx: &Context, desk: &Desk, org: Option<&str>, server: Option<&str>) -> anyhow::Result<Answer<Told>> {
    let mut answer: Answer<Told> = desk.order(cx, Order::get("/stdio/process").of(org)).await?;
    answer.told.processes.retain(|process| server.is_none_or(|server| process.server == server));
    Ok(answer)
}

async fn end(cx: &Context, args: EndArgs, action: Action) -> anyhow::Result<()> {
    let order = |process: Uuid| Order::post("/stdio/process", json!({ "action": action.name(), "process": process }));
    if let Ok(process) = Uuid::parse_str(&args.which) {
        let Answer { unreachable, .. } = args.desk.act(cx, &format!("process {process}"), order(process)).await?;
        eprintln!("{} process {process}", action.done());
        return cx.out.value(&Answer { told: Ended { processes: vec![process] }, unreachable }, String::new);
    }
    let (org, server) = names::parts("servers", &args.which)?;
    let running = list(cx, &args.desk, org, Some(server)).await?;
    let mut ended = Answer { told: Ended { processes: Vec::new() }, unreachable: running.unreachable };
    for process in running.told.processes.iter().map(|it| it.process) {
        match args.desk.act(cx, &format!("process {process}"), order(process).of(org)).await {
            Ok(answer) => ended.miss(answer.unreachable),
            // It has ended meanwhile.
            Err(error) if failure::is_not_found(&error) => continue,
            Err(error) => return Err(error),
        }
        eprintln!("{} process {process}", action.done());
        ended.told.processes.push(process);
    }
    if running.told.processes.is_empty() {
        ended.complete()?;
        return Err(Failure::NotFound(format!("no process of server {server:?} runs")).into());
    }
    cx.out.value(&ended, String::new)?;
    Ok(ended.complete()?)
}

impl Action {
    /// As the gateway calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// What was done to a process, for people.
    fn done(self) -> &'static str {
        match self {
            Self::Stop => "asked to end:",
            Self::Restart => "asked for another in place of",
        }
    }
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
