//! `mcpgw config`: the history of the configuration and its arrival on the nodes.

mod accept;
mod bump_epoch;
mod diff;
mod get;
mod rollback;
mod rollout;
mod status;
mod versions;
mod wait;

use clap::Subcommand;

use crate::context::Context;

/// The history of the configuration, and whether it has arrived
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists configuration versions, newest first
    Versions(versions::Args),
    /// Shows what one version changed
    Get(get::Args),
    /// Shows what two versions differ in
    Diff(diff::Args),
    /// Brings an organisation back to what it was at a version
    Rollback(rollback::Args),
    /// Shows what each pool should run, and which nodes do not, since when and why
    Status(status::Args),
    /// Lets some nodes try a change of an organisation before all get it
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Lets through what vanished from the tables of a pool
    Accept(accept::Args),
    /// Begins a new epoch, after the database was restored from a backup
    BumpEpoch(bump_epoch::Args),
    /// Returns when every connected node runs at least a version
    Wait(wait::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Versions(args) => versions::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Diff(args) => diff::run(cx, args).await,
        Command::Rollback(args) => rollback::run(cx, args).await,
        Command::Status(args) => status::run(cx, args).await,
        Command::Rollout(command) => rollout::run(cx, command).await,
        Command::Accept(args) => accept::run(cx, args).await,
        Command::BumpEpoch(args) => bump_epoch::run(cx, args).await,
        Command::Wait(args) => wait::run(cx, args).await,
    }
}
