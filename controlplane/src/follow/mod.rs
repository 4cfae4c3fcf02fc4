//! What followers of the logs share: up to which number of arrival everything is settled, and their seats.
//!
//! One task per replica asks the database, and only while somebody follows. It asks four times a second instead of being notified: NOTIFY
//! takes a lock of the whole server while its transaction commits, and every batch of audit frames would wait for it.

pub mod waterline;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tracing::warn;
use uuid::Uuid;

use self::waterline::Waterline;
use crate::{
    app::Core,
    open::chain,
    store::{self, Store, logs::follow::Log},
};

/// Between two looks while somebody follows.
const LOOK: Duration = Duration::from_millis(250);
/// The same while numbers are in doubt, which they are for as long as a commit takes.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Numbers that one look takes in.
const NUMBERS: i64 = 1000;
/// Followers of one replica, and of one user at it.
const MOST: usize = 256;
const MOST_PER_USER: usize = 16;

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: watch::Sender<Option<i64>>,
    audit: watch::Sender<Option<i64>>,
    seats: Mutex<BTreeMap<Uuid, usize>>,
    joined: Notify,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            requests: watch::Sender::new(None),
            audit: watch::Sender::new(None),
            seats: Mutex::default(),
            joined: Notify::new(),
        }
    }
}

/// A follower's seat; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    inner: Arc<Inner>,
    user: Uuid,
}

impl Arrivals {
    /// None: too many follow already.
    pub fn seat(&self, user: Uuid) -> Option<Seat> {
        let mut seats = self.inner.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.get(&user).copied().unwrap_or(0);
        if seats.values().sum::<usize>() >= MOST || taken >= MOST_PER_USER {
            return None;
        }
        seats.insert(user, taken + 1);
        Some(Seat { inner: Arc::clone(&self.inner), user })
    }

    /// Up to which number a log is settled; none: not known yet.
    pub fn settled(&self, log: Log) -> watch::Receiver<Option<i64>> {
        let settled = self.of(log).subscribe();
        self.inner.joined.notify_one();
        settled
    }

    fn of(&self, log: Log) -> &watch::Sender<Option<i64>> {
        match log {
            Log::Requests => &self.inner.requests,
            Log::Audit => &self.inner.audit,
        }
    }

    /// Looks while somebody follows, until the app stops.
    pub async fn run(self, core: Core) {
        let stop = core.tasks.stop_token().clone();
        let (mut requests, mut audit) = (None, None);
        loop {
            let looks = [(Log::Requests, &mut requests), (Log::Audit, &mut audit)];
            let mut pause = None;
            for (log, line) in looks {
                match self.look(&core.store, log, line).await {
                    Ok(next) => pause = pause.into_iter().chain(next).min(),
                    Err(error) => {
                        warn!(error = %chain(&error), "the logs could not be looked at and will be again");
                        pause = Some(LOOK);
                    }
                }
            }
            tokio::select! {
                () = self.inner.joined.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look at a log, and when to look again; none: nobody follows it.
    async fn look(&self, store: &Store, log: Log, line: &mut Option<Waterline>) -> Result<Option<Duration>, store::Error> {
        let shown = self.of(log);
        if shown.receiver_count() == 0 {
            // What is settled now is found out anew when somebody comes.
            *line = None;
            shown.send_replace(None);
            return Ok(None);
        }
        let line = match line {
            Some(line) => line,
            None => {
                let last_drawn = store.last_drawn(log).await?;
                line.insert(Waterline::start(last_drawn, store.transaction_mark().await?))
            }
        };
        let before = line.settled();
        let seen = store.arrived(log, before.unwrap_or(i64::MAX), NUMBERS).await?;
        let in_doubt = line.see(&seen.numbers, seen.oldest_running);
        if let Some(upto) = in_doubt {
            line.doubt(upto, store.transaction_mark().await?);
        }
        let settled = line.settled();
        shown.send_if_modified(|shown| std::mem::replace(shown, settled) != settled);
        let more =
            in_doubt.is_some() || settled.is_none() || i64::try_from(seen.numbers.len()).is_ok_and(|count| count == NUMBERS);
        Ok(Some(if more { LOOK_AGAIN } else { LOOK }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.inner.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.user) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.user);
            }
        }
    }
}
