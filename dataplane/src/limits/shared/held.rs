//! What a node knows of one window of a count that nodes share: what Redis last said of it, what the node holds of it, what it owes.
//!
//! Pure: time comes in. Asks nobody; whoever does tells it what was answered.

use mcp_gateway::snapshot::Window;

use super::lease::Lease;
use super::script::Answer;
use crate::limits::Mode;
use crate::limits::window::{BUCKETS, Micros, Standing, bucket_length};

#[cfg(test)]
mod tests;

/// For so long after Redis was back, a call has to fit this node's own cap as well: until then every node has told what it admitted
/// meanwhile, those too that tried a moment later.
pub(super) const SETTLING: Micros = 3_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::limits) struct Held {
    seen: Option<Seen>,
    denied: Option<Denied>,
    pub lease: Lease,
    /// Admitted here and not counted in Redis.
    pub owed: u64,
    /// When the count in Redis began.
    born: Micros,
    settling_until: Micros,
    /// How much of the count was this node's when it was first decided without Redis; none: it is not.
    kept: Option<u64>,
    counted: Counted,
}

/// Where the last call was counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    #[default]
    InRedis,
    Here,
}

/// How the count stood when Redis last said.
#[derive(Debug, Clone, Copy)]
struct Seen {
    used: u64,
    at: Micros,
    reset: Micros,
}

/// That so much does not fit, and until when.
#[derive(Debug, Clone, Copy)]
struct Denied {
    until: Micros,
    limit: u64,
    cost: u32,
}

/// One node of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct One {
    /// How many there are.
    pub of: u32,
    /// How much it admitted of what counts now.
    pub own: u64,
}

/// What was asked of Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub window: Window,
    pub cost: u32,
    pub wish: u32,
    pub owed: u64,
    /// Just before it was.
    pub sent: Micros,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub answer: Answer,
    /// Whether the cost was counted.
    pub admitted: bool,
    /// How much this node had admitted before, of what counts now.
    pub own: u64,
    /// Whether Redis was away until a moment ago.
    pub settling: bool,
    pub now: Micros,
}

impl Held {
    /// Until when so much is known not to fit.
    pub fn denied(&self, limit: u64, cost: u32, now: Micros) -> Option<Micros> {
        let denied = self.denied.filter(|denied| denied.until > now && limit <= denied.limit && cost >= denied.cost)?;
        Some(denied.until - now)
    }

    /// How much this node may have admitted while Redis cannot be asked, one among others.
    ///
    /// As long as what Redis last said still counts: what the node had when it was first left alone, and its share of what nobody had.
    /// Over all nodes that is the limit, however unevenly they had used it. Later, or where Redis never said: its share of the limit.
    /// Where that makes nothing at all, it is one call, or small limits would admit none.
    pub(super) fn cap(&mut self, window: &Window, cost: u32, node: One, now: Micros) -> u64 {
        let nodes = u64::from(node.of.max(1));
        let (had, left) = match self.seen.filter(|seen| now < seen.at + gone_after(window)) {
            Some(seen) => {
                let in_hand = u64::from(self.lease.tokens(now));
                (*self.kept.get_or_insert(node.own + in_hand), window.limit.saturating_sub(seen.used))
            }
            None => (0, window.limit),
        };
        match had + left / nodes {
            cap if had == 0 => cap.max(u64::from(cost).min(left)),
            cap => cap,
        }
    }

    /// Whether what Redis says is not yet all that nodes admitted.
    pub fn is_settling(&self, now: Micros) -> bool {
        now < self.settling_until
    }

    /// Takes in what was answered. True: the count in Redis was lost, and what this node had in it is owed again.
    pub(super) fn answered(&mut self, asked: &Asked, told: &Told) -> bool {
        let Told { answer, admitted, own, settling, now } = *told;
        let lost = self.is_another(answer.born, own > asked.owed, now);
        if lost || answer.born != 0 {
            self.born = answer.born;
        }
        if lost {
            self.owed = own.saturating_sub(asked.owed);
            self.kept.get_or_insert(own + u64::from(self.lease.tokens(now)));
            self.lease = Lease::default();
            self.settling_until = now + SETTLING;
        }
        let cost = if admitted { u64::from(asked.cost) } else { 0 };
        if asked.wish > 0 {
            self.lease.granted(if lost { 0 } else { answer.leased }, asked.sent + bucket_length(&asked.window));
        }
        if !settling && !self.is_settling(now) {
            self.seen = Some(Seen { used: answer.used + cost + u64::from(answer.leased), at: now, reset: answer.reset });
            self.kept = None;
        }
        if answer.wait > 0 && asked.cost > 0 {
            self.denied = Some(Denied { until: now + answer.wait, limit: asked.window.limit, cost: asked.cost });
        } else if admitted {
            self.denied = None;
        }
        self.counted = Counted::InRedis;
        lost
    }

    /// Something was admitted that Redis does not know of.
    pub fn admitted_here(&mut self, cost: u32) {
        self.owed += u64::from(cost);
        self.counted = Counted::Here;
    }

    /// Whether there is nothing to remember.
    pub fn is_idle(&self, now: Micros) -> bool {
        self.owed == 0 && self.lease.tokens(now) == 0 && self.denied.is_none_or(|denied| denied.until <= now)
    }

    /// How much is used by all nodes, as Redis last said, and what it becomes by what this node did since; until some is free; where it
    /// is counted. `own`: how this node's own part stands.
    pub fn usage(&self, own: Standing, seconds: u64, now: Micros) -> (u64, Micros, Mode) {
        let mode = match self.counted {
            Counted::Here => Mode::Share,
            Counted::InRedis if self.lease.tokens(now) > 0 => Mode::Lease,
            Counted::InRedis => Mode::Redis,
        };
        let seen = self.seen.filter(|seen| now < seen.at + seen.reset.max(seconds * 1_000_000 / BUCKETS));
        match seen {
            Some(seen) => (seen.used.max(own.used), (seen.at + seen.reset).saturating_sub(now), mode),
            None => (own.used, own.reset, mode),
        }
    }

    /// Whether a count that began at `born` is not the one that Redis spoke of, although something in that would still count: what this
    /// node had in it, or what anybody had.
    fn is_another(&self, born: Micros, own: bool, now: Micros) -> bool {
        let anybody = self.seen.is_some_and(|seen| seen.used > 0 && now < seen.at + seen.reset);
        self.born != 0 && born != self.born && (own || anybody)
    }
}

/// How long after it was admitted something may count: a window and a bucket, and one more if it was leased.
fn gone_after(window: &Window) -> Micros {
    bucket_length(window) * (BUCKETS + 2)
}
