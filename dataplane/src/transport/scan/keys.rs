//! Which keys carry protocol meaning in which object, and whether a key could be mistaken for one of them.
//! Laxer parsers behind the gateway fold case (CVE-2026-27896: Go took `Method` and `params` with a long s), so a key
//! that equals a protocol key under any folding in use, without being it byte for byte, is refused.

use super::error::ScanError;
use super::lexer::Str;

/// Keys of the JSON-RPC envelope.
pub(crate) const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Keys of `params` that any method of any protocol version gives a meaning.
pub(super) const PARAMS: &[&str] = &[
    "name",
    "uri",
    "arguments",
    "_meta",
    "cursor",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "ref",
    "argument",
    "context",
    "level",
    "task",
    "taskId",
    "requestId",
    "reason",
    "requestState",
    "inputResponses",
    "notifications",
    "progressToken",
];

/// Keys of `params._meta`.
pub(super) const META: &[&str] = &[
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/subscriptionId",
    "io.modelcontextprotocol/related-task",
    "traceparent",
    "tracestate",
    "baggage",
];

/// Keys of `params.ref` (completion/complete).
pub(super) const REFERENCE: &[&str] = &["type", "name", "uri"];

/// Keys of `params.notifications` (subscriptions/listen).
pub(super) const LISTEN: &[&str] =
    &["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"];

/// Keys of a result that decide what a client sees of a server.
pub(crate) const RESULT: &[&str] = &["tools", "prompts", "resources", "resourceTemplates", "nextCursor", "cacheScope"];

/// The longest protocol key, in characters; a folded key has at most four bytes for each.
const LONGEST: usize = 48;

/// Refuses a key that could be taken for one of `known` without being one.
pub(crate) fn check(key: &Str<'_>, known: &'static [&'static str]) -> Result<(), ScanError> {
    let text = key.text.as_ref();
    let at = key.span.start as usize - 1;
    if known.contains(&text) {
        return Ok(());
    }
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(ScanError::Nul { at });
    }
    match known.iter().copied().find(|known| mistakable(text, known)) {
        Some(means) => Err(ScanError::FoldedKey { at, means }),
        None => Ok(()),
    }
}

fn mistakable(key: &str, known: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(known);
    }
    if key.len() > 4 * LONGEST {
        return false;
    }
    // Full folding after compatibility decomposition covers Go, Python and .NET; upper case also covers Java's dotless i.
    caseless::compatibility_caseless_match_str(key, known) || key.to_uppercase().eq_ignore_ascii_case(known)
}
