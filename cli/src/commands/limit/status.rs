//! `mcpgw limit status`: how much of the limits is used, once or watched.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, SystemTime};

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::rate_limit_service_client::RateLimitServiceClient;
use mcp_gateway::proto::admin::v1::{LimitUsage, ListLimitUsageRequest, ListLimitUsageResponse};

use crate::context::Context;
use crate::names;
use crate::output::{self, Format, relative};

/// Between two looks of a watch: nodes report about every ten seconds.
const AGAIN: Duration = Duration::from_secs(2);
/// Clears the terminal and goes to its first line.
const HOME: &str = "\x1b[H\x1b[2J";

/// Flags of `limit status`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Nodes report their fullest counts about every ten seconds; what nobody uses is not listed. In the modes memory and share each\nnode counts for itself and has a line of its own; in redis and lease all nodes count together.\n\nExamples:\n  mcpgw limit status\n  mcpgw limit status searches --watch\n  mcpgw limit status searches --subject key:abc -o json | jq '.usage[].headroom'"
)]
pub struct Args {
    /// Only this limit
    #[arg(value_name = "LIMIT")]
    id: Option<String>,
    /// Only this subject, or callers without a credential at this address
    #[arg(long, default_value = "")]
    subject: String,
    /// Stop after this many, in the order of limits and subjects; 0 is all
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Shows it again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let rate_limit = match &args.id {
        Some(id) => names::child(cx, "rateLimits", id)?,
        None => String::new(),
    };
    let request = ListLimitUsageRequest { parent: cx.org()?, rate_limit, subject: args.subject, ..Default::default() };
    if !args.watch {
        let status = look(cx, &request, args.limit).await?;
        return cx.out.view(&status, || page(&status, SystemTime::now()));
    }
    loop {
        let status = look(cx, &request, args.limit).await?;
        match cx.out.format {
            Format::Table if io::stdout().is_terminal() => {
                cx.out.view(&status, || format!("{HOME}{}", page(&status, SystemTime::now())))?;
            }
            Format::Table => cx.out.view(&status, || page(&status, SystemTime::now()))?,
            Format::Json | Format::Yaml => cx.out.next(&status)?,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// All pages as one, the fullest first.
async fn look(cx: &Context, request: &ListLimitUsageRequest, most: usize) -> anyhow::Result<ListLimitUsageResponse> {
    let mut whole = ListLimitUsageResponse::default();
    let mut request = ListLimitUsageRequest { page_size: 500, ..request.clone() };
    loop {
        let call = cx.call(RateLimitServiceClient::new, request.clone(), async |c, r| c.list_limit_usage(r).await);
        let ListLimitUsageResponse { usage, next_page_token, reporting_nodes, silent_nodes } = call.await?;
        whole.usage.extend(usage);
        (whole.reporting_nodes, whole.silent_nodes) = (reporting_nodes, silent_nodes);
        let more = !next_page_token.is_empty();
        if most > 0 && whole.usage.len() + usize::from(more) > most {
            eprintln!("there is more: add --limit 0, or say which limit or subject");
            whole.usage.truncate(most);
            break;
        }
        if !more {
            break;
        }
        request.page_token = next_page_token;
    }
    // As fractions, without dividing.
    let fuller = |one: &LimitUsage, other: &LimitUsage| {
        let part = |of: &LimitUsage, by: &LimitUsage| u128::from(of.used) * u128::from(by.limit);
        part(other, one).cmp(&part(one, other))
    };
    whole.usage.sort_by(fuller);
    Ok(whole)
}

/// For people: a line per count, and who does not tell.
fn page(status: &ListLimitUsageResponse, now: SystemTime) -> String {
    const HEADER: &[&str] =
        &["LIMIT", "WHOSE", "WINDOW", "USED", "LIMIT", "HEADROOM", "FREE AGAIN", "REFUSED", "MODE", "NODE", "REPORTED"];
    let mut text = match (status.usage.is_empty(), status.reporting_nodes, status.silent_nodes) {
        (true, 0, 0) => "no node of the pool is connected\n".to_owned(),
        (true, 0, _) => "no report yet: nodes report about every ten seconds\n".to_owned(),
        (true, _, _) => "nothing is used\n".to_owned(),
        (false, _, _) => output::columns(HEADER, status.usage.iter().map(|usage| cells(usage, now))) + "\n",
    };
    if status.silent_nodes > 0 && status.reporting_nodes > 0 {
        text +=
            &format!("\nwithout a report: {} of {} nodes\n", status.silent_nodes, status.silent_nodes + status.reporting_nodes);
    }
    text
}

fn cells(usage: &LimitUsage, now: SystemTime) -> Vec<String> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let node = match usage.nodes {
        0 | 1 => last(&usage.node),
        nodes => format!("{nodes} nodes"),
    };
    vec![
        last(&usage.rate_limit),
        whose(usage),
        if usage.seconds == 0 { "in flight".into() } else { relative::exact(usage.seconds.into()) },
        usage.used.to_string(),
        usage.limit.to_string(),
        usage.headroom.to_string(),
        relative::until(usage.free_time.as_ref(), now),
        usage.refused.to_string(),
        usage.mode.clone(),
        node,
        relative::ago(usage.report_time.as_ref(), now) + " ago",
    ]
}

/// `alice github search_*`; `everybody` where nothing is told apart.
fn whose(usage: &LimitUsage) -> String {
    let parts = [&usage.subject, &usage.server, &usage.pattern].map(String::as_str);
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "everybody".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn people_see_whose_headroom_it_is_and_who_does_not_tell() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let usage = LimitUsage {
            rate_limit: "organizations/acme/rateLimits/searches".into(),
            subject: "alice".into(),
            server: "github".into(),
            seconds: 60,
            limit: 100,
            used: 97,
            headroom: 3,
            free_time: at(1_012),
            refused: 4,
            mode: "memory".into(),
            node: "nodes/n1".into(),
            nodes: 1,
            report_time: at(996),
            ..LimitUsage::default()
        };
        let flight = LimitUsage { seconds: 0, free_time: None, subject: String::new(), server: String::new(), ..usage.clone() };
        let status =
            ListLimitUsageResponse { usage: vec![usage, flight], reporting_nodes: 2, silent_nodes: 1, ..Default::default() };
        let page = page(&status, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        let line =
            |begins: &str| page.lines().find(|line| line.starts_with(begins)).unwrap().split_whitespace().collect::<Vec<_>>();
        let expected = "searches alice github 1m 97 100 3 in 12s 4 memory n1 4s ago";
        assert_eq!(line("searches  alice").join(" "), expected, "{page}");
        assert!(page.contains("everybody") && page.contains("in flight"), "{page}");
        assert!(page.ends_with("without a report: 1 of 3 nodes\n"), "{page}");
    }

    #[test]
    fn nothing_is_told_apart_from_no_report() {
        let text = |reporting_nodes, silent_nodes| {
            page(&ListLimitUsageResponse { reporting_nodes, silent_nodes, ..Default::default() }, SystemTime::now())
        };
        assert!(text(1, 0).contains("nothing is used") && text(0, 1).contains("no report yet"));
        assert!(text(0, 0).contains("no node") && text(1, 2).contains("2 of 3"));
    }
}
