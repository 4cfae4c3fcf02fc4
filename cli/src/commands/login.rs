//! `mcpgw login`: signs in and saves the login for the commands that follow.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;
use mcp_gateway::proto::admin::v1::{Audience, LoginRequest};

use crate::context::{Context, with_scheme};
use crate::failure::Failure;
use crate::session::{Place, Saved};
use crate::{names, prompt};

/// Flags of `login`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw login ada@example.com --endpoint https://gateway.example:9443 --gateway https://gateway.example\n  echo \"$PASSWORD\" | mcpgw login ci@example.com --org acme --password-stdin"
)]
pub struct Args {
    /// The email address [default: of the saved login]
    #[arg(env = "MCPGW_EMAIL")]
    email: Option<String>,
    /// The gateway's URL for MCP, saved for `tools` and `call` [default: of the saved login]
    #[arg(long, env = "MCPGW_GATEWAY", value_name = "URL")]
    gateway: Option<String>,
    /// Read the password from stdin instead of asking
    #[arg(long)]
    password_stdin: bool,
    /// The password; set the environment variable rather than this flag, which others can see
    #[arg(long, env = "MCPGW_PASSWORD", hide_env_values = true, hide = true)]
    password: Option<String>,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let before = cx.saved()?;
    let email = args.email.or_else(|| before.as_ref().map(|it| it.email.clone()));
    let email = email.ok_or_else(|| Failure::Usage("who signs in? mcpgw login EMAIL".into()))?;
    let endpoint = cx.global.endpoint.clone().or_else(|| before.as_ref().map(|it| it.endpoint.clone()));
    let endpoint = endpoint.ok_or_else(|| Failure::Usage("which control plane? Add --endpoint URL".into()))?;
    let password = match (args.password_stdin, args.password) {
        (true, _) => prompt::secret_file("-".as_ref())?,
        (false, Some(password)) => password,
        (false, None) => prompt::password(&format!("Password of {email}"))?,
    };
    let request = LoginRequest {
        email: email.clone(),
        password,
        organization: cx.global.org.as_deref().map(names::org).unwrap_or_default(),
        audience: Audience::Admin.into(),
    };
    let tokens = AuthServiceClient::new(cx.channel().await?).login(request).await.map_err(Failure::from)?;
    let endpoint = with_scheme(&endpoint);
    // What was saved for another control plane says nothing about this one.
    let before = before.filter(|it| it.endpoint == endpoint);
    let ca = cx.global.ca.as_deref().map(std::path::absolute).transpose()?;
    let place = Place {
        gateway: args.gateway.as_deref().map(with_scheme).or_else(|| before.as_ref().and_then(|it| it.gateway.clone())),
        ca: ca.or_else(|| before.and_then(|it| it.ca)),
        endpoint,
        email,
    };
    let saved = Saved::new(place, tokens.into_inner());
    cx.store.lock().await?.save(&saved)?;
    let org = if saved.organization.is_empty() { "no organisation" } else { &saved.organization };
    eprintln!("signed in to {} as {} in {org}", saved.endpoint, saved.email);
    Ok(())
}
