//! `mcpgw user create`: a new user, with a made-up password unless one is given.

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{CreateUserRequest, User};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::prompt;

/// Flags of `user create`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw user create ada@example.com --display-name Ada\n  mcpgw user create ci@example.com --password-file ./password"
)]
pub struct Args {
    /// The email address to sign in with
    email: String,
    #[command(flatten)]
    fields: Fields,
    /// Read the password from a file, - for stdin; without it one is made up and shown once
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut user = User { email: args.email, ..User::default() };
    args.fields.apply(&mut user, &mut Mask::default());
    let password = args.password_file.as_deref().map(prompt::secret_file).transpose()?;
    let request = CreateUserRequest {
        user: Some(user),
        password: password.unwrap_or_default(),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(UserServiceClient::new, request, async |c, r| c.create_user(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    if !created.initial_password.is_empty() {
        eprintln!("the initial password is shown this once");
    }
    cx.out.one(&created)
}
