//! `mcpgw config rollout`: changes of an organisation that some nodes try before all get them.

mod abort;
mod follow;
mod get;
mod list;
mod resume;
mod start;

use clap::Subcommand;

use crate::context::Context;

/// Lets some nodes try a change of an organisation before all get it
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Begins a rollout of an organisation's document
    Start(start::Args),
    /// Lists rollouts, newest first
    List(list::Args),
    /// Shows one rollout, and what is seen of it now
    Get(get::Args),
    /// Begins the step of a halted rollout again
    Resume(resume::Args),
    /// Ends a rollout: its nodes go back to what all others run
    Abort(abort::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(args) => start::run(cx, args).await,
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Resume(args) => resume::run(cx, args).await,
        Command::Abort(args) => abort::run(cx, args).await,
    }
}
