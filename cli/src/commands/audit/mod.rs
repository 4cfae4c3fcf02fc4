//! `mcpgw audit`: what happened, traffic and administration.

mod checkpoints;
mod errors;
mod follow;
mod gaps;
mod list;
mod verify;

use clap::Subcommand;

use crate::context::Context;

/// What happened: MCP requests and administrative changes
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // parsed once per process
pub enum Command {
    /// Lists MCP requests, or with --admin administrative changes, newest first
    List(list::Args),
    /// Lists errors that belong together, last seen first
    Errors(errors::Args),
    /// Verifies that the logs are what was recorded: nothing edited, deleted, reordered, cut off or forged
    Verify(verify::Args),
    /// Lists signed checkpoints of the logs, newest first
    Checkpoints(checkpoints::Args),
    /// Lists times in which nodes left out records, newest first
    Gaps(gaps::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Errors(args) => errors::run(cx, args).await,
        Command::Verify(args) => verify::run(cx, args).await,
        Command::Checkpoints(args) => checkpoints::run(cx, args).await,
        Command::Gaps(args) => gaps::run(cx, args).await,
    }
}
