//! Stage five: is there room. Owns the seats of each server's and each organisation's calls, and which counts of which limits a
//! call asks for room in; the counting is [`crate::limits`]'.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use mcp_gateway::proto::node::v1::Via;
use mcp_gateway::snapshot::{Applied, Ask, Traffic};
use smallvec::SmallVec;

use super::authenticate::Authenticated;
use super::authorize::Authorized;
use super::decode::Decoded;
use super::denial::LimitDenial;
use super::trail::Trail;
use crate::config;
use crate::limits::{self, Admission, Caller, Decision, Demand, Limits, Refusal, Why};
use crate::metrics::Metrics;
use crate::transport::Operation;
use crate::transport::scan::Reference;

/// Streams that one server may have open to clients, per call that it may have in flight: they last, and cost little.
const STREAMS_PER_CALL: usize = 16;

/// A call that there is room for; the room is given back when it is dropped. Only [`admit`] makes one.
pub struct Admitted {
    call: Authorized,
    seat: Seat,
}

/// What is in flight, by whose and kind.
pub struct Limiter {
    calls_per_server: usize,
    per_organization: usize,
    in_flight: RwLock<Counts>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

type Counts = HashMap<(Whose, Kind), Arc<AtomicUsize>>;

/// Whose room a call takes: an id, a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Server(Arc<str>),
    Organization(Arc<str>),
}

/// What a seat is for: long-lived streams must not use up the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Call,
    Stream,
}

/// Room for one call, with its server and with its organisation.
#[derive(Debug)]
pub struct Seat {
    _server: Place,
    _organization: Place,
    /// What rules have it count as in flight.
    admission: Admission,
}

/// One of a count; given back when it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// Takes a seat for `call`, and what it counts in every limit that it falls under: all of it, or nothing.
/// Waits only where Redis has to be asked.
pub async fn admit(call: Authorized, limiter: &Limiter, trail: &mut Trail) -> Result<Admitted, LimitDenial> {
    let sender = call.call();
    let long_lived = sender.call().is_long_lived();
    let kind = if long_lived { Kind::Stream } else { Kind::Call };
    let mut seat = limiter.take(&sender.org().id, &sender.server().id, kind)?;
    seat.admission = limiter.spend(sender, trail).await?;
    Ok(Admitted { call, seat })
}

/// What a message is to limits. Completions count for the prompt or resource that they are about, as policies judge them.
fn traffic(call: &Decoded) -> Traffic<'_> {
    let ask = match call.operation() {
        Operation::CallTool(name) => Ask::Tool(name),
        Operation::GetPrompt(name) | Operation::Complete(Some(Reference::Prompt(name))) => Ask::Prompt(name),
        Operation::ReadResource(uri)
        | Operation::SubscribeResource(uri)
        | Operation::Complete(Some(Reference::Resource(uri))) => Ask::Resource(uri),
        Operation::Listen
        | Operation::Initialize
        | Operation::Discover
        | Operation::Ping
        | Operation::List
        | Operation::Complete(None)
        | Operation::Notify
        | Operation::Respond
        | Operation::Other => Ask::Something,
    };
    let method = match call.message() {
        Some(message) => message.method().unwrap_or("response"),
        None => call.http_method().as_str(),
    };
    Traffic { method, ask }
}

/// The limits that a call falls under.
fn applied(sender: &Authenticated) -> SmallVec<[Applied<'_>; 8]> {
    sender.org().limits(sender.server(), &sender.principal().subject(), traffic(sender.call()))
}

/// Leaves how the tightest limit stands for the answer's headers.
fn told(mut admission: Admission, trail: &mut Trail) -> Admission {
    trail.room(admission.tightest.take());
    admission
}

/// Which count of a limit a call asks for room in.
fn demand<'a>(sender: &'a Authenticated, address: IpAddr, applied: &Applied<'a>) -> Demand<'a> {
    let (limit, principal) = (applied.limit, sender.principal());
    let caller = limit.per.user.then(|| match principal.via {
        Via::Anonymous => Caller::Address(limits::network(address)),
        Via::Unspecified | Via::Jwt | Via::ApiKey | Via::Certificate => Caller::Subject(&principal.subject),
    });
    Demand {
        org: &sender.org().id,
        limit,
        cost: applied.cost,
        caller,
        server: limit.per.server.then_some(&*sender.server().id),
        pattern: limit.per.endpoint.then(|| limit.pattern(applied.pattern)),
    }
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
    /// At most so many of each server and each organisation in flight.
    pub fn new(bounds: &config::Limits, limits: Arc<Limits>, metrics: Arc<Metrics>) -> Self {
        Self {
            calls_per_server: bounds.in_flight_per_server,
            per_organization: bounds.in_flight_per_organization,
            in_flight: RwLock::default(),
            limits,
            metrics,
        }
    }

    /// What is counted.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Takes what a message counts in every limit that it falls under.
    async fn spend(&self, sender: &Authenticated, trail: &mut Trail) -> Result<Admission, LimitDenial> {
        let question = match self.decide(sender, trail.address()) {
            Some(Decision::Now(Ok(admission))) => return Ok(told(admission, trail)),
            Some(Decision::Now(Err(refusal))) => return Err(self.refused(sender, refusal, trail)),
            Some(Decision::Ask(question)) => question,
            None => return Ok(Admission::default()),
        };
        match self.limits.ask(question).await {
            Ok(admission) => Ok(told(admission, trail)),
            Err(refusal) => Err(self.refused(sender, refusal, trail)),
        }
    }

    /// None: no limit applies.
    fn decide(&self, sender: &Authenticated, address: IpAddr) -> Option<Decision> {
        let applied = applied(sender);
        if applied.is_empty() {
            return None;
        }
        let demands: SmallVec<[Demand<'_>; 8]> = applied.iter().map(|applied| demand(sender, address, applied)).collect();
        Some(self.limits.admit(&demands))
    }

    fn refused(&self, sender: &Authenticated, refusal: Refusal, trail: &mut Trail) -> LimitDenial {
        // Demands are in the order of the limits that apply, which is the same each time.
        let limit = applied(sender)[refusal.demand].limit;
        trail.limited(limit);
        self.metrics.limited(&sender.org().slug, &limit.name);
        match refusal.why {
            Why::Window { room, wait } => {
                trail.room(Some(room.clone()));
                LimitDenial::Spent { room, wait }
            }
            Why::InFlight { most } => LimitDenial::Concurrent { name: limit.name.clone(), most },
            Why::Crowded => LimitDenial::Crowded,
            Why::Away => LimitDenial::Away { name: limit.name.clone() },
        }
    }

    fn take(&self, organization: &Arc<str>, server: &Arc<str>, kind: Kind) -> Result<Seat, LimitDenial> {
        let of_server = match kind {
            Kind::Call => self.calls_per_server,
            Kind::Stream => self.calls_per_server.saturating_mul(STREAMS_PER_CALL),
        };
        let organization = self.place(Whose::Organization(organization.clone()), kind, self.per_organization);
        let organization = organization.ok_or(LimitDenial::Organization)?;
        let server = self.place(Whose::Server(server.clone()), kind, of_server).ok_or(LimitDenial::InFlight)?;
        Ok(Seat { _server: server, _organization: organization, admission: Admission::default() })
    }

    fn place(&self, whose: Whose, kind: Kind, most: usize) -> Option<Place> {
        let count = self.count(whose, kind);
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(count))
    }

    fn count(&self, whose: Whose, kind: Kind) -> Arc<AtomicUsize> {
        let key = (whose, kind);
        if let Some(count) = self.in_flight.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return count.clone();
        }
        let mut counts = self.in_flight.write().unwrap_or_else(PoisonError::into_inner);
        // Servers and organisations come and go; whoever adds one clears away those that nobody uses.
        counts.retain(|_, count| Arc::strong_count(count) > 1 || count.load(Ordering::Relaxed) > 0);
        counts.entry(key).or_default().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, LimitDenial, Limiter, Limits};
    use crate::config;

    fn limiter(in_flight_per_server: usize, in_flight_per_organization: usize) -> Limiter {
        let bounds = config::Limits { in_flight_per_server, in_flight_per_organization, ..config::Limits::default() };
        Limiter::new(&bounds, Limits::new(1).into(), Default::default())
    }

    #[test]
    fn a_full_server_refuses_until_a_call_ends_and_others_are_not_concerned() {
        let limiter = limiter(1, 10);
        let take = |server: &str, kind| limiter.take(&"o".into(), &server.into(), kind);
        let first = take("a", Kind::Call).unwrap();
        assert_eq!(take("a", Kind::Call).unwrap_err(), LimitDenial::InFlight);
        let _stream = take("a", Kind::Stream).unwrap();
        let _other = take("b", Kind::Call).unwrap();
        drop(first);
        take("a", Kind::Call).unwrap();
    }

    #[test]
    fn a_full_organisation_refuses_on_all_its_servers_and_others_are_not_concerned() {
        let limiter = limiter(10, 2);
        let take = |org: &str, server: &str, kind| limiter.take(&org.into(), &server.into(), kind);
        let first = take("o", "a", Kind::Call).unwrap();
        let _second = take("o", "b", Kind::Call).unwrap();
        assert_eq!(take("o", "c", Kind::Call).unwrap_err(), LimitDenial::Organization);
        let _stream = take("o", "c", Kind::Stream).unwrap();
        let _other = take("p", "d", Kind::Call).unwrap();
        drop(first);
        take("o", "c", Kind::Call).unwrap();
    }

    #[test]
    fn a_refusal_by_the_server_costs_the_organisation_nothing() {
        let limiter = limiter(1, 2);
        let take = |server: &str| limiter.take(&"o".into(), &server.into(), Kind::Call);
        let _first = take("a").unwrap();
        take("a").unwrap_err();
        take("b").unwrap();
    }
}
