//! What of a server's message may reach this caller: lists lose what the caller may not use, requests that a rule denies
//! do not arrive. Looks at a message only as far as its shape; never changes anything else.

use bytes::Bytes;
use mcp_gateway::snapshot::{Ask, Org, Server};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::lists::{self, Filtered};
use crate::pipeline::authenticate::Principal;
use crate::pipeline::denial::RelayDenial;
use crate::pipeline::route::Routed;

/// One caller on one server.
pub struct Guard<'a> {
    pub org: &'a Org,
    pub server: &'a Server,
    pub principal: &'a Principal,
}

/// A request of a server that a rule denies.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The request's id, as the server wrote it.
    pub id: String,
    pub method: String,
}

impl<'a> Guard<'a> {
    /// The sender of `call`.
    pub fn of(call: &'a Routed) -> Self {
        Self { org: call.call().org(), server: call.server(), principal: call.call().principal() }
    }

    /// The message without what the caller may not use; `None` if nothing has to change.
    pub fn filter(&self, message: &Bytes, limit: u64) -> Result<Option<Bytes>, RelayDenial> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let subject = self.principal.subject();
        let may = |ask: Ask<'_>| self.org.judge(self.server, &subject, ask).allowed;
        let filtered = lists::filter(message, most, |kind, name| match kind {
            lists::Kind::Tool => may(Ask::Tool(name)),
            lists::Kind::Prompt => may(Ask::Prompt(name)),
            lists::Kind::Resource | lists::Kind::ResourceTemplate => may(Ask::Resource(name)),
        });
        match filtered {
            Ok(Filtered::NotAList | Filtered::Unchanged) => Ok(None),
            Ok(Filtered::Changed { message, hidden }) => {
                tracing::trace!(hidden, "a list was filtered");
                Ok(Some(message))
            }
            Err(lists::Error::TooLarge { .. }) => Err(RelayDenial::TooLarge { limit }),
            Err(lists::Error::Invalid(error)) => {
                tracing::warn!(%error, server = %self.server.slug, "a list of a server cannot be read");
                Err(RelayDenial::UnreadableList)
            }
        }
    }

    /// Whether the message is a request that a rule denies.
    pub fn forbidden(&self, message: &[u8]) -> Option<Forbidden> {
        #[derive(Deserialize)]
        struct Request<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
            method: String,
        }
        // Most messages are not requests: only what could be one is parsed. An escape could hide the word.
        let could_be = memmem::find(message, b"\"method\"").is_some() || memchr::memchr(b'\\', message).is_some();
        if !could_be {
            return None;
        }
        let request: Request<'_> = serde_json::from_slice(message).ok()?;
        let verdict = self.org.judge(self.server, &self.principal.subject(), Ask::ServerMethod(&request.method));
        (!verdict.allowed).then(|| Forbidden { id: request.id.get().to_owned(), method: request.method })
    }
}
