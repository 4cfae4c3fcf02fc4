//! The flags by which `tools`, `call` and `connect` find a server and say who asks.
//! Never opens a connection.

use std::path::PathBuf;

use clap::Args as Flags;
use uuid::Uuid;

use crate::context::{Context, with_scheme};
use crate::failure::Failure;
use crate::names;

/// Where to and as whom.
#[derive(Debug, Flags)]
pub struct Way {
    /// Where the server is, if not behind the gateway; the saved login is not presented to it
    #[arg(long)]
    url: Option<String>,
    /// The gateway's URL [default: of the saved login]
    #[arg(long, env = "MCPGW_GATEWAY", value_name = "URL")]
    gateway: Option<String>,
    /// An API key to present instead of the saved login
    #[arg(long, env = "MCPGW_API_KEY", hide_env_values = true, value_name = "mcpgw_...")]
    key: Option<String>,
    /// Present no credential at all
    #[arg(long, conflicts_with = "key")]
    anonymous: bool,
}

/// What to present.
pub enum Presented {
    Nothing,
    Key(String),
    /// A token of the saved login. It is for the gateway that it was made for: it is never shown to a URL somebody typed.
    Login,
}

impl Way {
    /// The URL of `server`, which ends in `suffix` behind the gateway, and what to present there.
    pub fn to(&self, cx: &Context, server: &str, suffix: &str) -> anyhow::Result<(String, Presented)> {
        let direct = self.url.clone().or_else(|| server.contains("://").then(|| server.to_owned()));
        let presented = match (&self.key, &direct) {
            _ if self.anonymous => Presented::Nothing,
            (Some(key), _) => Presented::Key(key.clone()),
            (None, Some(_)) => Presented::Nothing,
            (None, None) => Presented::Login,
        };
        let url = match direct {
            Some(url) => url,
            None => format!("{}/{suffix}", self.behind_gateway(cx, server)?),
        };
        Ok((url, presented))
    }

    fn behind_gateway(&self, cx: &Context, server: &str) -> anyhow::Result<String> {
        let gateway = gateway(cx, self.gateway.as_deref())?
            .ok_or_else(|| Failure::Usage("which gateway? Add --gateway URL, or --url URL".into()))?;
        if Uuid::parse_str(server).is_ok() {
            return Ok(format!("{gateway}/servers/{server}"));
        }
        let org = cx.org()?;
        Ok(format!("{gateway}/o/{}/servers/{}", names::id(&org), names::id(server)))
    }

    /// The authorities to trust instead of the system's.
    pub fn ca(&self, cx: &Context) -> anyhow::Result<Option<PathBuf>> {
        ca(cx)
    }
}

/// The gateway that was named, else that of the saved login.
pub fn gateway(cx: &Context, named: Option<&str>) -> anyhow::Result<Option<String>> {
    let saved = cx.saved()?.and_then(|it| it.gateway);
    Ok(named.map(with_scheme).or(saved))
}

/// The authorities to trust instead of the system's.
pub fn ca(cx: &Context) -> anyhow::Result<Option<PathBuf>> {
    Ok(match &cx.global.ca {
        Some(ca) => Some(ca.clone()),
        None => cx.saved()?.and_then(|it| it.ca),
    })
}
