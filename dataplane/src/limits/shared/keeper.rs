//! The one task beside calls: connects, comes back when Redis does, tells what is owed, and fetches tokens before they run out.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_gateway::snapshot::Window;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::held::{Asked, SETTLING, Told};
use super::script::{Answer, Ask};
use super::{Errand, LinkError, Micros, Shared};
use crate::limits::memory::length;

/// Between two attempts to reach Redis, give or take 20 %.
const EVERY: Duration = Duration::from_secs(1);
/// Redis is asked how it is when it has said nothing for so long.
const SILENCE: Micros = 1_000_000;
/// Errands that are run at a time.
const TOGETHER: usize = 64;

impl Shared {
    /// Tries once, before anybody is served: what is wrong with the settings is told, a Redis that is away is none of that.
    pub async fn connect(&self) -> Result<(), LinkError> {
        match self.link.connect().await {
            Ok(()) => {
                self.back();
                tracing::info!("limits are counted in Redis, together with the other nodes that use {}", self.settings.url);
                Ok(())
            }
            Err(error @ LinkError::File { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(
                    "Redis cannot be reached at {}: {error}. Every limit does what it says for that case, by itself among {} nodes, \
                     until Redis is there; it is tried once a second",
                    self.settings.url,
                    self.nodes()
                );
                Ok(())
            }
        }
    }

    /// Runs until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let errands = self.errands.1.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(errands) = errands else { return };
        stop.run_until_cancelled(self.work(errands)).await;
    }

    async fn work(&self, mut errands: mpsc::Receiver<Errand>) {
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(TOGETHER);
        loop {
            if self.is_away() {
                self.come_back().await;
            }
            batch.clear();
            tokio::select! {
                () = self.woken.notified() => {}
                _ = beat.tick() => self.listen().await,
                _ = errands.recv_many(&mut batch, TOGETHER) => drop(self.run(&batch).await),
            }
        }
    }

    /// Without calls nobody would notice that Redis is gone, and lost what this node had told it.
    async fn listen(&self) {
        if self.clock.now().saturating_sub(self.answered.load(Relaxed)) < SILENCE {
            return;
        }
        match self.link.ping().await {
            Ok(()) => self.succeeded(self.clock.now()),
            Err(error) => self.failed(&error, self.clock.now()),
        }
    }

    /// Returns when Redis is back and knows what this node admitted meanwhile.
    async fn come_back(&self) {
        let first = self.answered.load(Relaxed) == 0;
        let mut told = String::new();
        while let Err(error) = self.return_once().await {
            let why = error.to_string();
            if why != told {
                tracing::warn!("Redis is still away: {why}; it is tried once a second");
                told = why;
            }
            // What listens again on a socket tells nobody: it is tried, and not by all nodes at the same moment.
            tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
        }
        if !first {
            self.settling_until.store(self.clock.now() + SETTLING, Relaxed);
        }
        self.back();
        tracing::info!("Redis is back: limits are counted there again, together with the other nodes");
        // What calls admitted while the rest was told.
        drop(self.settle(|owed, _| owed > 0).await);
    }

    async fn return_once(&self) -> Result<(), LinkError> {
        self.link.connect().await?;
        let settled = self.settle(|owed, own| owed > 0 || own > 0).await;
        settled.inspect_err(|_| self.link.hang_up())
    }

    /// Redis is asked from here on.
    fn back(&self) {
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner) = super::Breaker::default();
        self.answered.store(self.clock.now(), Relaxed);
        self.away.store(false, Relaxed);
        self.stats.away(false);
    }

    /// Tells what is owed, of all windows that `concerns` picks by what is owed and what this node admitted.
    async fn settle(&self, concerns: impl Fn(u64, u64) -> bool) -> Result<(), LinkError> {
        let (mut all, now) = (Vec::new(), self.clock.now());
        self.memory.each(|count| {
            let spot = count.spot();
            for kept in count.windows() {
                let own = kept.own(now);
                if kept.held.as_ref().is_some_and(|held| concerns(held.owed, own)) {
                    all.push(Errand { spot, window: length(kept.seconds) });
                }
            }
        });
        for some in all.chunks(TOGETHER) {
            self.run(some).await?;
        }
        Ok(())
    }

    async fn run(&self, errands: &[Errand]) -> Result<(), LinkError> {
        join_all(errands.iter().map(|errand| self.errand(*errand))).await.into_iter().collect()
    }

    async fn errand(&self, errand: Errand) -> Result<(), LinkError> {
        // The second time: the answer to the first said that Redis had lost the count.
        for _ in 0..2 {
            let Some((key, asked)) = self.prepare(errand) else { return Ok(()) };
            let Asked { window, cost, wish, owed, .. } = asked;
            let window = Window { limit: window.limit.min(i64::MAX.unsigned_abs()), ..window };
            let owed = u32::try_from(owed).unwrap_or(u32::MAX);
            let ask = Ask { key: &key, window, cost, wish, owed };
            let told = self.link.tell(&ask).await;
            let now = self.clock.now();
            match told {
                Ok(answer) => {
                    self.succeeded(now);
                    if !self.note(errand, &asked, answer, now) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.give_back(errand, &asked);
                    self.failed(&error, now);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What to say of a window; none: nothing.
    fn prepare(&self, errand: Errand) -> Option<(String, Asked)> {
        let Errand { spot, window } = errand;
        let (now, nodes) = (self.clock.now(), self.nodes());
        let mut locked = self.memory.lock_spots(std::iter::once(spot));
        let count = locked.at(spot)?;
        let key = format!("{}:w{}", count.name(&self.settings.key_prefix), window.length.as_secs());
        let kept = count.window(&window);
        let own = kept.own(now);
        let held = kept.held.as_mut()?;
        // What no longer counts here need not count there.
        let owed = std::mem::take(&mut held.owed).min(own);
        // An errand without a limit is about what is owed.
        let settling = self.is_away() || self.is_settling(now) || held.is_settling(now) || window.limit == u64::MAX;
        let wish = if settling { 0 } else { held.lease.wish(&window, nodes, now) };
        if wish > 0 {
            held.lease.asking(now);
        }
        Some((key, Asked { window, cost: 0, wish, owed, sent: now }))
    }

    /// True: there is more to say.
    fn note(&self, errand: Errand, asked: &Asked, answer: Answer, now: Micros) -> bool {
        let settling = self.is_away() || self.is_settling(now) || asked.window.limit == u64::MAX;
        let mut locked = self.memory.lock_spots(std::iter::once(errand.spot));
        let Some(count) = locked.at(errand.spot) else { return false };
        let kept = count.window(&errand.window);
        let own = kept.own(now);
        let told = Told { answer, admitted: false, own, settling, now };
        kept.held.get_or_insert_default().answered(asked, &told)
    }

    fn give_back(&self, errand: Errand, asked: &Asked) {
        let mut locked = self.memory.lock_spots(std::iter::once(errand.spot));
        let Some(count) = locked.at(errand.spot) else { return };
        let held = count.window(&errand.window).held.get_or_insert_default();
        held.owed += asked.owed;
        held.lease.failed();
    }
}
