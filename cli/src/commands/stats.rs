//! `mcpgw stats`: what calls add up to, once or watched.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::{Args as Flags, ValueEnum};
use mcp_gateway::proto::admin::v1::stats_service_client::StatsServiceClient;
use mcp_gateway::proto::admin::v1::{
    GetStatsRequest, Stats, StatsDimension, StatsFilter, StatsPoint, StatsSeries, WatchStatsRequest,
};
use prost_types::Timestamp;
use tonic::Code;

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Format, relative, time};

/// The pause before a watch that ended begins again.
const AGAIN: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its first line.
const HOME: &str = "\x1b[H\x1b[2J";

/// Flags of `stats`.
#[derive(Debug, Flags)]
#[command(
    after_help = "Calls count when they have ended. Patterns may have * for any text.\n\nExamples:\n  mcpgw stats --since 1h --by tool\n  mcpgw stats --by server,outcome --since 1d\n  mcpgw stats --since 6h --step 15m --tool 'search_*' -o json\n  mcpgw stats --watch --by server"
)]
pub struct Args {
    /// Not before: an RFC 3339 moment, or how long ago [default: 1h]
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    since: Option<Timestamp>,
    /// Before: an RFC 3339 moment, or how long ago [default: now]
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    until: Option<Timestamp>,
    /// Cut into points of so many minutes, such as 15m
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    step: Option<Duration>,
    /// A line for each; several with commas
    #[arg(long, value_enum, value_delimiter = ',')]
    by: Vec<By>,
    /// Only this server's slug
    #[arg(long, default_value = "", value_name = "PATTERN")]
    server: String,
    /// Only this JSON-RPC method
    #[arg(long, default_value = "", value_name = "PATTERN")]
    method: String,
    /// Only this tool, prompt or resource
    #[arg(long, alias = "tool", default_value = "", value_name = "PATTERN")]
    target: String,
    /// Only this decision
    #[arg(long, default_value = "", value_parser = ["", "allow", "deny"])]
    decision: String,
    /// Only this outcome
    #[arg(long, default_value = "")]
    outcome: String,
    /// At most this many lines; the rest adds up to one more
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=500))]
    series: i32,
    /// Shows the newest minute again every few seconds, until interrupted
    #[arg(long, conflicts_with_all = ["since", "until", "step"])]
    watch: bool,
    /// With --watch: so many of the last minutes
    #[arg(long, requires = "watch", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=60))]
    minutes: i32,
    /// With --watch: how often
    #[arg(long, requires = "watch", value_parser = args::duration, default_value = "5s")]
    interval: Duration,
}

/// What lines are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    #[value(alias = "org")]
    Organization,
    Server,
    Method,
    /// Tool, prompt or resource
    #[value(alias = "target")]
    Tool,
    Decision,
    Outcome,
}

impl By {
    fn dimension(self) -> StatsDimension {
        match self {
            Self::Organization => StatsDimension::Organization,
            Self::Server => StatsDimension::Server,
            Self::Method => StatsDimension::Method,
            Self::Tool => StatsDimension::Target,
            Self::Decision => StatsDimension::Decision,
            Self::Outcome => StatsDimension::Outcome,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Organization => "ORGANIZATION",
            Self::Server => "SERVER",
            Self::Method => "METHOD",
            Self::Tool => "TARGET",
            Self::Decision => "DECISION",
            Self::Outcome => "OUTCOME",
        }
    }

    fn cell(self, series: &StatsSeries) -> &str {
        match self {
            Self::Organization => &series.organization,
            Self::Server => &series.server,
            Self::Method => &series.method,
            Self::Tool => &series.target,
            Self::Decision => &series.decision,
            Self::Outcome => &series.outcome,
        }
    }
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org_or_all()?;
    let group_by = args.by.iter().map(|by| by.dimension().into()).collect();
    let Args { server, method, target, decision, outcome, by, series, step, .. } = args;
    let filter = Some(StatsFilter { server, method, target, decision, outcome });
    if args.watch {
        let interval = Some(args::proto_duration(args.interval));
        let request = WatchStatsRequest { parent, minutes: args.minutes, interval, group_by, filter, series };
        return watch(cx, request, &by).await;
    }
    let (since, until) = (args.since, args.until);
    let request = GetStatsRequest { parent, since, until, step: step.map(args::proto_duration), group_by, filter, series };
    let stats = cx.call(StatsServiceClient::new, request, async |c, r| c.get_stats(r).await).await?;
    cx.out.view(&stats, || page(&stats, &by, step.is_some()))
}

/// Until interrupted. A watch ends with its access token and with the replica that answers: then it begins again.
async fn watch(cx: &Context, request: WatchStatsRequest, by: &[By]) -> anyhow::Result<()> {
    loop {
        let asked = request.clone();
        let mut watched = cx.open(StatsServiceClient::new, asked, async |c, r| c.watch_stats(r).await).await?;
        let end = loop {
            match watched.message().await {
                Ok(Some(stats)) => show(cx, &stats, by)?,
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match end {
            Some(status) if !matches!(status.code(), Code::Unauthenticated | Code::Unavailable | Code::Unknown) => {
                return Err(Failure::from(status).into());
            }
            Some(_) | None => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn show(cx: &Context, stats: &Stats, by: &[By]) -> anyhow::Result<()> {
    match cx.out.format {
        Format::Table if io::stdout().is_terminal() => cx.out.view(stats, || format!("{HOME}{}", page(stats, by, false))),
        Format::Table => cx.out.view(stats, || page(stats, by, false)),
        Format::Json | Format::Yaml => cx.out.next(stats),
    }
}

/// For people: a line per series, or per point of each.
fn page(stats: &Stats, by: &[By], points: bool) -> String {
    const COUNTS: [&str; 9] = ["CALLS", "ERRORS", "DENIED", "INTERRUPTED", "P50 MS", "P95 MS", "P99 MS", "IN", "OUT"];
    let mut header: Vec<&str> = by.iter().map(|by| by.title()).collect();
    if points {
        header.push("TIME");
    }
    header.extend(COUNTS);
    let rows = stats.series.iter().flat_map(|series| {
        let shown: Vec<&StatsPoint> = if points { series.points.iter().collect() } else { series.total.iter().collect() };
        shown.into_iter().map(move |point| {
            let mut cells: Vec<String> = by.iter().map(|by| by.cell(series).to_owned()).collect();
            if let (true, Some(first)) = (series.rest, cells.first_mut()) {
                "(rest)".clone_into(first);
            }
            if points {
                cells.push(time(point.time.as_ref()));
            }
            cells.extend(counts(point));
            cells
        })
    });
    let span = format!("{} to {}", time(stats.since.as_ref()), time(stats.until.as_ref()));
    format!("{span}\n\n{}\n", output::columns(&header, rows))
}

fn counts(point: &StatsPoint) -> [String; 9] {
    #[expect(clippy::cast_precision_loss, reason = "shown to a tenth of a millisecond")]
    let milliseconds = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    [
        point.calls.to_string(),
        point.errors.to_string(),
        point.denied.to_string(),
        point.interrupted.to_string(),
        milliseconds(point.p50_us),
        milliseconds(point.p95_us),
        milliseconds(point.p99_us),
        relative::size(point.request_bytes),
        relative::size(point.response_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_series_or_per_point() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let point = |seconds, calls| StatsPoint { time: at(seconds), calls, p50_us: 1_500, ..StatsPoint::default() };
        let stats = Stats {
            since: at(0),
            until: at(120),
            series: vec![
                StatsSeries {
                    server: "github".into(),
                    total: Some(point(0, 5)),
                    points: vec![point(0, 2), point(60, 3)],
                    ..StatsSeries::default()
                },
                StatsSeries { rest: true, total: Some(point(0, 1)), points: vec![point(60, 1)], ..StatsSeries::default() },
            ],
            ..Stats::default()
        };
        let text = page(&stats, &[By::Server], false);
        assert!(text.starts_with("1970-01-01T00:00:00Z to 1970-01-01T00:02:00Z\n\nSERVER  CALLS"), "{text}");
        assert!(text.contains("github  5") && text.contains("(rest)  1") && text.contains("1.5"), "{text}");
        assert_eq!(page(&stats, &[By::Server], true).lines().count(), 2 + 1 + 3);
    }
}
