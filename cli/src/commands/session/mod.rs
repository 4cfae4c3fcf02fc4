//! `mcpgw session`: open connections of MCP clients, over all nodes of the pool.

mod broadcast;
mod close;
mod list;
mod ping;
mod replay;
mod send;

use std::io::Read as _;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::desk::{Answer, Desk, Done, Order};
use crate::context::Context;
use crate::failure::Failure;

/// Open sessions of MCP clients
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists open sessions: an operator's whole organisation, anybody else's own
    List(list::Args),
    /// Asks the client of a WebSocket for a sign of life
    Ping(ping::Args),
    /// Sends the client of one session a notification
    Send(send::Args),
    /// Ends a session
    Close(close::Args),
    /// Shows what a session of your own was told lately
    Replay(replay::Args),
    /// Sends a notification to every client that listens
    Broadcast(broadcast::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Ping(args) => ping::run(cx, args).await,
        Command::Send(args) => send::run(cx, args).await,
        Command::Close(args) => close::run(cx, args).await,
        Command::Replay(args) => replay::run(cx, args).await,
        Command::Broadcast(args) => broadcast::run(cx, args).await,
    }
}

/// What was done with a session, for machines.
#[derive(Debug, Serialize)]
struct Acted {
    session: Uuid,
    #[serde(flatten)]
    answer: Answer<Done>,
}

/// Gives an order about one session, and says what was `done`: to people as talk, to machines as data.
async fn act(cx: &Context, desk: &Desk, session: Uuid, order: Order<'_>, done: &str) -> anyhow::Result<()> {
    let answer = desk.act(cx, &format!("session {session}"), order).await?;
    eprintln!("{done} session {session}");
    cx.out.value(&Acted { session, answer }, String::new)
}

/// A message as it was given: JSON, or a file that has it, - for stdin.
fn message(given: &str) -> anyhow::Result<Value> {
    let text = if given.trim_start().starts_with('{') {
        given.to_owned()
    } else if given == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("stdin")?;
        text
    } else {
        std::fs::read_to_string(given).map_err(|error| Failure::Usage(format!("{given}: {error}")))?
    };
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("the message is not JSON: {error}")).into())
}
