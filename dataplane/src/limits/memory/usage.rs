//! How full counts are, as this node knows them.

use std::sync::atomic::Ordering::Relaxed;

use super::{Count, Kept, Memory, length};
use crate::limits::usage::{Fullest, Level, Mode, Usage};
use crate::limits::window::Micros;

impl Memory {
    /// The fullest, by the part of them that is used.
    pub fn usage(&self, most: usize, now: Micros) -> Vec<Usage> {
        let mut fullest = Fullest::new(most);
        self.each(|count| count.describe(now, &mut fullest));
        fullest.into_usage()
    }
}

impl Count {
    fn describe(&mut self, now: Micros, fullest: &mut Fullest) {
        let longest = self.windows.iter().map(|kept| kept.seconds).max().unwrap_or_default();
        if self.is_idle(now) && now.saturating_sub(self.last_used) > 1_000_000 * longest {
            self.refused = 0;
        }
        let (key, refused) = (&self.key, self.refused);
        let describe = |seconds, Level { used, admits, refused }: Level, reset, mode| Usage {
            org: key.org.to_string(),
            limit: key.limit.to_string(),
            caller: key.caller.as_ref().map(ToString::to_string).unwrap_or_default(),
            server: key.server.as_deref().unwrap_or_default().to_owned(),
            pattern: key.pattern.as_deref().unwrap_or_default().to_owned(),
            seconds,
            admits,
            used,
            refused,
            reset,
            mode,
        };
        if let Some(in_flight) = &self.in_flight {
            let level = Level { used: in_flight.load(Relaxed).into(), admits: self.most_in_flight.into(), refused };
            fullest.offer(level, || describe(0, level, 0, Mode::Memory));
        }
        for Kept { seconds, admits, counter, held } in &mut self.windows {
            let own = counter.standing(&length(*seconds), u64::MAX, 0, now);
            let (used, reset, mode) = match held {
                None => (own.used, own.reset, Mode::Memory),
                Some(held) => held.usage(own, *seconds, now),
            };
            let level = Level { used, admits: *admits, refused };
            fullest.offer(level, || describe(*seconds, level, reset, mode));
        }
    }
}
