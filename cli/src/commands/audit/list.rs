//! `mcpgw audit list`: request logs, or administrative changes with `--admin`.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::{ListAuditLogsRequest, ListRequestLogsRequest};
use prost_types::Timestamp;

use crate::args::{self, Page};
use crate::context::Context;

/// Flags of `audit list`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Examples:\n  mcpgw audit list --decision deny --since 1h\n  mcpgw audit list --server github --target search_code -o json\n  mcpgw audit list --admin --actor ada@example.com"
)]
pub struct Args {
    /// Administrative changes and sign-ins instead of MCP requests
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    requests: Requests,
    /// Only this actor (with --admin)
    #[arg(long, requires = "admin", default_value = "")]
    actor: String,
    /// Only this action, such as server.create (with --admin)
    #[arg(long, requires = "admin", default_value = "")]
    action: String,
    /// Not before: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    since: Option<Timestamp>,
    /// Before: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    until: Option<Timestamp>,
    #[command(flatten)]
    page: Page,
}

/// Filters of MCP requests.
#[derive(Debug, Flags)]
struct Requests {
    /// Only this subject
    #[arg(long, conflicts_with = "admin", default_value = "")]
    subject: String,
    /// Only this server's slug
    #[arg(long, conflicts_with = "admin", default_value = "")]
    server: String,
    /// Only this tool, prompt or resource
    #[arg(long, conflicts_with = "admin", default_value = "")]
    target: String,
    /// Only this outcome
    #[arg(long, conflicts_with = "admin", default_value = "", value_parser = OUTCOMES)]
    outcome: String,
    /// Only this decision
    #[arg(long, conflicts_with = "admin", default_value = "", value_parser = ["", "allow", "deny"])]
    decision: String,
}

const OUTCOMES: [&str; 10] =
    ["", "pending", "interrupted", "ok", "denied", "error", "upstream_failed", "cancelled", "unknown", "gateway_failed"];

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    if args.admin { changes(cx, args).await } else { requests(cx, args).await }
}

async fn requests(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org_or_all()?;
    let fetch = async |page_size, page_token| {
        let only = &args.requests;
        let request = ListRequestLogsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            subject: only.subject.clone(),
            server: only.server.clone(),
            target: only.target.clone(),
            outcome: only.outcome.clone(),
            decision: only.decision.clone(),
            since: args.since,
            until: args.until,
        };
        let page = cx.call(LogServiceClient::new, request, async |c, r| c.list_request_logs(r).await).await?;
        Ok((page.request_logs, page.next_page_token))
    };
    let logs = args.page.collect(fetch).await?;
    cx.out.many(&logs)
}

async fn changes(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org_or_all()?;
    let fetch = async |page_size, page_token| {
        let request = ListAuditLogsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            actor: args.actor.clone(),
            action: args.action.clone(),
            since: args.since,
            until: args.until,
        };
        let page = cx.call(LogServiceClient::new, request, async |c, r| c.list_audit_logs(r).await).await?;
        Ok((page.audit_logs, page.next_page_token))
    };
    let logs = args.page.collect(fetch).await?;
    cx.out.many(&logs)
}
