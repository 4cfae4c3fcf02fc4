//! `mcpgw whoami`: the saved login, after making sure that its session is alive.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::Audience;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// Flags of `whoami`.
#[derive(Debug, Flags)]
#[command(after_help = "Examples:\n  mcpgw whoami\n  mcpgw whoami -o json")]
pub struct Args {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    email: String,
    user: String,
    organization: String,
    endpoint: String,
    gateway: Option<String>,
    session_expires: String,
}

pub async fn run(cx: &Context, _args: Args) -> anyhow::Result<()> {
    cx.token(Audience::Admin, None).await?;
    let saved = cx.saved()?.ok_or_else(|| Failure::Refused("not signed in".into()))?;
    let expires = DateTime::<Utc>::from(saved.refresh_expires).to_rfc3339_opts(SecondsFormat::Secs, true);
    let who = Who {
        email: saved.email,
        user: saved.user,
        organization: saved.organization,
        endpoint: saved.endpoint,
        gateway: saved.gateway,
        session_expires: expires,
    };
    cx.out.value(&who, || {
        let gateway = who.gateway.as_deref().unwrap_or("not saved: add --gateway to `mcpgw login`");
        format!(
            "{} ({})\norganization  {}\nendpoint      {}\ngateway       {gateway}\nsession until {}",
            who.email, who.user, who.organization, who.endpoint, who.session_expires
        )
    })
}
