//! `mcpgw policy`: rules of who may use what.

mod create;
mod delete;
mod get;
mod list;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::Policy;

use crate::args::{self, Mask};
use crate::context::Context;
use crate::matching::{Patterns, Subjects};

/// Rules of who may use what: deny beats allow, nothing matching is a deny
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists policies
    List(list::Args),
    /// Shows one policy
    Get(get::Args),
    /// Creates a policy
    Create(create::Args),
    /// Changes the fields that flags or a file name
    Update(update::Args),
    /// Deletes a policy
    Delete(delete::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    /// What a match means
    #[arg(long, value_parser = args::effect())]
    effect: Option<i32>,
    /// Whether the rule decides or only records what it would have decided
    #[arg(long, value_parser = args::mode())]
    mode: Option<i32>,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
    /// A server's slug, or * for all; repeatable
    #[arg(long, value_name = "SLUG")]
    server: Vec<String>,
    #[command(flatten)]
    patterns: Patterns,
    /// A method that servers send to clients, such as sampling/createMessage; only for deny; repeatable
    #[arg(long, value_name = "METHOD", help_heading = "What it is about (* stands for any run of characters)")]
    method: Vec<String>,
}

impl Fields {
    async fn apply(self, cx: &Context, to: &mut Policy, mask: &mut Mask) -> anyhow::Result<()> {
        mask.set("effect", &mut to.effect, self.effect);
        mask.set("mode", &mut to.mode, self.mode);
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.replace("servers", &mut to.servers, self.server);
        self.subjects.apply(cx, &mut to.subjects, mask).await?;
        self.patterns.apply(self.method, &mut to.r#match, mask);
        Ok(())
    }
}
