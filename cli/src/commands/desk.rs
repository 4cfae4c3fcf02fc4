//! The operators' desk of a gateway: flags that say which one and as whom, and one order there. Its nodes ask each other; those that did
//! not answer are named on stderr, because what they have is missing from the answer.
//! Never knows what an order is about. Flattened into the verbs of `session`, `server logs` and `server process`.

use std::time::Duration;

use clap::Args as Flags;
use http::Method;
use mcp_gateway::proto::admin::v1::Audience;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tools::failed;
use super::way;
use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::mcp::{self, Http};

/// Which gateway, and as whom.
#[derive(Debug, Flags)]
pub struct Desk {
    /// The gateway's URL [default: of the saved login]
    #[arg(long, env = "MCPGW_GATEWAY", value_name = "URL")]
    gateway: Option<String>,
    /// An API key to present instead of the saved login
    #[arg(long, env = "MCPGW_API_KEY", hide_env_values = true, value_name = "mcpgw_...")]
    key: Option<String>,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "30s")]
    timeout: Duration,
}

/// What came of an order over all nodes.
#[derive(Debug, Deserialize)]
struct Summary<T> {
    #[serde(flatten)]
    told: T,
    #[serde(default)]
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Deserialize)]
struct Unreachable {
    node: String,
    why: String,
}

impl Desk {
    /// Gives an order that all nodes carry out.
    pub async fn order<T: DeserializeOwned>(
        &self,
        cx: &Context,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let answer = self.text(cx, method, path, body).await?;
        let Summary { told, unreachable } = serde_json::from_slice(&answer)
            .map_err(|error| anyhow::anyhow!("the gateway's answer about {path} cannot be read: {error}"))?;
        for Unreachable { node, why } in unreachable {
            eprintln!("warning: node {node} did not answer, and what it has is not in here: {why}");
        }
        Ok(told)
    }

    /// Gives an order; its answer as it came.
    pub async fn text(&self, cx: &Context, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let gateway = way::gateway(cx, self.gateway.as_deref())?
            .ok_or_else(|| Failure::Usage("which gateway? Add --gateway URL, or run `mcpgw login` with it once".into()))?;
        let token = match &self.key {
            Some(key) => key.clone(),
            None => cx.token(Audience::Gateway, None).await?,
        };
        let notice = Box::new(|said: &str| eprintln!("{said}"));
        let http = Http::new(&format!("{gateway}{path}"), way::ca(cx)?.as_deref(), self.timeout, notice)?.with_bearer(&token)?;
        mcp::order(&http, method, body).await.map_err(failed)
    }
}

/// A value as a query has it: everything but letters, digits and hyphens escaped.
pub fn escaped(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() || byte == b'-' { char::from(byte).into() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

/// A moment in seconds since the Unix epoch, for `output::time`.
pub fn moment(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_becomes_part_of_the_query() {
        assert_eq!(escaped("time-2"), "time-2");
        assert_eq!(escaped("a&follow=1 ü"), "a%26follow%3D1%20%C3%BC");
    }
}
