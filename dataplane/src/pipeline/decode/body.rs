//! Takes a request's body in: within its size, and not more slowly than a client may send.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::config::{Limits, Timeouts};
use crate::pipeline::denial::DecodeDenial;

/// The whole body, at most `most` bytes.
pub(super) async fn collect(mut body: Incoming, most: usize, pace: Pace) -> Result<Bytes, DecodeDenial> {
    let too_large = DecodeDenial::TooLarge { limit: most };
    // Refused unread where the length says so.
    if body.size_hint().lower() > most as u64 {
        linger(body).await;
        return Err(too_large);
    }
    let began = Instant::now();
    let mut held = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let received = held.len().max(first.len());
        let frame = tokio::time::timeout_at(began + pace.allows(received), body.frame()).await;
        let Some(frame) = frame.map_err(|_elapsed| DecodeDenial::Slow)? else { break };
        let Ok(bytes) = frame.map_err(|_broken| DecodeDenial::Broken)?.into_data() else { continue };
        if received + bytes.len() > most {
            linger(body).await;
            return Err(too_large);
        }
        // Most bodies come in one piece, which need not be copied.
        if received == 0 {
            first = bytes;
            continue;
        }
        if held.is_empty() {
            held.extend_from_slice(&std::mem::take(&mut first));
        }
        held.extend_from_slice(&bytes);
    }
    Ok(if held.is_empty() { first } else { held.freeze() })
}

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    grace: Duration,
    bytes_per_second: u64,
    longest: Duration,
}

impl Pace {
    pub fn new(limits: &Limits, timeouts: &Timeouts) -> Self {
        let bytes_per_second = limits.body_bytes_per_second.max(1);
        Self { grace: timeouts.body_grace, bytes_per_second, longest: timeouts.body }
    }

    /// How long after the head more may come, when this many bytes have: the average since the grace counts, so that a
    /// network may pause but not drip.
    fn allows(self, received: usize) -> Duration {
        let micros = (received as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        self.grace.saturating_add(Duration::from_micros(micros)).min(self.longest)
    }
}

/// Takes in some more of a body that is refused for its size: closing a connection while the client still sends loses it
/// the answer.
async fn linger(mut body: Incoming) {
    const MOST: usize = 16 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    let mut taken = 0;
    let rest = async {
        while taken < MOST
            && let Some(Ok(frame)) = body.frame().await
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever sends more, or slower, will not hear why.
    let _ = tokio::time::timeout(LONGEST, rest).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;

    #[test]
    fn a_body_may_take_its_grace_then_its_rate_and_never_longer_than_the_deadline() {
        let pace = Pace { grace: Duration::from_secs(5), bytes_per_second: 1000, longest: Duration::from_secs(30) };
        let cases = [(0, 5_000), (1, 5_001), (1_000, 6_000), (24_999, 29_999), (25_000, 30_000), (4 << 20, 30_000)];
        for (received, milliseconds) in cases {
            assert_eq!(pace.allows(received), Duration::from_millis(milliseconds), "{received}");
        }
        assert_eq!(Pace { bytes_per_second: 1, ..pace }.allows(usize::MAX), pace.longest);
    }
}
