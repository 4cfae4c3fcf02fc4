//! `mcpgw logout`: ends the session on the server and forgets the saved login.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::LogoutRequest;
use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;

use crate::context::{self, Context};
use crate::failure::Failure;

/// Flags of `logout`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw logout")]
pub struct Args {}

pub async fn run(cx: &Context, _args: Args) -> anyhow::Result<()> {
    let locked = cx.store.lock().await?;
    let Some(saved) = locked.load()? else {
        eprintln!("not signed in");
        return Ok(());
    };
    // The session belongs to the control plane that it was started on, whatever --endpoint says.
    let request = LogoutRequest { refresh_token: saved.refresh_token().to_owned() };
    let ended = match context::connect(&saved.endpoint, saved.ca.as_deref()).await {
        Ok(channel) => AuthServiceClient::new(channel).logout(request).await.map(drop).map_err(Failure::from),
        Err(error) => Err(Failure::Unreachable(format!("{error:#}"))),
    };
    locked.remove()?;
    match ended {
        Ok(()) => eprintln!("signed out of {}", saved.endpoint),
        Err(error) => anyhow::bail!(error),
    }
    Ok(())
}
