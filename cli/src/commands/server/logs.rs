//! `mcpgw server logs`: what the processes of a stdio server wrote to stderr, and to stdout without it being a message.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args as Flags;
use serde::{Deserialize, Serialize};

use crate::commands::desk::{Answer, Desk, Order, moment};
use crate::commands::tools::failed;
use crate::context::Context;
use crate::names;
use crate::output::{self, Format};

/// Before a stream that the gateway ended is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Flags of `server logs`.
#[derive(Debug, Flags)]
#[command(after_help = "\
Examples:
  mcpgw server logs time
  mcpgw server logs time --follow
  mcpgw server logs organizations/acme/servers/time -o json
  mcpgw server logs time --follow -o json | jq -r .text

Nodes keep the last lines of each server. --follow begins with those. Nodes that join later are not followed.")]
pub struct Args {
    /// The server
    server: String,
    /// Goes on with what is written from now on; with -o json, a line of JSON for each
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    #[serde(default)]
    lines: Vec<Line>,
    /// What nodes did not keep until it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missed: Vec<Missed>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    node: String,
    /// Grows from line to line of a node.
    number: u64,
    at_ms: u64,
    pid: u32,
    stream: String,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Missed {
    node: String,
    lines: u64,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let (org, slug) = names::parts("servers", &args.server)?;
    let order = || Order::get("/stdio/logs").with("server", slug).of(org);
    if args.follow {
        return follow(cx, &args.desk, order).await;
    }
    let mut answer: Answer<Told> = args.desk.order(cx, order()).await?;
    answer.warn();
    let lines = &mut answer.told.lines;
    lines.sort_by(|one, other| (one.at_ms, &one.node, one.number).cmp(&(other.at_ms, &other.node, other.number)));
    cx.out.value(&answer, || answer.told.lines.iter().map(spoken).collect())
}

/// Shows lines as they come. The gateway ends a stream that has lasted for long, or whose token expires: with a fresh one it goes on.
async fn follow<'o>(cx: &Context, desk: &Desk, order: impl Fn() -> Order<'o>) -> anyhow::Result<()> {
    let mut shown = Shown::default();
    loop {
        let mut events = desk.events(cx, order().with("follow", "true")).await?;
        while let Some(answer) = events.next::<Answer<Told>>().await.map_err(failed)? {
            answer.warn();
            for Missed { node, lines } in &answer.told.missed {
                eprintln!("warning: node {node} wrote {lines} lines faster than they were read; they are not in here");
            }
            for line in shown.new_of(answer.told.lines) {
                match cx.out.format {
                    Format::Table => cx.out.value(&line, || spoken(&line))?,
                    Format::Json | Format::Yaml => cx.out.line(&line)?,
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number of the last line of each node that was shown.
#[derive(Default)]
struct Shown(HashMap<String, u64>);

impl Shown {
    /// Lines that were not shown yet.
    fn new_of(&mut self, mut lines: Vec<Line>) -> Vec<Line> {
        lines.retain(|line| {
            let last = self.0.entry(line.node.clone()).or_default();
            let is_new = line.number > *last;
            *last = line.number.max(*last);
            is_new
        });
        lines
    }
}

fn spoken(line: &Line) -> String {
    let Line { node, at_ms, pid, stream, text, .. } = line;
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {node} {pid} {stream}: {text}\n", output::time(Some(&moment(at_ms / 1000))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str, number: u64) -> Line {
        Line { node: node.into(), number, at_ms: 1, pid: 1, stream: "stderr".into(), text: "same".into() }
    }

    #[test]
    fn every_line_is_shown_once_whichever_node_wrote_it() {
        let mut shown = Shown::default();
        assert_eq!(shown.new_of(vec![line("a", 1), line("b", 7), line("a", 3)]), [line("a", 1), line("b", 7), line("a", 3)]);
        // Asked anew, what was kept comes again.
        assert_eq!(shown.new_of(vec![line("a", 1), line("a", 3), line("a", 4), line("b", 7)]), [line("a", 4)]);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(spoken(&Line { text: "a\u{1b}[2J".into(), ..line("a", 1) }), "1970-01-01T00:00:00Z a 1 stderr: a [2J\n");
    }
}
