//! What a node decides without asking: by tokens in hand, by a refusal that still holds, or by its own cap while Redis is away.

use std::sync::Arc;

use mcp_gateway::snapshot::{Away, Window};
use smallvec::SmallVec;

use super::held::One;
use super::{Locked, Micros, Shared, Spot};
use crate::limits::memory::{Kept, keep_tightest};
use crate::limits::window::Standing;
use crate::limits::{Admission, Decision, Demand, How, Refusal, Room, Why};

/// What a caller is told to wait at most while Redis is away: it may be back in a moment, with more.
const WAIT_AWAY: Micros = 5_000_000;

/// One window that a call needs room in.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub spot: Spot,
    /// Which of the call's demands.
    pub demand: usize,
    pub window: Window,
    pub cost: u32,
    pub away: Away,
    pub name: Arc<str>,
}

pub(super) type Claims = SmallVec<[Claim; 4]>;

/// What does not fit, and for how long not.
type Unfit = (Micros, How, Refusal);

impl Shared {
    /// Decides, or says what Redis has to be asked.
    pub fn begin(&self, demands: &[Demand<'_>], now: Micros) -> Decision {
        let hashes = self.memory.hashes(demands);
        let mut locked = self.memory.lock(hashes.iter().copied());
        let mut claims = Claims::new();
        for (number, (demand, hash)) in demands.iter().zip(&hashes).enumerate() {
            let refused = |why| Decision::Now(Err(Refusal { demand: number, why }));
            let Some(count) = locked.count(demand, *hash, now) else { return refused(Why::Crowded) };
            if let Some(why) = count.is_full(demand) {
                count.refused += 1;
                self.stats.decided(How::Memory, false);
                return refused(why);
            }
            let claim = |window: &Window| Claim {
                spot: count.spot(),
                demand: number,
                window: *window,
                cost: demand.cost,
                away: demand.limit.away,
                name: demand.limit.name.clone(),
            };
            claims.extend(demand.limit.windows.iter().map(claim));
        }
        let decided = match self.without_asking(&mut locked, &claims, now) {
            Some(Err(refusal)) => return Decision::Now(Err(refusal)),
            Some(Ok(tightest)) => Some(tightest),
            None => None,
        };
        let mut admission = Admission::default();
        for (demand, hash) in demands.iter().zip(&hashes) {
            if let Some(count) = locked.count(demand, *hash, now) {
                count.take_place(demand, &mut admission.in_flight);
            }
        }
        match decided {
            Some(tightest) => Decision::Now(Ok(Admission { tightest, ..admission })),
            None => Decision::Ask(Box::new(self.question(&mut locked, claims, admission, now))),
        }
    }

    /// What can be decided here; none: Redis has to be asked.
    fn without_asking(&self, locked: &mut Locked<'_>, claims: &Claims, now: Micros) -> Option<Result<Option<Room>, Refusal>> {
        if claims.is_empty() {
            self.stats.decided(How::Memory, true);
            return Some(Ok(None));
        }
        if self.is_away() {
            return Some(self.alone(locked, claims, now));
        }
        // Until all nodes have told what they admitted meanwhile, what Redis says is not enough.
        let settling = self.is_settling(now);
        if let Some(unfit) = self.beyond_cap(locked, claims, settling, now) {
            return Some(Err(self.refuse(locked, claims, unfit)));
        }
        if !settling && let Some(room) = self.spend_leases(locked, claims, now) {
            self.stats.decided(How::Lease, true);
            return Some(Ok(room));
        }
        denied(locked, claims, now).map(|unfit| Err(self.refuse(locked, claims, unfit)))
    }

    /// Decides without Redis, as each limit says for that case. What is admitted is owed.
    pub(super) fn alone(&self, locked: &mut Locked<'_>, claims: &Claims, now: Micros) -> Result<Option<Room>, Refusal> {
        let (mut worst, mut tightest, mut how) = (None, None, How::Open);
        for claim in claims {
            match claim.away {
                Away::Open => {}
                Away::Closed => {
                    let refusal = Refusal { demand: claim.demand, why: Why::Away };
                    keep_longest(&mut worst, (Micros::MAX, How::Closed, refusal));
                }
                Away::Share => {
                    how = How::Share;
                    match self.within_cap(locked, claim, now) {
                        Ok(room) => keep_tightest(&mut tightest, room),
                        Err(unfit) => keep_longest(&mut worst, unfit),
                    }
                }
            }
        }
        if let Some(unfit) = worst {
            return Err(self.refuse(locked, claims, unfit));
        }
        for claim in claims {
            with(locked, claim, |kept| {
                kept.take(&claim.window, claim.cost, now);
                kept.held.get_or_insert_default().admitted_here(claim.cost);
            });
        }
        self.stats.decided(how, true);
        Ok(tightest)
    }

    /// What does not fit this node's own cap, of claims that have to until all nodes have told what they know.
    fn beyond_cap(&self, locked: &mut Locked<'_>, claims: &Claims, settling: bool, now: Micros) -> Option<Unfit> {
        let mut worst = None;
        for claim in claims.iter().filter(|claim| claim.away != Away::Open) {
            let here = with(locked, claim, |kept| kept.held.as_ref().is_some_and(|held| held.is_settling(now)));
            if (settling || here == Some(true))
                && let Err(unfit) = self.within_cap(locked, claim, now)
            {
                keep_longest(&mut worst, unfit);
            }
        }
        worst
    }

    fn within_cap(&self, locked: &mut Locked<'_>, claim: &Claim, now: Micros) -> Result<Option<Room>, Unfit> {
        let nodes = self.nodes();
        let looked = with(locked, claim, |kept| {
            let held = kept.held.get_or_insert_default();
            let denied = held.denied(claim.window.limit, claim.cost, now);
            let own = kept.counter.standing(&claim.window, u64::MAX, 0, now).used;
            let cap = held.cap(&claim.window, claim.cost, One { of: nodes, own }, now);
            let standing = kept.counter.standing(&claim.window, cap, claim.cost, now);
            (cap, Standing { wait: standing.wait.max(denied.unwrap_or(0)), ..standing })
        });
        // A count that had to make room for others begins anew.
        let Some((cap, standing)) = looked else { return Ok(None) };
        let spent = if standing.wait == 0 { u64::from(claim.cost) } else { 0 };
        let room = claim.room(cap.saturating_sub(standing.used + spent), standing.reset);
        if standing.wait == 0 {
            return Ok(Some(room));
        }
        let why = Why::Window { room, wait: standing.wait.min(WAIT_AWAY) };
        Err((standing.wait, How::Share, Refusal { demand: claim.demand, why }))
    }

    /// Spends tokens, if there are enough in every window; how the tightest stands.
    fn spend_leases(&self, locked: &mut Locked<'_>, claims: &Claims, now: Micros) -> Option<Option<Room>> {
        let there = |claim: &Claim| {
            with(locked, claim, |kept| kept.held.as_ref().is_some_and(|held| held.lease.tokens(now) >= claim.cost))
        };
        if !claims.iter().map(there).all(|there| there == Some(true)) {
            return None;
        }
        let (mut tightest, nodes) = (None, self.nodes());
        for claim in claims {
            let spent = with(locked, claim, |kept| {
                kept.take(&claim.window, claim.cost, now);
                let own = kept.counter.standing(&claim.window, u64::MAX, 0, now);
                let held = kept.held.get_or_insert_default();
                held.lease.check(now);
                held.lease.spend(claim.cost, now);
                let low = held.lease.is_low(&claim.window, nodes, now) && held.lease.wish(&claim.window, nodes, now) > 0;
                (low, held.usage(own, kept.seconds, now))
            });
            let Some((low, (used, reset, _))) = spent else { continue };
            if low {
                self.nudge(claim.spot, claim.window);
            }
            keep_tightest(&mut tightest, Some(claim.room(claim.window.limit.saturating_sub(used), reset)));
        }
        Some(tightest)
    }

    pub(super) fn refuse(&self, locked: &mut Locked<'_>, claims: &Claims, unfit: Unfit) -> Refusal {
        let (_, how, refusal) = unfit;
        let spot = claims.iter().find(|claim| claim.demand == refusal.demand).map(|claim| claim.spot);
        spot.and_then(|spot| locked.at(spot)).into_iter().for_each(|count| count.refused += 1);
        self.stats.decided(how, false);
        refusal
    }
}

/// What Redis refused a moment ago, and would refuse again.
fn denied(locked: &mut Locked<'_>, claims: &Claims, now: Micros) -> Option<Unfit> {
    let mut worst = None;
    for claim in claims {
        let (limit, cost) = (claim.window.limit, claim.cost);
        let wait = with(locked, claim, |kept| kept.held.as_ref().and_then(|held| held.denied(limit, cost, now)));
        if let Some(wait) = wait.flatten() {
            let why = Why::Window { room: claim.room(0, wait), wait };
            keep_longest(&mut worst, (wait, How::Redis, Refusal { demand: claim.demand, why }));
        }
    }
    worst
}

/// Of several that do not fit, the one that takes longest is told.
pub(super) fn keep_longest(worst: &mut Option<Unfit>, unfit: Unfit) {
    if worst.as_ref().is_none_or(|(longest, _, _)| unfit.0 > *longest) {
        *worst = Some(unfit);
    }
}

/// The window of a claim; none if its count had to make room for others.
pub(super) fn with<T>(locked: &mut Locked<'_>, claim: &Claim, look: impl FnOnce(&mut Kept) -> T) -> Option<T> {
    locked.at(claim.spot).map(|count| look(count.window(&claim.window)))
}

impl Claim {
    pub fn room(&self, remaining: u64, reset: Micros) -> Room {
        let length = self.window.length.as_secs();
        let reset = if reset == 0 { 1_000_000 * length } else { reset };
        Room { name: self.name.clone(), limit: self.window.limit, length, remaining, reset }
    }
}
