//! `mcpgw tools`: what a server offers to the caller; and the flags that `call` shares with it.

use std::time::Duration;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::Audience;
use serde_json::Value;

use super::way::{Presented, Way};
use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::mcp::{Client, Era, Error, Http};
use crate::output;

/// Flags of `tools`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw tools github\n  mcpgw tools github --key mcpgw_... --era modern -o json\n  mcpgw tools http://127.0.0.1:9000/mcp"
)]
pub struct Args {
    /// The server: its slug, its uid, or any URL
    server: String,
    #[command(flatten)]
    reach: Reach,
}

/// How to reach a server.
#[derive(Debug, Flags)]
pub struct Reach {
    #[command(flatten)]
    way: Way,
    /// Which protocol era to speak
    #[arg(long, value_enum, default_value_t = Era::Auto)]
    era: Era,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "60s")]
    timeout: Duration,
}

impl Reach {
    /// A conversation with `server`, as the flags say.
    pub async fn connect(&self, cx: &Context, server: &str) -> anyhow::Result<Client> {
        let (url, presented) = self.way.to(cx, server, "mcp")?;
        let notice = Box::new(|said: &str| eprintln!("{said}"));
        let mut http = Http::new(&url, self.way.ca(cx)?.as_deref(), self.timeout, notice)?;
        let token = match presented {
            Presented::Nothing => None,
            Presented::Key(key) => Some(key),
            Presented::Login => Some(cx.token(Audience::Gateway, None).await?),
        };
        if let Some(token) = token {
            http = http.with_bearer(&token)?;
        }
        Client::connect(http, self.era).await.map_err(failed)
    }
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let client = args.reach.connect(cx, &args.server).await?;
    let listed = client.tools().await;
    client.close().await;
    let (tools, request_id) = listed.map_err(failed)?;
    say_request_id(request_id.as_deref());
    cx.out.value(&tools, || {
        let rows =
            tools.iter().map(|tool| vec![text(&tool["name"]), signature(&tool["inputSchema"]), text(&tool["description"])]);
        output::columns(&["TOOL", "ARGUMENTS", "DESCRIPTION"], rows)
    })
}

/// Tells people by which id they can ask `mcpgw why`.
pub fn say_request_id(request_id: Option<&str>) {
    if let Some(id) = request_id {
        eprintln!("request {id}");
    }
}

/// An exit code for what the conversation came to.
pub fn failed(error: Error) -> anyhow::Error {
    say_request_id(error.request_id());
    let said = error.to_string();
    let failure = match (&error, error.status().map(|it| it.as_u16())) {
        (Error::Unreachable { .. } | Error::TooSlow(_) | Error::BrokeOff(_), _) => Failure::Unreachable(said),
        (_, Some(401 | 403)) => Failure::Refused(said),
        (_, Some(404)) => Failure::NotFound(said),
        (_, Some(502..=504)) => Failure::Unreachable(said),
        (_, _) => return error.into(),
    };
    failure.into()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `a: number, b?: string`, from a tool's input schema.
fn signature(schema: &Value) -> String {
    let Some(properties) = schema["properties"].as_object() else { return String::new() };
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|it| it.iter().any(|known| known == name));
    let arguments = properties.iter().map(|(name, property)| {
        let optional = if is_required(name) { "" } else { "?" };
        match property["type"].as_str() {
            Some(kind) => format!("{name}{optional}: {kind}"),
            None => format!("{name}{optional}"),
        }
    });
    arguments.collect::<Vec<_>>().join(", ")
}
