//! `mcpgw key`: API keys, the credentials of programs that call MCP servers.

mod create;
mod delete;
mod get;
mod list;
mod revoke;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::ApiKey;

use crate::args::Mask;
use crate::context::Context;

/// API keys: credentials of programs that call MCP servers
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists keys
    List(list::Args),
    /// Shows one key
    Get(get::Args),
    /// Creates a key and shows its secret once
    Create(create::Args),
    /// Changes the fields that flags name
    Update(update::Args),
    /// Makes a key void for good
    Revoke(revoke::Args),
    /// Deletes a key
    Delete(delete::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Revoke(args) => revoke::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
    }
}

/// The fields that people set and may change later.
#[derive(Debug, Args)]
struct Fields {
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// A role name of the key's principal; repeatable, '' for none; only for keys without a user
    #[arg(long, value_name = "NAME")]
    policy_role: Vec<String>,
    /// A group name of the key's principal; repeatable, '' for none; only for keys without a user
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
}

impl Fields {
    fn apply(self, to: &mut ApiKey, mask: &mut Mask) {
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.replace("policy_roles", &mut to.policy_roles, self.policy_role);
        mask.replace("groups", &mut to.groups, self.group);
    }
}
