//! `mcpgw server drain` and `undrain`: whether one endpoint of a server gets calls.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::SetEndpointStateRequest;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::config::v1::EndpointState;

use crate::args::Change;
use crate::context::Context;
use crate::names;

/// Flags of both.
#[derive(Debug, Flags)]
#[command(
    after_help = "Calls in flight go on. Sessions that live at a drained endpoint have to be opened anew, as clients do by themselves.\n\nExamples:\n  mcpgw server drain time http://10.0.0.7:9000/mcp\n  mcpgw server undrain time http://10.0.0.7:9000/mcp"
)]
pub struct Args {
    /// The server
    #[arg(value_name = "SERVER")]
    id: String,
    /// The endpoint, as `server get` shows it
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args, state: EndpointState) -> anyhow::Result<()> {
    let request = SetEndpointStateRequest {
        name: names::child(cx, "servers", &args.id)?,
        url: args.url,
        state: state.into(),
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let server = cx.call(ServerServiceClient::new, request, async |c, r| c.set_endpoint_state(r).await).await?;
    let done = if state == EndpointState::Drained { "drained an endpoint of" } else { "put back into use an endpoint of" };
    args.change.say(&format!("{done} {}", server.name));
    cx.out.one(&server)
}
