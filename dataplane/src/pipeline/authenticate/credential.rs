//! Reads what a request offers as proof of who sent it. Never judges whether the proof holds.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

/// The header for API keys of clients that keep `Authorization` for something else.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Tokens beyond this are refused unread.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// What a request offers.
#[derive(Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing at all: the only way to be anonymous.
    None,
    /// `mcpgw_<key id>_<secret>`.
    ApiKey {
        /// The public part.
        key_id: &'a str,
        /// The secret part.
        secret: &'a str,
    },
    /// Three dot-separated parts.
    Token(&'a str),
    /// Something that cannot be a credential of ours; refused like a wrong one.
    Unusable,
}

/// Why the headers do not say which credential is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than one credential was sent: send one `Authorization` or one `X-Api-Key` header")]
pub struct Ambiguous;

/// The one credential of a request.
pub fn read(headers: &HeaderMap) -> Result<Credential<'_>, Ambiguous> {
    let mut offers = headers.get_all(AUTHORIZATION).iter().map(|value| (value, true));
    let offers = offers.by_ref().chain(headers.get_all(X_API_KEY).iter().map(|value| (value, false)));
    let mut found = None;
    for offer in offers {
        if found.replace(offer).is_some() {
            return Err(Ambiguous);
        }
    }
    let Some((value, is_authorization)) = found else { return Ok(Credential::None) };
    // Tokens are long: checked as text a word at a time, and for characters that no credential has by what reads them.
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return Ok(Credential::Unusable) };
    if !text.is_ascii() {
        return Ok(Credential::Unusable);
    }
    if !is_authorization {
        return Ok(api_key(text.trim()).unwrap_or(Credential::Unusable));
    }
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Ok(bearer(rest.trim())),
        _ => Ok(Credential::Unusable),
    }
}

fn bearer(text: &str) -> Credential<'_> {
    if let Some(key) = api_key(text) {
        return key;
    }
    if text.len() <= MAX_TOKEN_BYTES && memchr::memchr_iter(b'.', text.as_bytes()).count() == 2 {
        return Credential::Token(text);
    }
    Credential::Unusable
}

fn api_key(text: &str) -> Option<Credential<'_>> {
    let (key_id, secret) = text.strip_prefix("mcpgw_")?.split_once('_')?;
    let plausible = !key_id.is_empty() && key_id.len() <= 64 && !secret.is_empty() && secret.len() <= 256;
    plausible.then_some(Credential::ApiKey { key_id, secret })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Ambiguous, Credential, read};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn one_credential_is_read_and_two_are_refused() {
        let key = Credential::ApiKey { key_id: "abcd", secret: "s_t" };
        type Case<'a> = (&'a [(&'static str, &'a str)], Result<Credential<'a>, Ambiguous>);
        let cases: [Case<'_>; 11] = [
            (&[], Ok(Credential::None)),
            (&[("authorization", "Bearer mcpgw_abcd_s_t")], Ok(key)),
            (&[("authorization", "bEARER a.b.c")], Ok(Credential::Token("a.b.c"))),
            (&[("x-api-key", "mcpgw_abcd_s")], Ok(Credential::ApiKey { key_id: "abcd", secret: "s" })),
            (&[("x-api-key", "a.b.c")], Ok(Credential::Unusable)),
            (&[("authorization", "Basic YTpi")], Ok(Credential::Unusable)),
            (&[("authorization", "Bearer")], Ok(Credential::Unusable)),
            (&[("authorization", "Bearer mcpgw_abcd_")], Ok(Credential::Unusable)),
            (&[("authorization", "Bearer a.b")], Ok(Credential::Unusable)),
            (&[("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")], Err(Ambiguous)),
            (&[("authorization", "Bearer a.b.c"), ("x-api-key", "mcpgw_abcd_s")], Err(Ambiguous)),
        ];
        for (given, expected) in cases {
            assert_eq!(read(&headers(given)), expected, "{given:?}");
        }
        let long = format!("Bearer a.{}.c", "b".repeat(8 << 10));
        assert_eq!(read(&headers(&[("authorization", &long)])), Ok(Credential::Unusable));
    }
}
