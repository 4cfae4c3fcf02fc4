//! The Streamable HTTP codec of all versions: which era a request belongs to, and whether it keeps that era's rules.
//! Owns headers and their agreement with the body (2026-07-28 transports, server validation); never opens sessions,
//! never authorises. Called twice per request: [`head`] before the body is read, [`post`] after it was scanned.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::header::{self, LAST_EVENT_ID, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, SESSION_ID, Unreadable};
use super::operation::{Operation, removed_in_modern};
use super::refusal::{Refusal, Wrong};
use super::scan::{Kind, Message, Scanned};
use super::version::{Era, Version};

/// What the request line and the headers alone say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// `POST`: read the body, scan it, and ask [`post`].
    Post,
    /// `GET`: open the session's stream (legacy).
    Stream {
        /// The sealed session token, unopened.
        session: Box<str>,
        /// Resume after this event, if given.
        last_event_id: Option<Box<str>>,
        /// The version header, if given.
        version: Option<Version>,
    },
    /// `DELETE`: end the session (legacy).
    End {
        /// The sealed session token, unopened.
        session: Box<str>,
        /// The version header, if given.
        version: Option<Version>,
    },
}

/// What a `POST` turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    /// `initialize` of the legacy era: creates a session.
    Initialize,
    /// Messages in a legacy session. Once it is open, [`Post::in_session`] has the last word.
    Legacy {
        /// The sealed session token, unopened.
        session: Box<str>,
        /// The version header, if given.
        version: Option<Version>,
        /// Whether the body is a batch.
        batch: bool,
    },
    /// A self-contained request or notification.
    Modern {
        /// The version that header and body agree on.
        version: Version,
    },
}

impl Post {
    /// Which era the request belongs to.
    pub fn era(&self) -> Era {
        match self {
            Self::Initialize | Self::Legacy { .. } => Era::Legacy,
            Self::Modern { .. } => Era::Modern,
        }
    }

    /// What only the opened session can tell: a batch needs a session that negotiated 2025-03-26.
    pub fn in_session(&self, negotiated: Version) -> Result<(), Refusal> {
        match self {
            Self::Legacy { batch: true, .. } if !negotiated.has_batches() => Err(Refusal::Batch),
            Self::Initialize | Self::Legacy { .. } | Self::Modern { .. } => Ok(()),
        }
    }
}

/// Judges request line and headers, before any body is read.
pub fn head(method: &Method, headers: &HeaderMap) -> Result<Head, Refusal> {
    const SINGLE: [HeaderName; 6] = [PROTOCOL_VERSION, SESSION_ID, METHOD, NAME, LAST_EVENT_ID, http::header::CONTENT_TYPE];
    for name in SINGLE.iter().filter(|_| header::has_doubled(headers)) {
        if let Err(Unreadable::Doubled) = header::single(headers, name) {
            return Err(Refusal::Header { header: display(name), wrong: Wrong::Doubled });
        }
    }
    if method == Method::POST {
        return post_head(headers).map(|()| Head::Post);
    }
    if method != Method::GET && method != Method::DELETE {
        return Err(Refusal::MethodNotAllowed { allow: "GET, POST, DELETE" });
    }
    let version = match read_version(headers)? {
        VersionHeader::Absent => None,
        VersionHeader::Known(version) if version.era() == Era::Legacy => Some(version),
        VersionHeader::Known(_) => return Err(Refusal::MethodNotAllowed { allow: "POST" }),
        VersionHeader::Unknown(_) => return Err(Refusal::LegacyVersion),
    };
    if method == Method::GET && !header::accepts(headers, "text/event-stream") {
        return Err(Refusal::NotAcceptable { wanted: "text/event-stream" });
    }
    let session = session(headers)?.ok_or(Refusal::MissingSession)?;
    if method == Method::DELETE {
        return Ok(Head::End { session, version });
    }
    let last_event_id = header::single(headers, &LAST_EVENT_ID).map_err(|wrong| unreadable(&LAST_EVENT_ID, wrong))?;
    Ok(Head::Stream { session, last_event_id: last_event_id.map(Box::from), version })
}

fn post_head(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = header::single(headers, &http::header::CONTENT_TYPE).ok().flatten();
    if !content_type.is_some_and(header::is_json) || headers.contains_key(http::header::CONTENT_ENCODING) {
        return Err(Refusal::UnsupportedMediaType);
    }
    if !header::accepts(headers, "application/json") || !header::accepts(headers, "text/event-stream") {
        return Err(Refusal::NotAcceptable { wanted: "application/json, text/event-stream" });
    }
    Ok(())
}

/// Judges a scanned `POST` that passed [`head`].
pub fn post(headers: &HeaderMap, scanned: &Scanned) -> Result<Post, Refusal> {
    let version = read_version(headers)?;
    let post = match scanned {
        Scanned::Batch(messages) => batch(headers, &version, messages)?,
        Scanned::One(message) if is_modern(headers, &version, message) => modern(headers, &version, message)?,
        Scanned::One(message) => legacy(headers, version, message)?,
    };
    for message in scanned.messages() {
        Operation::of(message).map_err(|member| Refusal::InvalidParams { member })?;
    }
    Ok(post)
}

/// The body decides first; without a word from it, the version header; without that, the modern headers.
fn is_modern(headers: &HeaderMap, version: &VersionHeader<'_>, message: &Message) -> bool {
    if message.meta_version().is_some() {
        return true;
    }
    let in_session = headers.contains_key(SESSION_ID);
    match version {
        VersionHeader::Known(version) => version.era() == Era::Modern,
        // A session is legacy; without one, only a newer client than we know can mean this.
        VersionHeader::Unknown(_) => !in_session && message.method() != Some("initialize"),
        VersionHeader::Absent => {
            !in_session && message.method() != Some("initialize") && (headers.contains_key(METHOD) || headers.contains_key(NAME))
        }
    }
}

fn batch(headers: &HeaderMap, version: &VersionHeader<'_>, messages: &[Message]) -> Result<Post, Refusal> {
    let version = match version {
        VersionHeader::Absent => None,
        VersionHeader::Known(version) if version.has_batches() => Some(*version),
        VersionHeader::Known(_) | VersionHeader::Unknown(_) => return Err(Refusal::Batch),
    };
    if messages.iter().any(|message| message.meta_version().is_some()) {
        return Err(Refusal::Batch);
    }
    if messages.iter().any(|message| message.method() == Some("initialize")) {
        return Err(Refusal::InitializeInBatch);
    }
    Ok(Post::Legacy { session: session(headers)?.ok_or(Refusal::MissingSession)?, version, batch: true })
}

fn legacy(headers: &HeaderMap, version: VersionHeader<'_>, message: &Message) -> Result<Post, Refusal> {
    let version = match version {
        VersionHeader::Absent => None,
        VersionHeader::Known(version) => Some(version),
        VersionHeader::Unknown(_) => return Err(Refusal::LegacyVersion),
    };
    if message.is_request() && message.method() == Some("initialize") {
        return Ok(Post::Initialize);
    }
    Ok(Post::Legacy { session: session(headers)?.ok_or(Refusal::MissingSession)?, version, batch: false })
}

fn modern(headers: &HeaderMap, header_version: &VersionHeader<'_>, message: &Message) -> Result<Post, Refusal> {
    let version = modern_version(header_version, message)?;
    match message.kind() {
        Kind::Response | Kind::ErrorResponse => return Err(Refusal::ResponseFromClient),
        Kind::Request if message.client_capabilities_span().is_none() => {
            return Err(Refusal::MissingMeta { key: "io.modelcontextprotocol/clientCapabilities" });
        }
        Kind::Request | Kind::Notification => {}
    }
    let method = message.method().unwrap_or_default();
    agree(headers, &METHOD, Some(method), message.is_request())?;
    let (source, required) = name_source(message, method);
    agree(headers, &NAME, source, required && message.is_request())?;
    no_doubled_param(headers)?;
    if removed_in_modern(method) {
        return Err(Refusal::RemovedMethod);
    }
    Ok(Post::Modern { version })
}

/// The version that header and `_meta` agree on and that is served.
fn modern_version(header: &VersionHeader<'_>, message: &Message) -> Result<Version, Refusal> {
    const KEY: &str = "io.modelcontextprotocol/protocolVersion";
    let mismatch = |wrong| Refusal::HeaderMismatch { header: display(&PROTOCOL_VERSION), wrong };
    let unsupported = |requested: &str| Refusal::UnsupportedVersion { requested: requested.into() };
    match (message.meta_version(), header) {
        // Only requests must repeat the version in `_meta`.
        (None, VersionHeader::Known(version)) if !message.is_request() => Ok(*version),
        (None, VersionHeader::Unknown(text)) => Err(unsupported(text)),
        (None, VersionHeader::Known(_) | VersionHeader::Absent) => Err(Refusal::MissingMeta { key: KEY }),
        (Some(_), VersionHeader::Absent) => Err(mismatch(Wrong::Missing)),
        (Some(body), VersionHeader::Known(version)) if body == version.as_str() => match version.era() {
            Era::Modern => Ok(*version),
            Era::Legacy => Err(unsupported(body)),
        },
        (Some(body), VersionHeader::Unknown(text)) if body == *text => Err(unsupported(body)),
        (Some(_), VersionHeader::Known(_) | VersionHeader::Unknown(_)) => Err(mismatch(Wrong::Differs)),
    }
}

/// Where `Mcp-Name` is mirrored from, and whether the method requires it.
fn name_source<'m>(message: &'m Message, method: &str) -> (Option<&'m str>, bool) {
    match method {
        "tools/call" | "prompts/get" => (message.name(), true),
        "resources/read" => (message.uri(), true),
        "tasks/get" | "tasks/update" | "tasks/cancel" => (message.task_id(), true),
        _ => (message.name().or(message.uri()).or(message.task_id()), false),
    }
}

/// Header and body must say the same. A header without a counterpart in the body would be believed by nobody who reads
/// the body and by everybody who does not, so it is refused too.
fn agree(headers: &HeaderMap, name: &HeaderName, body: Option<&str>, required: bool) -> Result<(), Refusal> {
    let mismatch = |wrong| Refusal::HeaderMismatch { header: display(name), wrong };
    let value = match header::single(headers, name) {
        Ok(value) => value,
        Err(Unreadable::Doubled) => return Err(mismatch(Wrong::Doubled)),
        Err(Unreadable::Malformed) => return Err(mismatch(Wrong::Malformed)),
    };
    let Some(value) = value else {
        // Without a value in the body, the method's own check on `params` says what is missing.
        return if required && body.is_some() { Err(mismatch(Wrong::Missing)) } else { Ok(()) };
    };
    let value = if name == NAME { header::decoded(value).map_err(|_invalid| mismatch(Wrong::Malformed))? } else { value.into() };
    if body == Some(value.as_ref()) { Ok(()) } else { Err(mismatch(Wrong::Differs)) }
}

fn no_doubled_param(headers: &HeaderMap) -> Result<(), Refusal> {
    let doubled = header::has_doubled(headers)
        && headers.keys().any(|name| name.as_str().starts_with(PARAM_PREFIX) && headers.get_all(name).iter().nth(1).is_some());
    if doubled { Err(Refusal::HeaderMismatch { header: "Mcp-Param-*", wrong: Wrong::Doubled }) } else { Ok(()) }
}

/// Copies the headers that the protocol needs upstream into `out`. Everything else of the client's stays here.
/// What was compared with the body (or is opaque to us, `Mcp-Param-*`) travels as the client wrote it; headers that an
/// era does not check do not travel.
pub fn forward(era: Era, headers: &HeaderMap, out: &mut HeaderMap) {
    let copied: &[HeaderName] = match era {
        Era::Legacy => &[PROTOCOL_VERSION, LAST_EVENT_ID],
        Era::Modern => &[PROTOCOL_VERSION, METHOD, NAME],
    };
    for name in copied {
        if let Some(value) = headers.get(name) {
            out.insert(name, value.clone());
        }
    }
    if era == Era::Modern {
        let params = headers.iter().filter(|(name, _)| name.as_str().starts_with(PARAM_PREFIX));
        params.for_each(|(name, value)| drop(out.insert(name, value.clone())));
    }
    out.insert(http::header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    out.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

/// What this transport repeats of a message in headers (2026-07-28 Streamable HTTP, request headers), for one that came another way.
pub fn mirrored(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    let method = message.method().unwrap_or_default();
    headers.insert(METHOD, header::encoded(method));
    if let (Some(name), true) = name_source(message, method) {
        headers.insert(NAME, header::encoded(name));
    }
    if let Some(version) = message.meta_version() {
        headers.insert(PROTOCOL_VERSION, header::encoded(version));
    }
    headers
}

enum VersionHeader<'h> {
    Absent,
    Known(Version),
    Unknown(&'h str),
}

fn read_version(headers: &HeaderMap) -> Result<VersionHeader<'_>, Refusal> {
    match header::single(headers, &PROTOCOL_VERSION) {
        Ok(None) => Ok(VersionHeader::Absent),
        Ok(Some(text)) => Ok(Version::parse(text).map_or(VersionHeader::Unknown(text), VersionHeader::Known)),
        Err(wrong) => Err(unreadable(&PROTOCOL_VERSION, wrong)),
    }
}

fn session(headers: &HeaderMap) -> Result<Option<Box<str>>, Refusal> {
    header::single(headers, &SESSION_ID).map(|value| value.map(Box::from)).map_err(|wrong| unreadable(&SESSION_ID, wrong))
}

fn unreadable(name: &HeaderName, wrong: Unreadable) -> Refusal {
    let wrong = match wrong {
        Unreadable::Doubled => Wrong::Doubled,
        Unreadable::Malformed => Wrong::Malformed,
    };
    Refusal::Header { header: display(name), wrong }
}

/// The name as specifications write it.
fn display(name: &HeaderName) -> &'static str {
    match name.as_str() {
        "mcp-protocol-version" => "MCP-Protocol-Version",
        "mcp-session-id" => "Mcp-Session-Id",
        "mcp-method" => "Mcp-Method",
        "mcp-name" => "Mcp-Name",
        "last-event-id" => "Last-Event-ID",
        _ => "Content-Type",
    }
}

#[cfg(test)]
mod tests;
