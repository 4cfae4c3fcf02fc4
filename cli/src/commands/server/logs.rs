//! `mcpgw server logs`: what the processes of a stdio server wrote to stderr, and to stdout without it being a message.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args as Flags;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::commands::desk::{Desk, escaped, moment};
use crate::context::Context;
use crate::output::{self, Format};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Flags of `server logs`.
#[derive(Debug, Flags)]
#[command(after_help = "\
Examples:
  mcpgw server logs time
  mcpgw server logs time --follow
  mcpgw server logs time -o json

Nodes keep the last lines of each server. --follow looks every two seconds; of a server that writes more than that between two looks,
lines are missed.")]
pub struct Args {
    /// The server's slug
    server: String,
    /// Goes on with what is written from now on; with -o json, a line of JSON for each
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    desk: Desk,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    node: String,
    at_ms: u64,
    pid: u32,
    stream: String,
    text: String,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let path = format!("/stdio/logs?server={}", escaped(&args.server));
    let mut seen = Seen::default();
    let first = seen.new_lines(args.desk.order::<Told>(cx, Method::GET, &path, None).await?.lines);
    if !args.follow {
        return cx.out.value(&first, || first.iter().map(spoken).collect());
    }
    let mut lines = first;
    loop {
        for line in &lines {
            match cx.out.format {
                Format::Table => cx.out.value(line, || spoken(line))?,
                Format::Json | Format::Yaml => cx.out.line(line)?,
            }
        }
        tokio::time::sleep(PAUSE).await;
        lines = seen.new_lines(args.desk.order::<Told>(cx, Method::GET, &path, None).await?.lines);
    }
}

/// What each node told last time.
#[derive(Default)]
struct Seen(HashMap<String, Vec<Line>>);

impl Seen {
    /// Lines that were not there last time, oldest first. A node that did not answer keeps its place.
    fn new_lines(&mut self, lines: Vec<Line>) -> Vec<Line> {
        let mut by_node: HashMap<String, Vec<Line>> = HashMap::new();
        lines.into_iter().for_each(|line| by_node.entry(line.node.clone()).or_default().push(line));
        let mut new = Vec::new();
        for (node, told) in by_node {
            let before = self.0.get(&node).map(Vec::as_slice).unwrap_or_default();
            // What a node keeps moves on: the end of the last answer is the beginning of this one.
            let known = (0..=before.len().min(told.len())).rev().find(|known| before.ends_with(&told[..*known]));
            new.extend_from_slice(&told[known.unwrap_or_default()..]);
            self.0.insert(node, told);
        }
        new.sort_by(|one, other| (one.at_ms, &one.node).cmp(&(other.at_ms, &other.node)));
        new
    }
}

fn spoken(line: &Line) -> String {
    let Line { node, at_ms, pid, stream, text } = line;
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {node} {pid} {stream}: {text}\n", output::time(Some(&moment(at_ms / 1000))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str, at_ms: u64) -> Line {
        Line { node: node.into(), at_ms, pid: 1, stream: "stderr".into(), text: "same".into() }
    }

    #[test]
    fn every_line_is_shown_once_whichever_node_wrote_it() {
        let mut seen = Seen::default();
        assert_eq!(seen.new_lines(vec![line("a", 1), line("a", 3), line("b", 2)]), [line("a", 1), line("b", 2), line("a", 3)]);
        assert_eq!(seen.new_lines(vec![line("a", 1), line("a", 3), line("b", 2)]), []);
        // The oldest is forgotten, one that looks the same is new, and the other node is away.
        assert_eq!(seen.new_lines(vec![line("a", 3), line("a", 3)]), [line("a", 3)]);
        assert_eq!(seen.new_lines(vec![line("b", 2), line("b", 5)]), [line("b", 5)]);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(spoken(&Line { text: "a\u{1b}[2J".into(), ..line("a", 1) }), "1970-01-01T00:00:00Z a 1 stderr: a [2J\n");
    }
}
