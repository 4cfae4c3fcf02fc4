//! `mcpgw user`: people and service accounts that can sign in.

mod create;
mod delete;
mod get;
mod list;
mod set_password;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::User;

use crate::args::Mask;
use crate::context::Context;

/// People and service accounts that can sign in
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists users
    List(list::Args),
    /// Shows one user
    Get(get::Args),
    /// Creates a user
    Create(create::Args),
    /// Changes the fields that flags name
    Update(update::Args),
    /// Deletes a user
    Delete(delete::Args),
    /// Sets a password and ends the user's sessions
    SetPassword(set_password::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
        Command::SetPassword(args) => set_password::run(cx, args).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// Whether signing in and every token of the user is refused
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    disabled: Option<bool>,
    /// Whether the user administers the whole installation
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    platform_admin: Option<bool>,
}

impl Fields {
    fn apply(self, to: &mut User, mask: &mut Mask) {
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.set("disabled", &mut to.disabled, self.disabled);
        mask.set("platform_admin", &mut to.platform_admin, self.platform_admin);
    }
}
