//! `mcpgw connect`: the command line as a stdio MCP server, for clients that start one.

use std::io::BufReader;

use clap::Args as Flags;

use super::way::{Presented, Way};
use crate::connect::{self, Credential, Dialer, Lines, Patience};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  mcpgw connect time
  mcpgw connect time --key mcpgw_... --gateway https://gateway.example
  mcpgw connect wss://mcp.example.com/ws

For desktop clients, in their configuration:

  {
    \"mcpServers\": {
      \"time\": { \"command\": \"mcpgw\", \"args\": [\"connect\", \"time\"] }
    }
  }

With a key in place of the saved login:

      \"time\": {
        \"command\": \"mcpgw\",
        \"args\": [\"connect\", \"time\", \"--org\", \"acme\", \"--gateway\", \"https://gateway.example\"],
        \"env\": { \"MCPGW_API_KEY\": \"mcpgw_...\" }
      }

Messages are lines of JSON on stdin and stdout; everything else goes to stderr. A connection that is lost is made again, and the session
opened again as it was. A request that was open gets a JSON-RPC error -32603 that says whether it may have had effects.";

/// Flags of `connect`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The server: its slug, its uid, or any URL of ws or wss
    server: String,
    #[command(flatten)]
    way: Way,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let (url, presented) = args.way.to(cx, &args.server, "ws")?;
    let credential = match presented {
        Presented::Nothing => Credential::Nothing,
        Presented::Key(key) => Credential::Key(key),
        Presented::Login => Credential::Login(cx),
    };
    let dialer = Dialer::new(&url, args.way.ca(cx)?.as_deref(), credential)?;
    let lines = Lines::of(BufReader::new(std::io::stdin()))?;
    connect::run(&dialer, Patience::default(), lines, tokio::io::stdout()).await
}
