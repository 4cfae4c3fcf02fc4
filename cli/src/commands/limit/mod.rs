//! `mcpgw limit`: how much may be used in which time, and how much of that is used.

mod create;
mod delete;
mod get;
mod list;
mod status;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::RateLimit;
use mcp_gateway::proto::config::v1::{LimitCost, LimitPer, LimitWindow};

use crate::args::{self, Mask};
use crate::context::Context;
use crate::matching::{Patterns, Subjects};

/// Rate limits: how much may be used in which time; a call has to fit every limit that it falls under
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists limits
    List(list::Args),
    /// Shows one limit
    Get(get::Args),
    /// Creates a limit
    Create(create::Args),
    /// Changes the fields that flags or a file name; what is counted already stays counted
    Update(update::Args),
    /// Deletes a limit
    Delete(delete::Args),
    /// Shows how much of the limits is used, and by whom
    Status(status::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
        Command::Status(args) => status::run(cx, args).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// What has counts of its own: each user, each server, each endpoint (what a pattern of the limit matches), or combinations of these;
    /// organization for one count of everything; repeatable
    #[arg(long, value_parser = args::limit_per(), value_delimiter = ',')]
    per: Vec<i32>,
    /// So much in any period of this length, such as 100/1m, 5000/1h or 3/90s; repeatable, '' for none
    #[arg(long, value_name = "N/TIME", value_parser = window)]
    window: Vec<Given<LimitWindow>>,
    /// Calls in flight per count and node; 0 for no cap
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u32>,
    /// What a call of tools counts in the windows, such as 'export_*=10'; repeatable, '' for none
    #[arg(long, value_name = "PATTERN=N", value_parser = cost)]
    cost: Vec<Given<LimitCost>>,
    /// While counts that nodes share are out of reach: each node admits its share, or everything is admitted, or refused
    #[arg(long, value_parser = args::limit_away())]
    when_away: Option<i32>,
    /// A server's slug, or * for all; repeatable, '' for all
    #[arg(long, visible_alias = "servers", value_name = "SLUG", value_delimiter = ',')]
    server: Vec<String>,
    #[command(flatten)]
    subjects: Subjects,
    #[command(flatten)]
    patterns: Patterns,
    /// A method of clients, whole, such as tools/list; repeatable, '' for none
    #[arg(long, value_name = "METHOD", help_heading = "What it is about (* stands for any run of characters)")]
    method: Vec<String>,
}

/// One of a repeatable flag; none was given as ''.
type Given<T> = Option<T>;

impl Fields {
    async fn apply(self, cx: &Context, to: &mut RateLimit, mask: &mut Mask) -> anyhow::Result<()> {
        mask.set("display_name", &mut to.display_name, self.display_name);
        let together = i32::from(LimitPer::Unspecified);
        let per = self.per.iter().copied().filter(|per| *per != together).collect();
        mask.set("per", &mut to.per, (!self.per.is_empty()).then_some(per));
        mask.set("windows", &mut to.windows, all(self.window));
        mask.set("max_concurrent", &mut to.max_concurrent, self.max_concurrent);
        mask.set("costs", &mut to.costs, all(self.cost));
        mask.set("when_away", &mut to.when_away, self.when_away);
        mask.replace("servers", &mut to.servers, self.server);
        self.subjects.apply(cx, &mut to.subjects, mask).await?;
        self.patterns.apply(self.method, &mut to.r#match, mask);
        Ok(())
    }
}

/// The list that the flags replace, if one was given.
fn all<T>(given: Vec<Given<T>>) -> Option<Vec<T>> {
    (!given.is_empty()).then(|| given.into_iter().flatten().collect())
}

/// `100/1m`, or `100/m` for one of a unit.
fn window(text: &str) -> Result<Given<LimitWindow>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (limit, time) = text.split_once('/').ok_or("expected N/TIME, such as 100/1m")?;
    let limit =
        limit.trim().parse().map_err(|_no_number| format!("{limit:?} is not a number; expected N/TIME, such as 100/1m"))?;
    let time = time.trim();
    let one = time.chars().all(|c| c.is_ascii_alphabetic()) && !time.is_empty();
    let length = args::duration(&if one { format!("1{time}") } else { time.to_owned() })?;
    let seconds = u32::try_from(length.as_secs()).map_err(|_too_long| "expected at most 30d")?;
    Ok(Some(LimitWindow { limit, seconds }))
}

/// `export_*=10`.
fn cost(text: &str) -> Result<Given<LimitCost>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (tools, cost) = text.rsplit_once('=').ok_or("expected PATTERN=N, such as 'export_*=10'")?;
    let cost =
        cost.parse().map_err(|_no_number| format!("{cost:?} is not a number; expected PATTERN=N, such as 'export_*=10'"))?;
    Ok(Some(LimitCost { tools: tools.to_owned(), cost }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_as_people_write_them() {
        let read = [("100/1m", (100, 60)), ("3/90s", (3, 90)), ("5/90", (5, 90)), ("10/h", (10, 3600)), ("1 / 2d", (1, 172_800))];
        for (text, (limit, seconds)) in read {
            assert_eq!(window(text), Ok(Some(LimitWindow { limit, seconds })), "{text}");
        }
        assert_eq!(window(""), Ok(None));
        for wrong in ["100", "/1m", "x/1m", "-1/1m", "100/", "100/1w", "100/99999999999d"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cost_is_a_pattern_and_a_number() {
        assert_eq!(cost("a=b=10"), Ok(Some(LimitCost { tools: "a=b".into(), cost: 10 })));
        assert_eq!(cost(""), Ok(None));
        for wrong in ["export", "export=", "export=-1", "=x"] {
            assert!(cost(wrong).is_err(), "{wrong}");
        }
    }
}
