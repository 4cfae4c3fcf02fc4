//! `mcpgw audit list`: request logs, or administrative changes with `--admin`, as they are or as they arrive.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::{ListAuditLogsRequest, ListRequestLogsRequest};
use prost_types::Timestamp;

use super::follow;
use crate::args::{self, Page};
use crate::context::Context;

/// Flags of `audit list`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Patterns may have * for any text.\n\nExamples:\n  mcpgw audit list --decision deny --since 1h\n  mcpgw audit list --follow --server github --tool 'search_*'\n  mcpgw audit list --follow --since 10m -o json | jq -r .requestId\n  mcpgw audit list --reason 'limit.*' --since 15m\n  mcpgw audit list --admin --actor ada@example.com"
)]
pub struct Args {
    /// Administrative changes and sign-ins instead of MCP requests
    #[arg(long)]
    admin: bool,
    /// Shows what arrives, in order, each once, until interrupted; with --since also what is there, oldest first
    #[arg(long, short, conflicts_with_all = ["until", "limit", "page_token"])]
    pub follow: bool,
    #[command(flatten)]
    pub requests: Requests,
    #[command(flatten)]
    pub changes: Changes,
    /// Not before: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    pub since: Option<Timestamp>,
    /// Before: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    until: Option<Timestamp>,
    #[command(flatten)]
    page: Page,
}

/// Filters of MCP requests.
#[derive(Debug, Flags)]
pub struct Requests {
    /// Only this subject
    #[arg(long, alias = "principal", conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub subject: String,
    /// Only this server's slug
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub server: String,
    /// Only this tool, prompt or resource
    #[arg(long, alias = "tool", conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub target: String,
    /// Only this JSON-RPC method
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub method: String,
    /// Only this decision
    #[arg(long, conflicts_with = "admin", default_value = "", value_parser = ["", "allow", "deny"])]
    pub decision: String,
    /// Only what this rule decided, by name or id
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub rule: String,
    /// Only refusals for this reason, such as authorize.not_granted
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "PATTERN")]
    pub reason: String,
    /// Only of this node
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "UID")]
    pub node: String,
    /// Only the request of this Mcpgw-Request-Id
    #[arg(long, conflicts_with = "admin", default_value = "", value_name = "UUID")]
    pub request_id: String,
    /// Also what has begun and not ended; it is shown again when it ends (with --follow)
    #[arg(long, requires = "follow", conflicts_with = "admin")]
    pub open: bool,
}

/// Filters of administrative records.
#[derive(Debug, Flags)]
pub struct Changes {
    /// Only this outcome; with --admin: ok or denied
    #[arg(long, default_value = "", value_parser = OUTCOMES)]
    pub outcome: String,
    /// Only this actor (with --admin)
    #[arg(long, requires = "admin", default_value = "", value_name = "PATTERN")]
    pub actor: String,
    /// Only this action, such as server.create (with --admin)
    #[arg(long, requires = "admin", default_value = "", value_name = "PATTERN")]
    pub action: String,
    /// Only this resource, such as organizations/acme/servers/* (with --admin)
    #[arg(long, requires = "admin", default_value = "", value_name = "PATTERN")]
    pub resource: String,
}

const OUTCOMES: [&str; 10] =
    ["", "pending", "interrupted", "ok", "denied", "error", "upstream_failed", "cancelled", "unknown", "gateway_failed"];

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    match (args.follow, args.admin) {
        (false, false) => requests(cx, args).await,
        (false, true) => changes(cx, args).await,
        (true, false) => follow::requests(cx, args).await,
        (true, true) => follow::changes(cx, args).await,
    }
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
            outcome: args.changes.outcome.clone(),
            decision: only.decision.clone(),
            since: args.since,
            until: args.until,
            method: only.method.clone(),
            rule: only.rule.clone(),
            reason: only.reason.clone(),
            node: only.node.clone(),
            request_id: only.request_id.clone(),
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
        let only = &args.changes;
        let request = ListAuditLogsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
            actor: only.actor.clone(),
            action: only.action.clone(),
            since: args.since,
            until: args.until,
            resource: only.resource.clone(),
            outcome: only.outcome.clone(),
        };
        let page = cx.call(LogServiceClient::new, request, async |c, r| c.list_audit_logs(r).await).await?;
        Ok((page.audit_logs, page.next_page_token))
    };
    let logs = args.page.collect(fetch).await?;
    cx.out.many(&logs)
}
