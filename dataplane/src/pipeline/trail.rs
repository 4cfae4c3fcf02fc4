//! The record of one call: facts gathered stage by stage, written as two frames, `decided` and `ended`.
//!
//! Owns what a record says and when it is written; where it goes is the spool's. Every way out of a call ends here, also
//! the ones nobody returns from: a client that goes away drops the call, and dropping an open trail says `cancelled`.
//! Frames are queued first and written together with those of other calls; what may only happen afterwards waits for that.

mod facts;
mod handing;
mod keeping;
mod record;
mod unsettled;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mcp_gateway::proto::config::v1::AuditFullAction;
use mcp_gateway::proto::node::v1::{AuditClass, Decided, Decision, Outcome, Via};
use mcp_gateway::snapshot::{Limit, Org, Server, Snapshot, Verdict};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::authenticate::{Authenticated, Principal};
use super::denial::{Denial, RecordDenial, Wire};
use super::route::Routed;
use crate::audit::{Class, Recorded, Spool, SpoolError, Ticket, text};
use crate::limits::Room;
use crate::metrics::{Metrics, OfOneServer};
use crate::transport::{ClientTransport, Era, Version};
use crate::upstream;

pub use facts::{Asked, Ending, Going, Stage};
use record::{Record, set};
use unsettled::{Unsettled, lost};

/// How far the record is.
#[derive(Debug)]
enum State {
    Open,
    /// With where the first frame is, unless it could not be written.
    Decided(Option<Recorded>),
    Ended,
}

/// What a trail writes to; one per process.
#[derive(Clone)]
pub struct Recorder {
    pub spool: Arc<Spool>,
    pub metrics: Arc<Metrics>,
}

/// The record of one call.
pub struct Trail {
    recorder: Recorder,
    request_id: Uuid,
    started: Instant,
    last: Instant,
    state: State,
    class: Class,
    audit_full: AuditFullAction,
    /// Whether its records have to be on the disk if they are of class audit.
    audit_on_disk: bool,
    /// Whose organisation wants something of the call kept.
    keeping: Option<Arc<Org>>,
    served: Arc<OfOneServer>,
    echo: Option<String>,
    record: Record,
    address: IpAddr,
    room: Option<Room>,
    unsettled: Option<Unsettled>,
}

impl Trail {
    /// Opens the record of a request whose head has just been read.
    pub fn open(recorder: Recorder, request_id: Uuid, address: IpAddr) -> Self {
        recorder.metrics.in_flight.inc();
        let now = Instant::now();
        let mut record = Record::new();
        let mut buffer = Uuid::encode_buffer();
        let text = request_id.hyphenated().encode_lower(&mut buffer);
        set(&mut record.decided.request_id, text);
        set(&mut record.ended.request_id, text);
        write!(record.decided.client_address, "{address}").expect("a string grows");
        Self {
            served: recorder.metrics.nowhere(),
            recorder,
            request_id,
            started: now,
            last: now,
            state: State::Open,
            class: Class::Access,
            audit_full: AuditFullAction::Block,
            audit_on_disk: false,
            keeping: None,
            echo: None,
            record,
            address,
            room: None,
            unsettled: None,
        }
    }

    /// The record of one message of a batch; the transport's facts are the batch's.
    pub fn branch(&self, request_id: Uuid) -> Self {
        let mut branch = Self::open(self.recorder.clone(), request_id, self.address);
        branch.audit_full = self.audit_full;
        branch.audit_on_disk = self.audit_on_disk;
        branch.served = self.served.clone();
        branch.record.decided = Decided { request_id: request_id.to_string(), ..self.record.decided.clone() };
        branch
    }

    /// Whom the call comes from, as far as the network tells.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Who asks, by organisation and subject, if it has proved who it is.
    pub fn sender(&self) -> Option<(&str, &str)> {
        let somebody = match self.record.decided.via() {
            Via::Jwt | Via::ApiKey | Via::Certificate => true,
            Via::Unspecified | Via::Anonymous => false,
        };
        somebody.then_some((&self.record.decided.org_id, &self.record.decided.subject))
    }

    /// How the tightest limit of the call stands.
    pub fn room(&mut self, room: Option<Room>) {
        self.room = room;
    }

    /// As told by [`Trail::room`], for the answer's headers.
    pub fn take_room(&mut self) -> Option<Room> {
        self.room.take()
    }

    /// Which limit refuses the call: it decided, whatever rule had allowed it.
    pub fn limited(&mut self, limit: &Limit) {
        set(&mut self.record.decided.rule_id, &limit.id);
        set(&mut self.record.decided.rule, &limit.name);
        set(&mut self.record.decided.mode, "limit");
    }

    /// As [`Trail::request_id`].
    pub fn id(&self) -> Uuid {
        self.request_id
    }

    pub fn request_id(&self) -> &str {
        &self.record.decided.request_id
    }

    /// A stage is done.
    pub fn mark(&mut self, stage: Stage) {
        let now = Instant::now();
        let spent = micros(now.duration_since(self.last));
        self.last = now;
        let place = stage as usize;
        if self.record.ended.stage_us.len() <= place {
            self.record.ended.stage_us.resize(place + 1, 0);
        }
        self.record.ended.stage_us[place] = spent;
    }

    /// Under which configuration.
    pub fn configuration(&mut self, config: &Snapshot) {
        self.record.decided.config_epoch = config.version().epoch;
        self.record.decided.config_version = config.version().version;
    }

    /// Which server was addressed.
    pub fn target(&mut self, org: &Org, server: &Server) {
        set(&mut self.record.decided.org_id, &org.id);
        self.record.decided.org_digest = Bytes::copy_from_slice(org.digest.as_bytes());
        set(&mut self.record.decided.server_id, &server.id);
        set(&mut self.record.decided.server, &server.slug);
        self.audit_full = org.audit_full;
        self.audit_on_disk = org.audit_on_disk;
        self.served = self.recorder.metrics.of_server(org, server);
    }

    /// What was asked; `tool_call` makes the record class audit.
    pub fn asked(&mut self, asked: Asked<'_>) {
        let name = if asked.is_uri { text::uri(asked.name) } else { text::plain(asked.name) };
        set(&mut self.record.decided.method, &text::plain(asked.method));
        set(&mut self.record.decided.name, &name);
        self.record.decided.arguments_digest = asked.arguments_digest;
        self.record.decided.request_bytes = asked.request_bytes;
        if asked.method == "tools/call" {
            self.class = Class::Audit;
        }
    }

    /// Over which transport, in which era and version.
    pub fn spoken(&mut self, client: ClientTransport, era: Era, version: &str, session: Option<&str>) {
        set(&mut self.record.decided.client_transport, client.as_str());
        set(&mut self.record.decided.client_era, era.as_str());
        set(&mut self.record.decided.client_protocol_version, text::version(version));
        self.record.decided.session = session.map(fingerprint).unwrap_or_default();
    }

    /// In which session; its token is not kept.
    pub fn spoken_in(&mut self, token: &str) {
        self.record.decided.session = fingerprint(token);
    }

    /// Who asked.
    pub fn principal(&mut self, principal: &Principal) {
        // Of a token they are whatever its issuer let in.
        set(&mut self.record.decided.subject, &text::plain(&principal.subject));
        self.record.decided.roles.extend(principal.roles.iter().map(|role| text::plain(role).into_owned()));
        self.record.decided.groups.extend(principal.groups.iter().map(|group| text::plain(group).into_owned()));
        self.record.decided.via = principal.via.into();
        set(&mut self.record.decided.credential_id, &text::plain(&principal.credential_id));
        if self.record.decided.org_id.is_empty() {
            set(&mut self.record.decided.org_id, &principal.org_id);
        }
    }

    /// Which rule decided, and what shadow rules would have.
    pub fn verdict(&mut self, verdict: &Verdict<'_>) {
        self.recorder.metrics.decided(verdict.evaluated);
        if let Some(rule) = verdict.rule {
            set(&mut self.record.decided.rule_id, &rule.id);
            set(&mut self.record.decided.rule, &rule.name);
            set(&mut self.record.decided.mode, if rule.shadow { "shadow" } else { "enforce" });
        }
        if let Some((rule, would_allow)) = verdict.shadow {
            set(&mut self.record.decided.shadow_rule_id, &rule.id);
            self.record.decided.shadow_decision = if would_allow { Decision::Allow } else { Decision::Deny }.into();
        }
    }

    /// The JSON-RPC id that an error has to echo, as the client wrote it.
    pub fn echo(&mut self, id: Option<&str>) {
        self.echo = id.map(str::to_owned);
    }

    /// As told by [`Trail::echo`].
    pub fn echoed(&self) -> Option<&str> {
        self.echo.as_deref()
    }

    /// The server's answer began after this long.
    pub fn upstream_answered(&mut self, after: std::time::Duration) {
        self.record.ended.upstream_us = micros(after);
    }

    /// Writes the first frame: the call was allowed and goes where it is routed. Before this nothing may be sent.
    pub async fn decided(&mut self, call: &Routed) -> Result<(), RecordDenial> {
        if let Some(session) = call.session() {
            set(&mut self.record.decided.client_protocol_version, session.version.as_str());
        }
        let going = Going { transport: "streamable-http", era: call.era(), place: &upstream::place(call.url()) };
        self.goes(going, call.call()).await
    }

    /// As [`Trail::decided`], of a message that an owned session takes to its server; `version` is what the session agreed on.
    pub async fn relayed(
        &mut self,
        call: &Authenticated,
        going: Going<'_>,
        version: Option<Version>,
    ) -> Result<(), RecordDenial> {
        if let Some(version) = version {
            set(&mut self.record.decided.client_protocol_version, version.as_str());
        }
        self.goes(going, call).await
    }

    async fn goes(&mut self, going: Going<'_>, call: &Authenticated) -> Result<(), RecordDenial> {
        set(&mut self.record.decided.server_transport, going.transport);
        set(&mut self.record.decided.server_era, going.era.as_str());
        self.record.ended.upstream.clear();
        write!(self.record.ended.upstream, "{}", going.place).expect("a string grows");
        self.record.decided.decision = Decision::Allow.into();
        let queued = self.queue_decided();
        self.keep_arguments(call.org(), call.call());
        self.recorded(queued).await
    }

    /// Writes the first frame of a call that the gateway answers itself.
    pub async fn allowed(&mut self) -> Result<(), RecordDenial> {
        self.record.decided.decision = Decision::Allow.into();
        let queued = self.queue_decided();
        self.recorded(queued).await
    }

    async fn recorded(&mut self, queued: Result<Ticket, SpoolError>) -> Result<(), RecordDenial> {
        let written = match queued {
            // The trail knows the frame meanwhile: a client that goes away now leaves a whole record.
            Ok(ticket) if self.is_on_disk() => Box::pin(self.recorder.spool.synced(&[&ticket])).await,
            Ok(ticket) => self.recorder.spool.written(&ticket).await,
            Err(refused) => Err(refused),
        };
        if written.is_err() {
            self.state = State::Decided(None);
        }
        written.or_else(|error| match (self.class, self.audit_full) {
            (Class::Audit, AuditFullAction::Unspecified | AuditFullAction::Block) => Err(RecordDenial(error)),
            (Class::Audit, AuditFullAction::Allow) | (Class::Access, _) => {
                self.recorder.metrics.records_lost.inc();
                Ok(())
            }
        })
    }

    fn is_on_disk(&self) -> bool {
        self.audit_on_disk && self.class == Class::Audit
    }

    /// Queues both frames of a refusal, or the second one of a call that failed after it was allowed: [`Trail::settled`] has to be waited for.
    pub fn refused(&mut self, denial: &Denial, wire: &Wire, bytes: u64) {
        self.recorder.metrics.refused(&wire.label);
        if denial.is_about_identity() {
            self.class = Class::Audit;
        }
        let mut decided = None;
        if matches!(self.state, State::Open) {
            self.record.decided.decision = Decision::Deny.into();
            set(&mut self.record.decided.reason, &wire.label);
            decided = self.queue_refused();
        }
        self.status(wire.status);
        self.end(Ending { outcome: wire.outcome, error_code: wire.code, bytes, events: 0, shape: 0 });
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.decided = decided;
        }
    }

    /// The HTTP status sent to the client.
    pub fn status(&mut self, status: http::StatusCode) {
        self.record.ended.status = u32::from(status.as_u16());
    }

    /// Queues the second frame: [`Trail::settled`] has to be waited for before the last byte leaves. Later calls do nothing: an answer ends once.
    pub fn end(&mut self, ending: Ending) {
        let State::Decided(recorded) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let total = self.started.elapsed();
        self.record.ended.outcome = ending.outcome.into();
        self.record.ended.error_code = ending.error_code;
        self.record.ended.response_bytes = ending.bytes;
        self.record.ended.events = ending.events;
        self.record.ended.error_shape = ending.shape;
        self.record.ended.total_us = micros(total);
        self.record.ended.ended_at_us = wall_clock_us();
        self.recorder.metrics.ended(&self.served, ending.outcome, total.as_secs_f64());
        let Some(recorded) = recorded else { return };
        match self.recorder.spool.append_ended(&recorded, &mut self.record.ended) {
            Ok(ended) => {
                let request_id = self.request_id;
                let recorder = self.recorder.clone();
                let on_disk = self.is_on_disk();
                self.unsettled = Some(Unsettled { recorder, decided: None, ended, request_id, on_disk, settled: false });
            }
            Err(error) => lost(&self.recorder, self.request_id, &error),
        }
    }

    /// Resolves when everything that was queued is written, or cannot be. Owns what it waits for; dropped, it is written all the same.
    pub fn settled(&mut self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let unsettled = self.unsettled.take();
        async move {
            if let Some(mut unsettled) = unsettled {
                let ended = unsettled.written().await;
                unsettled.tell(ended);
            }
        }
    }

    /// The first frame of a call that goes nowhere, whether it can be recorded or not.
    fn queue_refused(&mut self) -> Option<Ticket> {
        match self.queue_decided() {
            Ok(ticket) => Some(ticket),
            Err(_scarce) => {
                self.recorder.metrics.records_lost.inc();
                None
            }
        }
    }

    fn queue_decided(&mut self) -> Result<Ticket, SpoolError> {
        self.record.decided.class = AuditClass::from(self.class).into();
        self.record.ended.decide_us = micros(self.started.elapsed());
        // Whatever comes of it, the decision has fallen.
        self.state = State::Decided(None);
        let recorded = self.recorder.spool.append_decided(self.class, &mut self.record.decided)?;
        let ticket = recorded.ticket.clone();
        self.state = State::Decided(Some(recorded));
        Ok(ticket)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.recorder.metrics.in_flight.dec();
        let mut decided = None;
        if matches!(self.state, State::Open) {
            // Nobody will see an answer, but the attempt happened.
            self.record.decided.decision = Decision::Deny.into();
            set(&mut self.record.decided.reason, "client.gone");
            decided = self.queue_refused();
        }
        self.end(Ending { outcome: Outcome::Cancelled, error_code: 0, bytes: 0, events: 0, shape: 0 });
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.decided = unsettled.decided.take().or(decided);
        }
    }
}

fn micros(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What operators see of a session: the same for the same token, and of no use to anybody.
fn fingerprint(token: &str) -> String {
    hex::encode(&Sha256::digest(token)[..8])
}
