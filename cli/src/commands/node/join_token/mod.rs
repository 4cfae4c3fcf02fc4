//! `mcpgw node join-token`: one-time tokens that let nodes join a pool.

mod create;
mod delete;
mod get;
mod list;

use clap::Subcommand;

use crate::context::Context;

/// One-time tokens that let nodes join a pool
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists tokens
    List(list::Args),
    /// Shows one token
    Get(get::Args),
    /// Creates a token and shows its secret once
    Create(create::Args),
    /// Deletes a token
    Delete(delete::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
    }
}
