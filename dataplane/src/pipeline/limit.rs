//! Stage five: is there room. Owns the seats of each server's calls; rates per user, organisation and tool join here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::authorize::Authorized;
use super::denial::LimitDenial;

/// Streams that one server may have open to clients, per call that it may have in flight: they last, and cost little.
const STREAMS_PER_CALL: usize = 16;

/// A call that there is room for; the room is given back when it is dropped. Only [`admit`] makes one.
pub struct Admitted {
    call: Authorized,
    seat: Seat,
}

/// What is in flight, by server and kind.
pub struct Limiter {
    calls_per_server: usize,
    in_flight: RwLock<Counts>,
}

/// By server and kind.
type Counts = HashMap<(Arc<str>, Kind), Arc<AtomicUsize>>;

/// What a seat is for: long-lived streams must not use up the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Call,
    Stream,
}

/// Room for one call.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

/// Takes a seat for `call`.
pub fn admit(call: Authorized, limiter: &Limiter) -> Result<Admitted, LimitDenial> {
    let long_lived = call.call().call().is_long_lived();
    let kind = if long_lived { Kind::Stream } else { Kind::Call };
    let seat = limiter.take(&call.call().server().id, kind).ok_or(LimitDenial::InFlight)?;
    Ok(Admitted { call, seat })
}

impl Admitted {
    pub fn call(&self) -> &Authorized {
        &self.call
    }

    pub fn into_parts(self) -> (Authorized, Seat) {
        (self.call, self.seat)
    }
}

impl Limiter {
    /// At most `calls_per_server` calls of each server in flight.
    pub fn new(calls_per_server: usize) -> Self {
        Self { calls_per_server, in_flight: RwLock::default() }
    }

    fn take(&self, server: &Arc<str>, kind: Kind) -> Option<Seat> {
        let most = match kind {
            Kind::Call => self.calls_per_server,
            Kind::Stream => self.calls_per_server.saturating_mul(STREAMS_PER_CALL),
        };
        let count = self.count(server, kind);
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat(count))
    }

    fn count(&self, server: &Arc<str>, kind: Kind) -> Arc<AtomicUsize> {
        let place = (server.clone(), kind);
        if let Some(count) = self.in_flight.read().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return count.clone();
        }
        let mut counts = self.in_flight.write().unwrap_or_else(PoisonError::into_inner);
        // Servers come and go; whoever adds one clears away those that nobody uses.
        counts.retain(|_, count| Arc::strong_count(count) > 1 || count.load(Ordering::Relaxed) > 0);
        counts.entry(place).or_default().clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Limiter};

    #[test]
    fn a_full_server_refuses_until_a_call_ends_and_others_are_not_concerned() {
        let limiter = Limiter::new(1);
        let first = limiter.take(&"a".into(), Kind::Call).unwrap();
        assert!(limiter.take(&"a".into(), Kind::Call).is_none());
        assert!(limiter.take(&"a".into(), Kind::Stream).is_some());
        assert!(limiter.take(&"b".into(), Kind::Call).is_some());
        drop(first);
        assert!(limiter.take(&"a".into(), Kind::Call).is_some());
    }
}
