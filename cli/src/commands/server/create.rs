//! `mcpgw server create`: registers an MCP server, from flags, a file, or both (flags win).

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateServerRequest, Server};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::document;

const EXAMPLES: &str = "\
Examples:
  mcpgw server create time --url http://127.0.0.1:9000/mcp
  mcpgw server create github --url https://mcp.github.example/mcp --credential-header authorization --credential-file ./token
  mcpgw server create chat --url wss://chat.example/ws --client-transport websocket=idle:10m,max:100 --client-transport json-rpc=off
  mcpgw server create time --env TZ=UTC --shared -- uvx mcp-server-time
  mcpgw server create jira --credential-variable JIRA_TOKEN --credential-file ./token -- /opt/mcp/jira --read-only
  mcpgw server create time -f time.yaml

What follows -- is run on the nodes, by their user, without a shell; its environment holds what is given here and little else.";

/// Flags of `server create`.
#[derive(Debug, Flags)]
#[command(
    after_help = EXAMPLES
)]
pub struct Args {
    /// Its slug: 1 to 63 characters of a-z, 0-9 and hyphen, starting with a letter
    #[arg(value_name = "SLUG")]
    id: String,
    /// Read the server from YAML or JSON, - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let mut server = match &args.file {
        Some(path) => document::read::<Server>(path)?.resource,
        None => Server::default(),
    };
    args.fields.apply(&mut server, &mut Mask::default())?;
    let request = CreateServerRequest {
        parent: cx.org()?,
        server_id: args.id,
        server: Some(server),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let created = cx.call(ServerServiceClient::new, request, async |c, r| c.create_server(r).await).await?;
    args.change.say(&format!("created {}", created.name));
    cx.out.one(&created)
}
