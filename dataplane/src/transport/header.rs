//! Reading request headers strictly: one value where the protocol knows one, optional whitespace trimmed, the Base64
//! sentinel decoded. Never decides what a value means. Called by the Streamable HTTP codec.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the names of mirrored tool parameters start with.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Why a header has no usable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Doubled,
    Malformed,
}

/// The one value of a header, without surrounding whitespace (RFC 9110 section 5.5); `None` if it is absent.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Unreadable> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    if has_doubled(headers) && headers.get_all(name).iter().nth(1).is_some() {
        return Err(Unreadable::Doubled);
    }
    let text = value.to_str().map_err(|_not_visible_ascii| Unreadable::Malformed)?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

/// Whether any header is there more than once.
pub(super) fn has_doubled(headers: &HeaderMap) -> bool {
    headers.len() > headers.keys_len()
}

/// A value in the encoding of `Mcp-Name` and `Mcp-Param-*`: literal, or `=?base64?...?=` around Base64 of UTF-8.
pub(super) fn decoded(value: &str) -> Result<Cow<'_, str>, Unreadable> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(encoded).map_err(|_invalid| Unreadable::Malformed)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_invalid| Unreadable::Malformed)
}

/// A value in that encoding: literal where a header can have it as it is and nobody would decode it.
pub(crate) fn encoded(value: &str) -> HeaderValue {
    let is_plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && value.trim_matches(' ') == value;
    let literal = HeaderValue::from_str(value).ok().filter(|_| is_plain && !value.starts_with("=?base64?"));
    literal.unwrap_or_else(|| {
        let text = format!("=?base64?{}?=", STANDARD.encode(value));
        HeaderValue::from_str(&text).expect("Base64 is visible ASCII")
    })
}

/// Whether `Accept` takes the media type: named, or by a wildcard, and not with `q=0`.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let wildcard = media_type.split_once('/').map(|(kind, _)| kind);
    headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |range| {
            let mut parts = range.split(';').map(|part| part.trim_matches([' ', '\t']));
            let name = parts.next().unwrap_or_default();
            let named = name.eq_ignore_ascii_case(media_type)
                || name == "*/*"
                || name.strip_suffix("/*").is_some_and(|kind| wildcard.is_some_and(|wanted| kind.eq_ignore_ascii_case(wanted)));
            named && !parts.any(refused)
        },
    )
}

/// `q=0`, in any of its spellings.
fn refused(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.eq_ignore_ascii_case("q") && value.parse::<f32>().is_ok_and(|weight| weight == 0.0)
}

/// Whether a `Content-Type` is JSON in UTF-8.
pub(super) fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim_matches([' ', '\t']));
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => value.trim_matches('"').eq_ignore_ascii_case("utf-8"),
            _ => true,
        })
}
