//! The script that decides, as a command for Redis and as what Redis says to it. Knows nothing of connections.
//!
//! The body (`admit.lua`) takes the time as an argument; what is appended here gives it the clock of Redis, so that nothing a caller
//! sends can be a clock.

use aws_lc_rs::digest;
use mcp_gateway::snapshot::Window;
use redis::{Cmd, Value};

use crate::limits::Micros;

#[cfg(test)]
mod tests;

const BODY: &str = include_str!("admit.lua");
/// On the clock of Redis. A count outlives what it counts by a second.
const ON_REDIS_TIME: &str = "
local clock = redis.call('TIME')
return admit(tonumber(clock[1]) * 1000000 + tonumber(clock[2]), KEYS, ARGV, 1000)
";
/// Numbers that the script says of each window.
const NUMBERS: usize = 5;

/// One window of one count, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    pub key: &'a str,
    pub window: Window,
    pub cost: u32,
    /// Tokens to lease beside the cost.
    pub wish: u32,
    /// What was admitted without being counted there.
    pub owed: u32,
}

/// What Redis says of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// How much of the limit was used before.
    pub used: u64,
    /// Until the cost would fit; 0: it does. Counted are the costs of all windows of a call, if each of them fits.
    pub wait: Micros,
    /// Until some of what was used is free again; 0: nothing was used.
    pub reset: Micros,
    /// Tokens leased.
    pub leased: u32,
    /// When the count began, on the clock of Redis; 0: there is none.
    pub born: Micros,
}

/// That what Redis said is not an answer of the script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the script's answer has another shape: {0}")]
pub struct Broken(String);

/// The script, ready to be sent.
#[derive(Debug)]
pub struct Script {
    source: String,
    /// SHA-1 in hexadecimal: what Redis calls it by.
    name: String,
}

impl Default for Script {
    fn default() -> Self {
        Self::ending(ON_REDIS_TIME)
    }
}

impl Script {
    fn ending(ending: &str) -> Self {
        let source = format!("{BODY}{ending}");
        let name = hex::encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes()));
        Self { source, name }
    }

    /// By name: only works where Redis has seen it.
    #[must_use]
    pub fn by_name(&self, asks: &[Ask<'_>]) -> Cmd {
        command("EVALSHA", &self.name, asks)
    }

    /// With its source, which makes Redis remember it.
    #[must_use]
    pub fn in_full(&self, asks: &[Ask<'_>]) -> Cmd {
        command("EVAL", &self.source, asks)
    }
}

fn command(verb: &str, script: &str, asks: &[Ask<'_>]) -> Cmd {
    let mut command = redis::cmd(verb);
    command.arg(script).arg(asks.len());
    for ask in asks {
        command.arg(ask.key);
    }
    for ask in asks {
        let Window { limit, length } = ask.window;
        command.arg(limit).arg(length.as_secs()).arg(ask.cost).arg(ask.wish).arg(ask.owed);
    }
    command
}

/// Reads what the script said of `windows` windows.
pub fn answers(value: &Value, windows: usize) -> Result<Vec<Answer>, Broken> {
    let broken = || Broken(format!("{value:?}").chars().take(200).collect());
    let Value::Array(values) = value else { return Err(broken()) };
    let number = |value: &Value| if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None };
    let numbers: Vec<u64> = values.iter().map_while(number).collect();
    if numbers.len() != values.len() || numbers.len() != NUMBERS * windows {
        return Err(broken());
    }
    let answer = |of: &[u64]| {
        let leased = u32::try_from(of[3]).unwrap_or(u32::MAX);
        Answer { used: of[0], wait: of[1], reset: of[2], leased, born: of[4] }
    };
    Ok(numbers.chunks_exact(NUMBERS).map(answer).collect())
}
