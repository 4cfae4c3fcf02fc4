//! What calls and answers say beside their messages: why a change is made, that it is meant even so, and what a dry run found.
//!
//! Request metadata `mcpgw-reason` and `mcpgw-force`, response metadata `mcpgw-config-diff-bin`. Read and written by `access`.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderValue};
use prost::Message;

use super::error::Error;
use crate::{domain::diff, store::change::DryRun};

/// Why, as percent-encoded UTF-8.
const REASON: &str = "mcpgw-reason";
/// `true`: the change is meant even where it removes most of an organisation.
const FORCE: &str = "mcpgw-force";
/// The encoded `ConfigDiff` of a dry run.
const DIFF: &str = "mcpgw-config-diff-bin";
const LONGEST_REASON: usize = 500;
/// Clients take at least 8 kB of headers; base64 adds a third.
const LARGEST_DIFF: usize = 6 * 1024;

/// What a call says beside its request.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub reason: String,
    pub force: bool,
    /// Where the change of this call leaves what it would change.
    pub dry_run: DryRun,
}

impl Said {
    pub fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let force = match headers.get(FORCE).map(HeaderValue::as_bytes) {
            None | Some(b"false") => false,
            Some(b"true") => true,
            Some(_) => return Err(Error::invalid(FORCE, "expected true or false")),
        };
        Ok(Self { reason: reason(headers)?, force, dry_run: DryRun::default() })
    }
}

fn reason(headers: &HeaderMap) -> Result<String, Error> {
    let Some(given) = headers.get(REASON) else { return Ok(String::new()) };
    decoded(given.as_bytes())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| text.chars().count() <= LONGEST_REASON && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'))
        .ok_or_else(|| Error::invalid(REASON, "expected at most 500 characters of UTF-8, percent-encoded"))
}

/// RFC 3986, section 2.1. None: a percent sign without two digits behind it.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(*hex::decode(digits).ok()?.first()?);
        rest = behind;
    }
    Some(bytes)
}

/// Adds what a dry run found to its answer.
pub fn tell_dry_run(found: Option<&DryRun>, headers: &mut HeaderMap) {
    let Some(found) = found.and_then(|dry_run| dry_run.get()) else { return };
    let text = STANDARD_NO_PAD.encode(diff::cut(found.clone(), LARGEST_DIFF).encode_to_vec());
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(DIFF, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_percent_encoded_text_of_some_length() {
        let long = "x".repeat(501);
        let table = [
            ("", Some("")),
            ("more tools", Some("more tools")),
            ("caf%C3%A9 100%25", Some("café 100%")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%FF", None),
            ("%1B[31m", None),
            (long.as_str(), None),
        ];
        for (given, expected) in table {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(REASON), HeaderValue::from_str(given).unwrap())]);
            assert_eq!(Said::of(&headers).ok().map(|said| said.reason).as_deref(), expected, "{given}");
        }
        assert!(!Said::of(&HeaderMap::new()).unwrap().force);
    }
}
