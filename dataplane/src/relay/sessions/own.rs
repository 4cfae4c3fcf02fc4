//! The gateway's own sessions with servers, on behalf of callers who have none: opened when they are needed, shared by the caller's requests.

use std::sync::Arc;

use bytes::Bytes;
use mcp_gateway::proto::node::v1::Outcome;
use mcp_gateway::snapshot::Snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use super::streamable::over;
use super::{Side, open, pipe};
use crate::bridge::legacy_server::{Greeting, Persona};
use crate::owned::stream::End;
use crate::owned::{Claim, Command, Handle};
use crate::pipeline::Pipeline;
use crate::pipeline::authenticate::Authenticated;
use crate::pipeline::denial::{DecodeDenial, Denial, RelayDenial, RouteDenial};
use crate::relay::outcome::{self, Answered};
use crate::tasks::{OnExit, Tasks};
use crate::transport::scan::{self, Message};
use crate::transport::{Version, message};

/// JSON-RPC: the server does not know `initialize`, as a plain service may not.
const METHOD_NOT_FOUND: i32 = -32601;

/// The gateway's session with the server for a request of a modern caller that says `persona` of itself; a claim where the request has it
/// to itself. `may_ask`: whatever the server asks there is about that request.
pub(super) async fn of_request(
    pipeline: &Arc<Pipeline>,
    caller: &Authenticated,
    (persona, may_ask): (Persona, bool),
    config: &Snapshot,
) -> Result<(Handle, Option<Claim>), Denial> {
    let for_once = caller.server().session_per_call;
    if for_once || (may_ask && persona.answers()) {
        return lane(pipeline, caller, persona, config, for_once).await;
    }
    Ok((session(pipeline, caller, Some(persona), config).await?, None))
}

/// The gateway's session with the server on behalf of the caller, for modern callers as one that says `persona` of itself.
pub(super) async fn session(
    pipeline: &Arc<Pipeline>,
    caller: &Authenticated,
    persona: Option<Persona>,
    config: &Snapshot,
) -> Result<Handle, Denial> {
    let sessions = pipeline.sessions().of_caller(caller, persona);
    let mut sessions = sessions.lock().await;
    sessions.retain(|session| !session.is_over());
    if let Some(session) = sessions.first() {
        return Ok(session.clone());
    }
    let session = begun(pipeline, caller, persona, config).await?;
    sessions.push(session.clone());
    Ok(session)
}

/// A session that one call has to itself, because most servers do not say which call a question is about: the first that is free, so that
/// calls one after the other meet the same; or, `for_once`, one that ends with the call. Where nothing is translated, any session does.
async fn lane(
    pipeline: &Arc<Pipeline>,
    caller: &Authenticated,
    persona: Persona,
    config: &Snapshot,
    for_once: bool,
) -> Result<(Handle, Option<Claim>), Denial> {
    let place = pipeline.sessions().of_caller(caller, Some(persona));
    let free = {
        let mut sessions = place.lock().await;
        sessions.retain(|session| !session.is_over());
        let free = |session: &Handle| match session.is_untouched() {
            true => Some((session.clone(), None)),
            false if for_once => None,
            false => Some((session.clone(), Some(session.claim()?))),
        };
        sessions.iter().find_map(free)
    };
    if let Some(free) = free {
        return Ok(free);
    }
    let session = begun(pipeline, caller, Some(persona), config).await?;
    let claim = match session.is_untouched() {
        true => None,
        false if for_once => return Ok((session.clone(), Some(session.spend()))),
        false => session.claim(),
    };
    place.lock().await.push(session.clone());
    Ok((session, claim))
}

/// Another session, open at the server's end.
async fn begun(
    pipeline: &Pipeline,
    caller: &Authenticated,
    persona: Option<Persona>,
    config: &Snapshot,
) -> Result<Handle, Denial> {
    let session = open(pipeline, caller, config, persona.map_or(Side::Callers, Side::Modern)).await?;
    let open = async {
        if persona.is_some() && !session.connect().await {
            return Err(RelayDenial::Broken.into());
        }
        // Between two of the modern era there is no handshake.
        if session.is_untouched() { Ok(()) } else { begin(pipeline, &session, persona).await }
    };
    match open.await {
        Ok(()) => Ok(session),
        Err(denial) => {
            session.end(End::Closed).await;
            Err(denial)
        }
    }
}

/// Opens the server's end, as a client that answers what `persona` says; none: nothing.
pub(super) async fn begin(pipeline: &Pipeline, session: &Handle, persona: Option<Persona>) -> Result<(), Denial> {
    let params = json!({
        "protocolVersion": Version::V2025_11_25.as_str(),
        "capabilities": persona.unwrap_or_default().capabilities(),
        "clientInfo": { "name": "mcpgw", "version": env!("CARGO_PKG_VERSION") },
    });
    let answer = ask(pipeline, session, "initialize", params).await?;
    match outcome::of(&answer) {
        Some(Answered { outcome: Outcome::Ok, .. }) if session.facts.version.get().is_some() => {}
        Some(Answered { code: METHOD_NOT_FOUND, .. }) => drop(session.facts.greeting.set(Greeting::of_service())),
        Some(_) | None => return Err(RelayDenial::BadInitialize.into()),
    }
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let told = session.ask(Command::Tell { message: Box::new(own(&initialized)?) }).await;
    told.map_err(|_over| RouteDenial::NoSession)?;
    let level = persona.and_then(|persona| persona.level);
    if let Some(level) = level.filter(|_| session.facts.greeting.get().is_some_and(|greeting| greeting.offers().logging)) {
        // A server that does not know the level says what it likes; what nobody asked for does not arrive.
        ask(pipeline, session, "logging/setLevel", json!({ "level": level.as_str() })).await?;
    }
    Ok(())
}

/// Asks the server something for the session's sake.
pub(super) async fn ask(pipeline: &Pipeline, session: &Handle, method: &str, params: Value) -> Result<Bytes, Denial> {
    let (tap, mut spout) = pipe(pipeline);
    let message = Box::new(own(&json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params }))?);
    let command = Command::Call { message, record: None, tap: Some(tap), caller: None };
    session.ask(command).await.map_err(|_over| RouteDenial::NoSession)?;
    loop {
        match spout.next().await {
            Ok(outgoing) if outgoing.last => return Ok(outgoing.message),
            Ok(_early) => continue,
            Err(end) => return Err(over(end)),
        }
    }
}

/// A message of the gateway's own.
pub(super) fn own(message_: &Value) -> Result<Message, Denial> {
    message(&message_.to_string().into(), &scan::Limits::default()).map_err(|refusal| DecodeDenial::from(refusal).into())
}

/// Who waits for an answer. Dropped while it waits, the client has hung up: without a session, that is how it gives a request up.
pub struct Line {
    session: Handle,
    tasks: Tasks,
    request: Uuid,
    is_open: bool,
}

impl Line {
    /// Of whoever sent the request with this id in the records.
    pub(super) fn new(session: &Handle, pipeline: &Pipeline, request: Uuid) -> Self {
        Self { session: session.clone(), tasks: pipeline.relay().tasks().clone(), request, is_open: true }
    }

    /// There is nothing to wait for any more.
    pub fn close(&mut self) {
        self.is_open = false;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_open {
            let (session, request) = (self.session.clone(), self.request);
            self.tasks.spawn("hang-up", OnExit::Ignore, async move {
                // A session that is over has given up everything.
                let _ = session.ask(Command::HungUp { request }).await;
            });
        }
    }
}
