//! `mcpgw audit list --follow`: what arrives, each once, also across control planes that stop and tokens that expire.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::{FollowAuditLogsRequest, FollowRequestLogsRequest};
use prost::{Message, Name};
use tonic::{Code, Status};

use super::list::Args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, Tabular};

/// The pause before a stream that ended is resumed.
const AGAIN: Duration = Duration::from_secs(1);

pub async fn requests(cx: &Context, args: Args) -> anyhow::Result<()> {
    let only = args.requests;
    let mut request = FollowRequestLogsRequest {
        parent: cx.org_or_all()?,
        resume_token: String::new(),
        since: args.since,
        include_open: only.open,
        subject: only.subject,
        server: only.server,
        target: only.target,
        outcome: args.changes.outcome,
        decision: only.decision,
        method: only.method,
        rule: only.rule,
        reason: only.reason,
        node: only.node,
        request_id: only.request_id,
    };
    let mut rows = Rows::default();
    loop {
        let asked = request.clone();
        let mut stream = cx.open(LogServiceClient::new, asked, async |c, r| c.follow_request_logs(r).await).await?;
        let end = loop {
            match stream.message().await {
                Ok(Some(answer)) => {
                    answer.request_logs.iter().try_for_each(|log| rows.show(cx, log))?;
                    request.resume_token = answer.resume_token;
                }
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        pause_or_fail(end).await?;
    }
}

pub async fn changes(cx: &Context, args: Args) -> anyhow::Result<()> {
    let only = args.changes;
    let mut request = FollowAuditLogsRequest {
        parent: cx.org_or_all()?,
        resume_token: String::new(),
        since: args.since,
        actor: only.actor,
        action: only.action,
        resource: only.resource,
        outcome: only.outcome,
    };
    let mut rows = Rows::default();
    loop {
        let asked = request.clone();
        let mut stream = cx.open(LogServiceClient::new, asked, async |c, r| c.follow_audit_logs(r).await).await?;
        let end = loop {
            match stream.message().await {
                Ok(Some(answer)) => {
                    answer.audit_logs.iter().try_for_each(|log| rows.show(cx, log))?;
                    request.resume_token = answer.resume_token;
                }
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        pause_or_fail(end).await?;
    }
}

/// A stream ends with its access token and with the replica that answers: then it is resumed behind what was shown last.
async fn pause_or_fail(end: Option<Status>) -> anyhow::Result<()> {
    match end {
        Some(status) if !matches!(status.code(), Code::Unauthenticated | Code::Unavailable | Code::Unknown) => {
            Err(Failure::from(status).into())
        }
        Some(_) | None => {
            tokio::time::sleep(AGAIN).await;
            Ok(())
        }
    }
}

/// Rows of a table that has no end: columns only grow.
#[derive(Debug, Default)]
struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    fn show<T: Message + Name + Tabular>(&mut self, cx: &Context, row: &T) -> anyhow::Result<()> {
        match cx.out.format {
            Format::Table => cx.out.value(&(), || self.line(T::HEADER, &row.cells())),
            Format::Json | Format::Yaml => cx.out.next(row),
        }
    }

    /// The line of a row; the first one has the header above it.
    fn line(&mut self, header: &[&str], cells: &[String]) -> String {
        let cells: Vec<String> =
            cells.iter().map(|cell| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()).collect();
        let first = self.widths.is_empty();
        if first {
            self.widths = header.iter().map(|title| title.chars().count()).collect();
        }
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        let padded = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = self.widths.iter().zip(cells).map(|(width, cell)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        };
        let line = padded(&mut cells.iter().map(String::as_str));
        if first { format!("{}\n{line}\n", padded(&mut header.iter().copied())) } else { format!("{line}\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn columns_of_a_table_without_an_end_only_grow() {
        let mut rows = Rows::default();
        let cells = |texts: [&str; 3]| texts.map(str::to_owned);
        assert_eq!(rows.line(&["A", "B", "C"], &cells(["one", "", "x"])), "A    B  C\none     x\n");
        assert_eq!(rows.line(&["A", "B", "C"], &cells(["1", "long\n", ""])), "1    long\n");
        assert_eq!(rows.line(&["A", "B", "C"], &cells(["1", "b", "c"])), "1    b      c\n");
    }
}
