//! `mcpgw user set-password`: a new password for oneself or, for platform administrators, for anybody.

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::SetPasswordRequest;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;

use crate::context::Context;
use crate::{names, prompt};

/// Flags of `user set-password`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw user set-password\n  mcpgw user set-password ada@example.com --password-file ./new")]
pub struct Args {
    /// The user: email address, uid, or `me`
    #[arg(value_name = "USER", default_value = "me")]
    id: String,
    /// Read the new password from a file, - for stdin, instead of asking
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the current password from a file instead of asking; only for oneself
    #[arg(long, value_name = "FILE")]
    current_password_file: Option<PathBuf>,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let own = args.id == "me";
    let current = match args.current_password_file {
        Some(path) => prompt::secret_file(&path)?,
        None if own => prompt::password("Current password")?,
        None => String::new(),
    };
    let new = match args.password_file {
        Some(path) => prompt::secret_file(&path)?,
        None => prompt::password("New password, at least 12 characters")?,
    };
    let name = if own { "users/me".into() } else { names::user(cx, &args.id).await? };
    let request = SetPasswordRequest { name, current_password: current, new_password: new };
    cx.call(UserServiceClient::new, request, async |c, r| c.set_password(r).await).await?;
    eprintln!("the password is set and the user's sessions have ended");
    if own {
        eprintln!("sign in again: mcpgw login");
    }
    Ok(())
}
