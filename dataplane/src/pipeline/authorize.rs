//! Stage four: may the sender do this. Owns which question each operation asks; the answer is the snapshot's.
//!
//! The same engine filters lists, so that what may not be called is not seen either.

use mcp_gateway::snapshot::{Ask, Org, Server, Verdict};

use super::authenticate::{Authenticated, Principal};
use super::denial::{AuthorizeDenial, Thing};
use super::trail::Trail;
use crate::audit::text;
use crate::transport::scan::{Message, Reference};
use crate::transport::{Era, Operation};

/// A call that a rule allows. Only [`judge`] makes one.
pub struct Authorized {
    call: Authenticated,
}

/// Asks the policy about `call` and leaves the answer in the trail.
pub fn judge(call: Authenticated, trail: &mut Trail) -> Result<Authorized, AuthorizeDenial> {
    let era = call.call().era();
    let awaited = call.call().message().is_none_or(Message::is_request);
    let court = Court { org: call.org(), server: call.server(), principal: call.principal(), era, awaited };
    court.judge(call.call().operation(), trail)?;
    for uri in call.call().message().into_iter().flat_map(|message| message.resource_subscriptions()) {
        court.grant(Ask::Resource(uri), Thing::Resource, uri, trail)?;
    }
    Ok(Authorized { call })
}

impl Authorized {
    pub fn call(&self) -> &Authenticated {
        &self.call
    }

    pub fn into_call(self) -> Authenticated {
        self.call
    }
}

struct Court<'a> {
    org: &'a Org,
    server: &'a Server,
    principal: &'a Principal,
    era: Era,
    /// Whether the caller waits for an answer in the protocol's terms.
    awaited: bool,
}

impl Court<'_> {
    fn judge(&self, operation: Operation<'_>, trail: &mut Trail) -> Result<(), AuthorizeDenial> {
        match operation {
            Operation::CallTool(name) => self.grant(Ask::Tool(name), Thing::Tool, name, trail),
            Operation::GetPrompt(name) | Operation::Complete(Some(Reference::Prompt(name))) => {
                self.grant(Ask::Prompt(name), Thing::Prompt, name, trail)
            }
            Operation::ReadResource(uri)
            | Operation::SubscribeResource(uri)
            | Operation::Complete(Some(Reference::Resource(uri))) => self.grant(Ask::Resource(uri), Thing::Resource, uri, trail),
            Operation::Listen
            | Operation::Initialize
            | Operation::Discover
            | Operation::Ping
            | Operation::List
            | Operation::Complete(None)
            | Operation::Notify
            | Operation::Respond
            | Operation::Other => self.something(trail),
        }
    }

    fn grant(&self, ask: Ask<'_>, thing: Thing, name: &str, trail: &mut Trail) -> Result<(), AuthorizeDenial> {
        let verdict = self.ask(ask);
        trail.verdict(&verdict);
        if verdict.allowed {
            return Ok(());
        }
        if !self.awaited {
            return Err(AuthorizeDenial::Notification);
        }
        // Answers get logged: of a URI only where it points is repeated.
        let name = if thing == Thing::Resource { text::uri(name) } else { name.into() };
        Err(AuthorizeDenial::NotGranted { thing, name: name.into_owned(), era: self.era })
    }

    fn something(&self, trail: &mut Trail) -> Result<(), AuthorizeDenial> {
        let verdict = self.ask(Ask::Something);
        trail.verdict(&verdict);
        if verdict.allowed { Ok(()) } else { Err(AuthorizeDenial::Nothing { anonymous: self.principal.subject().anonymous }) }
    }

    fn ask(&self, ask: Ask<'_>) -> Verdict<'_> {
        self.org.judge(self.server, &self.principal.subject(), ask)
    }
}
