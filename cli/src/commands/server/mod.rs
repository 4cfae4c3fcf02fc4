//! `mcpgw server`: MCP servers behind the gateway.

mod create;
mod delete;
mod drain;
mod get;
mod list;
mod logs;
mod place;
mod process;
mod update;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::{Server, UpstreamCredential};
use mcp_gateway::proto::config::v1::EndpointState;

use crate::args::{self, Mask};
use crate::context::Context;
use crate::prompt;

/// MCP servers behind the gateway
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists servers
    List(list::Args),
    /// Shows one server
    Get(get::Args),
    /// Registers a server
    Create(create::Args),
    /// Changes the fields that flags or a file name
    Update(update::Args),
    /// Deletes a server
    Delete(delete::Args),
    /// Takes one of its endpoints out of use, at once and whatever state the configuration is in
    Drain(drain::Args),
    /// Puts a drained endpoint back into use
    Undrain(drain::Args),
    /// Shows what the processes of a stdio server wrote beside messages
    Logs(logs::Args),
    #[command(subcommand)]
    Process(process::Command),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
        Command::Drain(args) => drain::run(cx, args, EndpointState::Drained).await,
        Command::Undrain(args) => drain::run(cx, args, EndpointState::Active).await,
        Command::Logs(args) => logs::run(cx, args).await,
        Command::Process(command) => process::run(cx, command).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    #[command(flatten)]
    place: place::Place,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// Which protocol era it speaks; unspecified: nodes find out [default: unspecified]
    #[arg(long, value_parser = args::era())]
    era: Option<i32>,
    /// How requests of modern clients share sessions with it, if it is of the legacy era: those of a principal share some, or each has
    /// one of its own, which ends with it; that is slower, and for servers that remember things in a session [default: pooled]
    #[arg(long, value_parser = args::legacy_sessions())]
    legacy_sessions: Option<i32>,
    /// Whether callers without any credential are let in; policies still decide
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_anonymous: Option<bool>,
    /// Whether its routes answer as if it did not exist
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    disabled: Option<bool>,
    /// How long a call may take until its answer begins
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    call_timeout: Option<Duration>,
    /// The largest request body
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<u32>,
    /// The header of the credential that the gateway presents, such as authorization; for a command its variable, such as API_TOKEN
    #[arg(long, visible_alias = "credential-variable", value_name = "NAME", requires = "credential_file")]
    credential_header: Option<String>,
    /// Read its value from a file, - for stdin; stored encrypted, never shown again
    #[arg(long, value_name = "FILE", requires = "credential_header")]
    credential_file: Option<PathBuf>,
}

impl Fields {
    fn apply(self, to: &mut Server, mask: &mut Mask) -> anyhow::Result<()> {
        self.place.apply(to, mask)?;
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.set("era", &mut to.era, self.era);
        mask.set("legacy_sessions", &mut to.legacy_sessions, self.legacy_sessions);
        mask.set("allow_anonymous", &mut to.allow_anonymous, self.allow_anonymous);
        mask.set("disabled", &mut to.disabled, self.disabled);
        let timeout = self.call_timeout.map(|it| Some(args::proto_duration(it)));
        mask.set("call_timeout", &mut to.call_timeout, timeout);
        mask.set("max_body_bytes", &mut to.max_body_bytes, self.max_body_bytes);
        if let (Some(header), Some(file)) = (self.credential_header, self.credential_file) {
            let credential = UpstreamCredential { header, value: prompt::secret_file(&file)? };
            mask.set("upstream_credential", &mut to.upstream_credential, Some(Some(credential)));
        }
        Ok(())
    }
}
