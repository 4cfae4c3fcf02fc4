//! What of a client's texts may stand in a record: of a URI only where it points, of any text nothing that could forge a line of a log.
//!
//! Owns no record; the pipeline's trail writes what it gets from here.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::capture::patterns;

/// Methods, names and URIs are cut to this many bytes; a frame has to fit the spool.
const MAX: usize = 2048;
/// Stands where something was left out.
const LEFT_OUT: char = '…';

/// At most [`MAX`] bytes, cut between characters; control characters, line ends above all, are written as escapes.
pub fn plain(text: &str) -> Cow<'_, str> {
    let printable = || text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(is_unprintable);
    if text.len() <= MAX && printable() {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len().min(MAX));
    for character in text.chars() {
        let before = plain.len();
        if is_unprintable(character) {
            let _ = write!(plain, "\\u{{{:x}}}", u32::from(character)); // a String takes everything
        } else {
            plain.push(character);
        }
        if plain.len() > MAX {
            plain.truncate(before);
            break;
        }
    }
    plain.into()
}

/// A URI without what may be secret in it: user info, query, fragment, and anything that looks like a token; `…` stands for each.
/// Of a `data:` URI nothing else is left.
pub fn uri(uri: &str) -> Cow<'_, str> {
    let points = uri.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = points.split_once(':').unwrap_or(("", points));
    if scheme.eq_ignore_ascii_case("data") {
        return format!("data:{LEFT_OUT}").into();
    }
    let mut kept = String::with_capacity(points.len());
    let mut has_user_info = false;
    match rest.strip_prefix("//") {
        Some(hierarchy) => {
            let (authority, path) = hierarchy.split_at(hierarchy.find('/').unwrap_or(hierarchy.len()));
            let host = authority.rsplit_once('@').map(|(_, host)| host);
            has_user_info = host.is_some();
            let _ = write!(kept, "{scheme}://{}{path}", host.unwrap_or(authority));
        }
        None => kept.push_str(points),
    }
    let mut kept = plain(&patterns::redact(&kept)).into_owned();
    if let (true, Some(slashes)) = (has_user_info, kept.find("://")) {
        kept.insert_str(slashes + 3, "…@");
    }
    if points.len() < uri.len() {
        kept.push(uri.as_bytes()[points.len()].into());
        kept.push(LEFT_OUT);
    }
    kept.into()
}

/// A protocol version as clients state it: a date, or not worth recording.
pub fn version(text: &str) -> &str {
    let is_date = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_date || text.is_empty() { text } else { "other" }
}

/// Controls, and what moves or hides the text around it.
fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_keeps_where_it_points_and_nothing_else() {
        let table = [
            ("demo://readme", "demo://readme"),
            ("file:///a/b%20c.txt", "file:///a/b%20c.txt"),
            ("https://h:1/p?token=x&y", "https://h:1/p?…"),
            ("https://h/p#access_token=x", "https://h/p#…"),
            ("https://h/p?a#b", "https://h/p?…"),
            ("db://user:pass@h/t", "db://…@h/t"),
            ("db://a:b@c:d@h", "db://…@h"),
            ("https://h/at@path", "https://h/at@path"),
            ("data:text/plain,secret", "data:…"),
            ("DATA:,secret", "data:…"),
            ("urn:isbn:1?x", "urn:isbn:1?…"),
            ("plain", "plain"),
            ("", ""),
            ("https://h/bot/sk-0123456789abcdef0123/x", "https://h/bot/[redacted]/x"),
        ];
        for (given, kept) in table {
            assert_eq!(uri(given), kept, "{given}");
        }
    }

    #[test]
    fn no_text_of_a_client_ends_a_line_or_hides_one() {
        assert_eq!(plain("a tool"), "a tool");
        assert_eq!(plain("x\r\n2026-01-01 INFO all is well\u{1b}[2K"), "x\\u{d}\\u{a}2026-01-01 INFO all is well\\u{1b}[2K");
        assert_eq!(plain("a\u{202e}b\u{2028}c\u{85}"), "a\\u{202e}b\\u{2028}c\\u{85}");
        assert_eq!(uri("db://h/a\nb"), "db://h/a\\u{a}b");
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_escapes() {
        assert_eq!(plain(&"é".repeat(MAX)), "é".repeat(MAX / 2));
        let cut = plain(&"\n".repeat(MAX)).into_owned();
        assert!(cut.len() <= MAX && cut.ends_with('}'), "{cut}");
        assert!(uri(&format!("https://h/{}", "x".repeat(3 * MAX))).len() <= MAX);
    }

    #[test]
    fn a_version_is_a_date() {
        for (given, kept) in [("2025-11-25", "2025-11-25"), ("", ""), ("DRAFT-2026", "other"), ("secret", "other")] {
            assert_eq!(version(given), kept);
        }
    }
}
