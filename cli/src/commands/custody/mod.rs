//! `mcpgw custody`: the keys that the control plane signs and seals with.

mod list;
mod rotate;

use clap::Subcommand;

use crate::context::Context;

/// The keys that the control plane signs and seals with
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists keys, their purposes and their states
    List(list::Args),
    /// Moves the keys of a purpose on: the next key becomes the current one
    Rotate(rotate::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Rotate(args) => rotate::run(cx, args).await,
    }
}
