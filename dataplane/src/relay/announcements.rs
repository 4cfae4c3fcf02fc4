//! What operators say to every stream of an organisation, for the streams that no session of this node fills: those of sealed sessions.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Announcements that a stream may be behind before it misses some.
const BEHIND: usize = 64;

/// See the module.
#[derive(Default)]
pub struct Announcements {
    by_org: RwLock<HashMap<Box<str>, broadcast::Sender<Bytes>>>,
}

impl Announcements {
    /// What is said to an organisation from now on.
    pub fn hear(&self, org: &str) -> BroadcastStream<Bytes> {
        let mut by_org = self.by_org.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever comes anew clears away what nobody hears any more.
        if !by_org.contains_key(org) {
            by_org.retain(|_, say| say.receiver_count() > 0);
        }
        let say = by_org.entry_ref(org).or_insert_with(|| broadcast::channel(BEHIND).0);
        BroadcastStream::new(say.subscribe())
    }

    /// Says a message; how many streams hear it.
    pub fn say(&self, org: &str, message: &Bytes) -> u64 {
        let by_org = self.by_org.read().unwrap_or_else(PoisonError::into_inner);
        let heard = by_org.get(org).map_or(0, |say| say.send(message.clone()).unwrap_or(0));
        heard as u64
    }
}
