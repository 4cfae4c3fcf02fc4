//! `mcpgw org`: organisations, the tenants.

mod capture;
mod create;
mod delete;
mod get;
mod list;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::Organization;

use crate::args::{self, Mask};
use crate::context::Context;

/// Organisations: tenants with their own users, servers, policies and limits
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists organisations
    List(list::Args),
    /// Shows one organisation
    Get(get::Args),
    /// Creates an organisation
    Create(create::Args),
    /// Changes the fields that flags name
    Update(update::Args),
    /// Deletes an organisation
    Delete(delete::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// An origin that browsers may call its servers from; repeatable, '' for none
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
    /// What happens to auditable calls while a node's audit spool is full
    #[arg(long, value_parser = args::audit_full())]
    audit_full: Option<i32>,
    /// The pool of nodes that serves it
    #[arg(long)]
    pool: Option<String>,
    /// How many days request logs are kept
    #[arg(long, value_name = "DAYS")]
    request_log_retention_days: Option<i32>,
    /// When an auditable call's record counts as written, which its answer waits for: when the system has it, or the disk
    #[arg(long, value_parser = args::audit_sync())]
    audit_sync: Option<i32>,
    #[command(flatten)]
    capture: capture::Flags,
    /// How many days administrative records are kept
    #[arg(long, value_name = "DAYS")]
    audit_log_retention_days: Option<i32>,
}

impl Fields {
    fn apply(self, to: &mut Organization, mask: &mut Mask) {
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.replace("allowed_origins", &mut to.allowed_origins, self.allowed_origin);
        mask.set("audit_full", &mut to.audit_full, self.audit_full);
        mask.set("pool", &mut to.pool, self.pool);
        let days = self.request_log_retention_days;
        mask.set("request_log_retention_days", &mut to.request_log_retention_days, days);
        mask.set("audit_sync", &mut to.audit_sync, self.audit_sync);
        self.capture.apply(to, mask);
        let days = self.audit_log_retention_days;
        mask.set("audit_log_retention_days", &mut to.audit_log_retention_days, days);
    }
}
