//! One question to Redis: all windows of a call, in one script call, and what becomes of the answer.

use smallvec::SmallVec;

use super::decide::{Claims, keep_longest, with};
use super::held::{Asked, Told};
use super::script::{Answer, Ask};
use super::{Locked, Micros, Shared};
use crate::limits::memory::keep_tightest;
use crate::limits::{Admission, How, Refusal, Why};

/// A call that Redis has to decide. Dropped, it gives back what it holds in flight; what Redis counted stays counted.
#[derive(Debug)]
pub struct Question {
    claims: Claims,
    /// What each window is called, and how many tokens it should bring along.
    wanted: SmallVec<[(String, u32); 4]>,
    /// What is in flight already.
    admission: Admission,
    sent: Micros,
}

impl Shared {
    pub(super) fn question(&self, locked: &mut Locked<'_>, claims: Claims, admission: Admission, now: Micros) -> Question {
        let nodes = self.nodes();
        let mut wishes: SmallVec<[u32; 4]> = SmallVec::new();
        let mut hot = !self.is_settling(now);
        for claim in &claims {
            let wish = with(locked, claim, |kept| {
                let lease = &mut kept.held.get_or_insert_default().lease;
                lease.check(now);
                (lease.wish(&claim.window, nodes, now), lease.quota(&claim.window, nodes))
            });
            let (wish, quota) = wish.unwrap_or_default();
            // Tokens in one window are of no use to calls that have to ask for another.
            hot &= quota > 0;
            wishes.push(wish);
        }
        let mut wanted = SmallVec::new();
        for (claim, wish) in claims.iter().zip(wishes) {
            let wish = if hot { wish } else { 0 };
            if wish > 0 {
                with(locked, claim, |kept| kept.held.get_or_insert_default().lease.asking(now));
            }
            let name = locked.at(claim.spot).map(|count| count.name(&self.settings.key_prefix)).unwrap_or_default();
            wanted.push((format!("{name}:w{}", claim.window.length.as_secs()), wish));
        }
        Question { claims, wanted, admission, sent: now }
    }

    /// Asks, for no longer than the deadline; what Redis does not say is decided without it.
    pub async fn ask(&self, question: Box<Question>) -> Result<Admission, Refusal> {
        let asks: SmallVec<[Ask<'_>; 4]> = question.asks().collect();
        let answered = self.link.decide(&asks, &self.stats).await;
        drop(asks);
        let now = self.clock.now();
        match answered {
            Ok(answers) => {
                self.succeeded(now);
                return self.take_in(*question, &answers, now);
            }
            Err(error) => self.failed(&error, now),
        }
        let Question { claims, mut admission, .. } = *question;
        let mut locked = self.memory.lock_spots(claims.iter().map(|claim| claim.spot));
        for claim in &claims {
            with(&mut locked, claim, |kept| kept.held.get_or_insert_default().lease.failed());
        }
        admission.tightest = self.alone(&mut locked, &claims, now)?;
        for claim in claims.iter().filter(|_| !self.is_away()) {
            // Redis is there and did not answer this once: it has to be told.
            self.nudge(claim.spot, claim.window);
        }
        Ok(admission)
    }

    /// What Redis said is noted in every window, whatever it comes to.
    fn take_in(&self, question: Question, answers: &[Answer], now: Micros) -> Result<Admission, Refusal> {
        let Question { claims, wanted, mut admission, sent } = question;
        let admitted = answers.iter().all(|answer| answer.wait == 0);
        let settling = self.is_settling(now);
        let mut locked = self.memory.lock_spots(claims.iter().map(|claim| claim.spot));
        let mut worst = None;
        for ((claim, (_, wish)), answer) in claims.iter().zip(&wanted).zip(answers) {
            let (window, cost) = (claim.window, claim.cost);
            let asked = Asked { window, cost, wish: *wish, owed: 0, sent };
            let lost = with(&mut locked, claim, |kept| {
                let own = kept.own(now);
                if admitted {
                    kept.take(&window, cost, now);
                }
                let told = Told { answer: *answer, admitted, own, settling, now };
                kept.held.get_or_insert_default().answered(&asked, &told)
            });
            if lost == Some(true) {
                self.nudge(claim.spot, window);
            }
            if answer.wait > 0 {
                let room = claim.room(window.limit.saturating_sub(answer.used), answer.reset);
                let why = Why::Window { room, wait: answer.wait };
                keep_longest(&mut worst, (answer.wait, How::Redis, Refusal { demand: claim.demand, why }));
            } else {
                let left = window.limit.saturating_sub(answer.used + u64::from(cost));
                keep_tightest(&mut admission.tightest, Some(claim.room(left, answer.reset)));
            }
        }
        if let Some(unfit) = worst {
            return Err(self.refuse(&mut locked, &claims, unfit));
        }
        self.stats.decided(How::Redis, true);
        Ok(admission)
    }
}

impl Question {
    fn asks(&self) -> impl Iterator<Item = Ask<'_>> {
        self.claims.iter().zip(&self.wanted).map(|(claim, (key, wish))| Ask {
            key,
            window: claim.window,
            cost: claim.cost,
            wish: *wish,
            owed: 0,
        })
    }
}
