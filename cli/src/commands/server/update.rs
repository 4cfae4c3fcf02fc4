//! `mcpgw server update`: changes a server as it was read, by flags or by a file that names the fields.

use std::path::PathBuf;

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{GetServerRequest, Server, UpdateServerRequest};

use super::Fields;
use crate::args::{Change, Mask};
use crate::context::Context;
use crate::{document, names};

/// Flags of `server update`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw server update time --disabled\n  mcpgw server update time --disabled false --call-timeout 10s\n  mcpgw server update time --env TZ=CET --unset-env LANG -- uvx mcp-server-time@2\n  mcpgw server update time --client-transport http-sse=off\n  mcpgw server get time -o yaml > time.yaml; $EDITOR time.yaml; mcpgw server update time -f time.yaml"
)]
pub struct Args {
    /// The server
    #[arg(value_name = "SERVER")]
    id: String,
    /// Read the fields to change from YAML or JSON, - for stdin; an etag in it is checked
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    /// Stop presenting a credential to the server
    #[arg(long, conflicts_with = "credential_header")]
    no_credential: bool,
    /// Refuse if it has changed since this etag was read [default: read now]
    #[arg(long, allow_hyphen_values = true)]
    etag: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let request = GetServerRequest { name: names::child(cx, "servers", &args.id)? };
    let read = cx.call(ServerServiceClient::new, request, async |c, r| c.get_server(r).await).await?;
    let mut mask = Mask::default();
    let mut server = match &args.file {
        Some(path) => from_file(path, &read, &mut mask)?,
        None => read,
    };
    args.fields.apply(&mut server, &mut mask)?;
    if args.no_credential {
        mask.set("upstream_credential", &mut server.upstream_credential, Some(None));
    }
    server.etag = args.etag.unwrap_or(server.etag);
    let request = UpdateServerRequest {
        server: Some(server),
        update_mask: mask.finish()?,
        validate_only: args.change.validate_only,
        request_id: args.change.request_id(),
    };
    let updated = cx.call(ServerServiceClient::new, request, async |c, r| c.update_server(r).await).await?;
    args.change.say(&format!("updated {}", updated.name));
    cx.out.one(&updated)
}

fn from_file(path: &std::path::Path, read: &Server, mask: &mut Mask) -> anyhow::Result<Server> {
    let document::Document { mut resource, fields } = document::read::<Server>(path)?;
    fields.iter().for_each(|field| mask.touch(field));
    resource.name.clone_from(&read.name);
    if resource.etag.is_empty() {
        resource.etag.clone_from(&read.etag);
    }
    Ok(resource)
}
