//! Tickets: what lets a WebSocket in whose client cannot send headers, such as a browser's. Asked for with a credential, good for one server,
//! once, and half a minute; kept where they were asked for, which the ticket names, so that any node can hand its bearer on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::principal::Principal;

/// How long a ticket is good.
pub const GOOD_FOR: Duration = Duration::from_secs(30);
/// Tickets that are kept at most; each is about 200 bytes.
const MOST: usize = 10_000;

/// Tickets that were given out here and not used.
#[derive(Default)]
pub struct Tickets {
    /// By the digest of their secret part.
    kept: Mutex<HashMap<[u8; 32], Ticket>>,
}

struct Ticket {
    principal: Arc<Principal>,
    server_id: Arc<str>,
    until: Instant,
}

/// Too many tickets are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tickets were given out and not used")]
pub struct Crowded;

impl Tickets {
    /// A ticket of the principal's for a server, which `node` keeps.
    pub fn issue(&self, node: &str, principal: &Arc<Principal>, server_id: &Arc<str>, now: Instant) -> Result<String, Crowded> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_no_randomness| Crowded)?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.retain(|_, ticket| ticket.until > now);
        }
        if kept.len() >= MOST {
            return Err(Crowded);
        }
        let ticket = Ticket { principal: principal.clone(), server_id: server_id.clone(), until: now + GOOD_FOR };
        kept.insert(Sha256::digest(&secret).into(), ticket);
        Ok(format!("{node}.{secret}"))
    }

    /// Takes a ticket for a server; whoever shows it again gets nothing.
    pub fn redeem(&self, text: &str, server_id: &str, now: Instant) -> Option<Arc<Principal>> {
        let (_node, secret) = text.rsplit_once('.')?;
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let ticket = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest)?;
        (ticket.until > now && *ticket.server_id == *server_id).then_some(ticket.principal)
    }
}

/// The node that keeps a ticket.
pub fn keeper(text: &str) -> Option<&str> {
    text.rsplit_once('.').map(|(node, _secret)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_for_its_server_and_not_for_long() {
        let (tickets, principal, server) = (Tickets::default(), Arc::new(Principal::anonymous("o".into())), Arc::from("s"));
        let now = Instant::now();
        let issue = || tickets.issue("node-1", &principal, &server, now).unwrap();
        let redeem = |ticket: &str, server: &str, later| tickets.redeem(ticket, server, now + later);
        let soon = Duration::from_secs(29);
        let ticket = issue();
        assert_eq!(keeper(&ticket), Some("node-1"));
        assert!(redeem(&ticket, "s", soon).is_some());
        assert!(redeem(&ticket, "s", soon).is_none(), "again");
        let ticket = issue();
        assert!(redeem(&ticket, "other", soon).is_none(), "another server");
        assert!(redeem(&ticket, "s", soon).is_none(), "and it is used up");
        let ticket = issue();
        assert!(redeem(&ticket, "s", GOOD_FOR).is_none(), "too late");
        for made_up in ["", ".", "node-1.", "node-1.AAAA", "x"] {
            assert!(redeem(made_up, "s", soon).is_none(), "{made_up}");
        }
    }
}
