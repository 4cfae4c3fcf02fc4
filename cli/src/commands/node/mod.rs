//! `mcpgw node`: the fleet of data-plane nodes and the tokens that let nodes join.

mod delete;
mod get;
mod join_token;
mod list;
mod update;

use clap::Subcommand;

use crate::context::Context;

/// The fleet of data-plane nodes
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists nodes and the configuration versions they run
    List(list::Args),
    /// Shows one node
    Get(get::Args),
    /// Changes a node's labels or name
    Update(update::Args),
    /// Removes a node for good: its certificate is refused from now on
    Delete(delete::Args),
    /// One-time tokens that let nodes join a pool
    #[command(subcommand)]
    JoinToken(join_token::Command),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
        Command::JoinToken(command) => join_token::run(cx, command).await,
    }
}
