//! What happens while room is scarce: which records of class access are kept, and what is said of those that are not. Every record that is
//! not kept is counted in a gap of its lane, and the gap becomes a record itself as soon as there is room for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcp_gateway::proto::node::v1::{AuditEvent, Decided, Gap, OrgGap, audit_event::Event};
use prost::Message;
use uuid::Uuid;

use super::queue::{Payload, Queue};
use super::{Class, Place, Spool, event, locked};
use crate::audit::frame;

/// From here on operators are told, and only a part of the access records is kept.
pub(super) const ALERT_PERCENT: u64 = 80;
/// From here on no access record is kept: what is left is for class audit.
pub(super) const ACCESS_PERCENT: u64 = 95;
/// The part that is kept becomes half as large with each of these steps.
const STEP_PERCENT: u64 = 5;
/// Organisations that one gap tells apart.
const MOST_ORGS: usize = 16;
/// How long a gap stays in memory while more is left out: a killed process says nothing of what it left out since then.
const LONGEST_UNSAID: Duration = Duration::from_secs(1);

/// What was left out of a lane and is not on record yet.
#[derive(Debug, Default)]
pub(super) struct Omitted {
    gap: Gap,
    orgs: BTreeMap<String, OrgGap>,
    /// When the last gap of the lane was put on record.
    said: Option<Instant>,
}

/// Of so many access records one is kept; none: all are left out.
pub(super) fn one_of(percent_full: u64) -> Option<u64> {
    match percent_full {
        ..ALERT_PERCENT => Some(1),
        ALERT_PERCENT..ACCESS_PERCENT => Some(2 << ((percent_full - ALERT_PERCENT) / STEP_PERCENT)),
        ACCESS_PERCENT.. => None,
    }
}

impl Omitted {
    fn add(&mut self, class: Class, org: &str, at_us: i64) {
        self.cover(at_us, at_us);
        let known = self.orgs.len() < MOST_ORGS || self.orgs.contains_key(org);
        let mut none = OrgGap::default();
        let of_org = if known && !org.is_empty() { self.orgs.entry(org.to_owned()).or_default() } else { &mut none };
        match class {
            Class::Access => (self.gap.access, of_org.access) = (self.gap.access + 1, of_org.access + 1),
            Class::Audit => (self.gap.audit, of_org.audit) = (self.gap.audit + 1, of_org.audit + 1),
        }
    }

    /// What could not be put on record after all.
    fn add_back(&mut self, gap: Gap) {
        self.cover(gap.from_us, gap.until_us);
        self.gap.access += gap.access;
        self.gap.audit += gap.audit;
        for OrgGap { org_id, access, audit } in gap.orgs {
            let of_org = self.orgs.entry(org_id).or_default();
            (of_org.access, of_org.audit) = (of_org.access + access, of_org.audit + audit);
        }
    }

    fn cover(&mut self, from_us: i64, until_us: i64) {
        if self.is_empty() {
            (self.gap.from_us, self.gap.until_us) = (from_us, until_us);
        }
        self.gap.from_us = self.gap.from_us.min(from_us);
        self.gap.until_us = self.gap.until_us.max(until_us);
    }

    fn is_empty(&self) -> bool {
        (self.gap.access, self.gap.audit) == (0, 0)
    }

    fn is_due(&self) -> bool {
        !self.is_empty() && self.said.is_none_or(|said| said.elapsed() >= LONGEST_UNSAID)
    }

    fn take(&mut self) -> Gap {
        let mut gap = std::mem::take(&mut self.gap);
        gap.gap_id = Uuid::now_v7().to_string();
        gap.orgs = std::mem::take(&mut self.orgs).into_iter().map(|(org_id, of)| OrgGap { org_id, ..of }).collect();
        gap
    }
}

impl Spool {
    /// Whether this one of the access records is to be kept.
    pub(super) fn keeps(&self, class: Class) -> bool {
        match (class, one_of(self.percent_full())) {
            (Class::Audit, _) | (Class::Access, Some(1)) => true,
            (Class::Access, Some(n)) => self.sampled.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(n),
            (Class::Access, None) => false,
        }
    }

    /// Counts a record that is not kept. True: the gap has to be put on record now.
    pub(super) fn omit(&self, queue: &mut Queue, class: Class, decided: &Decided) -> bool {
        queue.omitted.add(class, &decided.org_id, decided.decided_at_us);
        queue.omitted.is_due() && self.say(queue)
    }

    /// Queues what was left out of a lane, if there is room for everything again, or it has been in memory for long enough.
    pub(super) fn say_due(&self, queue: &mut Queue) -> bool {
        (queue.omitted.is_due() || self.percent_full() < ALERT_PERCENT) && self.say(queue)
    }

    /// Queues what was left out of a lane, if anything was and there is room to say so.
    pub(super) fn say(&self, queue: &mut Queue) -> bool {
        if queue.omitted.is_empty() {
            return false;
        }
        let gap = queue.omitted.take();
        let size = queue.push(Place::Gap, None, |payload| event::gap(&gap, payload));
        if self.reserve(Class::Audit, frame::size(size) as u64).is_err() {
            queue.pop();
            queue.omitted.add_back(gap);
            return false;
        }
        queue.omitted.said = Some(Instant::now());
        true
    }

    /// Puts on record what was left out of every lane, as far as there is room; `due`: only what is due.
    pub(super) fn say_gaps(&self, due: bool) {
        // Twice: what finds no room in one lane goes to the next one.
        for (lane, slot) in self.slots.iter().enumerate().chain(self.slots.iter().enumerate()) {
            // Bound to a name, or the lock would be held while writing.
            let said = {
                let mut queue = locked(&slot.queue);
                if due { self.say_due(&mut queue) } else { self.say(&mut queue) }
            };
            if said {
                self.flush(lane);
            }
        }
    }

    /// A disk had no room for these, or for none but the ends among them: calls without a record are a gap, and a gap that is not written
    /// is one still. It goes to the next lane: that one may have room of its own while this one has none.
    pub(super) fn unwritten<'a>(&self, lane: usize, payloads: impl Iterator<Item = Payload<'a>>) {
        for Payload { place, bytes, .. } in payloads {
            match (place, AuditEvent::decode(bytes).ok().and_then(|event| event.event)) {
                (Place::Begins, Some(Event::Decided(decided))) => {
                    let omitted = &mut locked(&self.slots[lane].queue).omitted;
                    omitted.add(Class::of(&decided), &decided.org_id, decided.decided_at_us);
                }
                (Place::Gap, Some(Event::Gap(gap))) => {
                    let next = (lane + 1) % self.slots.len();
                    locked(&self.slots[next].queue).omitted.add_back(gap);
                }
                (Place::Begins | Place::Between | Place::Ends | Place::Gap, _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_room_there_is_the_fewer_access_records_are_kept() {
        let table =
            [(0, Some(1)), (79, Some(1)), (80, Some(2)), (84, Some(2)), (85, Some(4)), (90, Some(8)), (94, Some(8)), (95, None)];
        for (percent, expected) in table {
            assert_eq!(one_of(percent), expected, "{percent} %");
        }
        assert_eq!(one_of(u64::MAX), None);
    }

    #[test]
    fn a_gap_tells_how_many_of_whom_and_from_when_to_when() {
        let mut omitted = Omitted::default();
        for n in 0..100 {
            omitted.add(Class::Access, &format!("org-{}", n % 20), 1_000 + n);
        }
        omitted.add(Class::Audit, "", 10);
        let gap = omitted.take();
        assert_eq!((gap.from_us, gap.until_us, gap.access, gap.audit, gap.orgs.len()), (10, 1_099, 100, 1, MOST_ORGS));
        assert_eq!(gap.orgs.iter().map(|org| org.access).sum::<u64>(), 5 * MOST_ORGS as u64);
        assert!(omitted.is_empty());
        omitted.add(Class::Access, "org-1", 2_000);
        omitted.add_back(gap);
        let all = omitted.take();
        assert_eq!((all.from_us, all.until_us, all.access, all.audit), (10, 2_000, 101, 1));
        assert_eq!(all.orgs.iter().find(|org| org.org_id == "org-1").map(|org| org.access), Some(6));
    }
}
