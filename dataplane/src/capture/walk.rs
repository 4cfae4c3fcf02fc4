//! From JSON as it travelled to JSON that may be kept: what looks like a secret, what is named like one and what the organisation names is
//! taken out while it is copied, until there is enough.
//!
//! Reads as far as it has to and no further, also the beginning of a text whose end never came. Pure.

use std::borrow::Cow;

use mcp_gateway::secret::is_secret_name;
use mcp_gateway::snapshot::Capture;
use mcp_gateway::snapshot::capture::Place;

use super::patterns::{self, REDACTED};

/// Deeper nesting is cut off.
const MAX_DEPTH: usize = 128;
/// What is looked at of one text, in lengths of what may be kept.
const LOOK_AT: usize = 4;

/// What may be kept of a JSON value.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// JSON, unless it was cut.
    pub text: String,
    pub cut: bool,
    /// How often something was taken out.
    pub redactions: u32,
}

/// No more is copied: there is enough, or nothing more can be read.
struct Stop;

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    place: Vec<Place>,
    capture: &'a Capture,
    kept: Kept,
}

/// What may be kept of a JSON value, or of its beginning.
pub fn keep(json: &[u8], capture: &Capture) -> Kept {
    let kept = Kept { text: String::new(), cut: false, redactions: 0 };
    let mut walk = Walk { json, at: 0, place: Vec::new(), capture, kept };
    if walk.value().is_err() {
        walk.kept.cut = true;
    }
    walk.kept
}

/// The value of the first of these members of an object, or as much of it as is there.
pub fn member<'a>(json: &'a [u8], names: &[&str], capture: &Capture) -> Option<&'a [u8]> {
    let kept = Kept { text: String::new(), cut: false, redactions: 0 };
    let mut walk = Walk { json, at: 0, place: Vec::new(), capture, kept };
    walk.expect(b'{').ok()?;
    while walk.peek() == Some(b'"') {
        let key = walk.raw_string().ok().and_then(|raw| unescaped(raw).ok())?;
        walk.expect(b':').ok()?;
        walk.blank();
        let from = walk.at;
        if names.contains(&key.as_ref()) {
            // A message that was cut off keeps what there is of the member.
            let _ends_early = walk.skip();
            return Some(&json[from..walk.at]);
        }
        walk.skip().ok()?;
        if walk.expect(b',').is_err() {
            break;
        }
        walk.blank();
    }
    None
}

impl<'a> Walk<'a> {
    fn value(&mut self) -> Result<(), Stop> {
        self.blank();
        if self.is_named_secret() || self.capture.hides(&self.place) {
            self.kept.redactions += 1;
            self.put(&format!("\"{REDACTED}\""))?;
            return self.skip();
        }
        match self.peek().ok_or(Stop)? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string(),
            _ => {
                let token = std::str::from_utf8(self.token()).ok().filter(|token| is_plain(token)).ok_or(Stop)?;
                self.put(token)
            }
        }
    }

    fn is_named_secret(&self) -> bool {
        matches!(self.place.last(), Some(Place::Key(key)) if is_secret_name(key))
    }

    fn object(&mut self) -> Result<(), Stop> {
        self.open(b'{')?;
        let mut first = true;
        while self.more(b'}', &mut first)? {
            let raw = self.raw_string()?;
            let key = unescaped(raw).map_err(|Unreadable| Stop)?.into_owned();
            self.text(&key)?;
            self.expect(b':')?;
            self.put(":")?;
            self.place.push(Place::Key(key));
            self.value()?;
            self.place.pop();
        }
        self.put("}")
    }

    fn array(&mut self) -> Result<(), Stop> {
        self.open(b'[')?;
        let (mut first, mut index) = (true, 0);
        while self.more(b']', &mut first)? {
            self.place.push(Place::Index(index));
            self.value()?;
            self.place.pop();
            index += 1;
        }
        self.put("]")
    }

    fn open(&mut self, bracket: u8) -> Result<(), Stop> {
        if self.place.len() >= MAX_DEPTH {
            return Err(Stop);
        }
        self.expect(bracket)?;
        self.put(char::from(bracket).encode_utf8(&mut [0; 4]))
    }

    /// Whether another member follows; consumes the comma before it, or the bracket behind the last.
    fn more(&mut self, close: u8, first: &mut bool) -> Result<bool, Stop> {
        self.blank();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',')?;
            self.put(",")?;
            self.blank();
        }
        self.peek().map(|_| true).ok_or(Stop)
    }

    fn string(&mut self) -> Result<(), Stop> {
        let from = self.at;
        match self.raw_string() {
            Ok(raw) => {
                let text = unescaped(raw).map_err(|Unreadable| Stop)?;
                self.text(&text)
            }
            // The end never came, and with it perhaps that of a secret.
            Err(Stop) => {
                let inner = String::from_utf8_lossy(&self.json[(from + 1).min(self.json.len())..]).into_owned();
                let whole = without_last_word(&inner);
                let _enough = self.text(whole);
                Err(Stop)
            }
        }
    }

    /// Copies a text as a JSON string.
    fn text(&mut self, text: &str) -> Result<(), Stop> {
        let most = self.capture.max_bytes * LOOK_AT;
        let looked_at = if text.len() > most { without_last_word(&text[..text.floor_char_boundary(most)]) } else { text };
        let redacted = patterns::redact(looked_at);
        if let Cow::Owned(redacted) = &redacted {
            self.kept.redactions += u32::try_from(redacted.matches(REDACTED).count().max(1)).unwrap_or(u32::MAX);
        }
        self.put(&serde_json::to_string(&redacted).map_err(|_never| Stop)?)?;
        if looked_at.len() < text.len() { Err(Stop) } else { Ok(()) }
    }

    /// Copies what fits.
    fn put(&mut self, text: &str) -> Result<(), Stop> {
        let room = self.capture.max_bytes - self.kept.text.len();
        if text.len() <= room {
            self.kept.text.push_str(text);
            return Ok(());
        }
        self.kept.text.push_str(&text[..text.floor_char_boundary(room)]);
        Err(Stop)
    }

    /// A string from quote to quote.
    fn raw_string(&mut self) -> Result<&'a [u8], Stop> {
        self.blank();
        let (json, from) = (self.json, self.at);
        if self.peek() != Some(b'"') {
            return Err(Stop);
        }
        let mut at = from + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', json.get(at..).ok_or(Stop)?).ok_or(Stop)?;
            if json[at] == b'"' {
                self.at = at + 1;
                return Ok(&json[from..=at]);
            }
            at += 2;
        }
    }

    /// A number or a word.
    fn token(&mut self) -> &'a [u8] {
        let rest = &self.json[self.at..];
        let length = rest.iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += length;
        &rest[..length]
    }

    /// Passes over a value without copying it.
    fn skip(&mut self) -> Result<(), Stop> {
        let mut depth = 0usize;
        loop {
            self.blank();
            match self.peek() {
                None => {
                    self.at = self.json.len();
                    return Err(Stop);
                }
                Some(b'"') => {
                    if self.raw_string().is_err() {
                        self.at = self.json.len();
                        return Err(Stop);
                    }
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    depth = depth.checked_sub(1).ok_or(Stop)?;
                    self.at += 1;
                }
                Some(b',' | b':') => self.at += 1,
                Some(_) => drop(self.token()),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        self.blank();
        if self.peek() != Some(byte) {
            return Err(Stop);
        }
        self.at += 1;
        Ok(())
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }
}

/// Whether this is what JSON has beside texts, objects and arrays.
fn is_plain(token: &str) -> bool {
    matches!(token, "true" | "false" | "null") || token.len() <= 64 && token.parse::<serde_json::Number>().is_ok()
}

/// Not a JSON string.
struct Unreadable;

fn unescaped(raw: &[u8]) -> Result<Cow<'_, str>, Unreadable> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).map(Cow::Borrowed).map_err(|_invalid| Unreadable);
    }
    serde_json::from_slice(raw).map(Cow::Owned).map_err(|_invalid| Unreadable)
}

/// A text whose last word may be half of one.
fn without_last_word(text: &str) -> &str {
    let end = text.rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | '/' | '+' | '=' | '~' | ':'));
    end.map_or("", |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::config::v1 as wire;
    use proptest::prelude::*;

    use super::*;

    fn capture(max_bytes: u32, redact: &[&str]) -> Capture {
        let redact = redact.iter().map(|rule| (*rule).to_owned()).collect();
        Capture::of(&wire::Capture { arguments: true, max_bytes, redact, ..wire::Capture::default() }).unwrap()
    }

    fn kept(json: &str) -> (String, bool, u32) {
        let Kept { text, cut, redactions } = keep(json.as_bytes(), &capture(0, &["ssn", "$.cards[*].number"]));
        (text, cut, redactions)
    }

    #[test]
    fn what_is_secret_is_taken_out_wherever_it_is() {
        let table = [
            (r#" { "a" : [ 1 , -2.5e3 , true , null , "x" ] } "#, r#"{"a":[1,-2.5e3,true,null,"x"]}"#, 0),
            (r#"{"password":{"deep":["x",1]},"n":1}"#, r#"{"password":"[redacted]","n":1}"#, 1),
            (r#"{"PIN":1234,"Ssn":["1"]}"#, r#"{"PIN":"[redacted]","Ssn":"[redacted]"}"#, 2),
            (r#"{"cards":[{"number":"1","name":"a"}]}"#, r#"{"cards":[{"number":"[redacted]","name":"a"}]}"#, 1),
            (r#"{"a":"Bearer abcdefghijkl"}"#, r#"{"a":"Bearer [redacted]"}"#, 1),
            (r#"{"\u0070assword":"x"}"#, r#"{"password":"[redacted]"}"#, 1),
            (r#"{"a":"sk-\u0030123456789abcdefgh"}"#, r#"{"a":"[redacted]"}"#, 1),
            (r#"{"sk-0123456789abcdefghij":1}"#, r#"{"[redacted]":1}"#, 1),
            (r#"{"text":"{\"token\":\"x\"}"}"#, r#"{"text":"{\"token\":[redacted]}"}"#, 1),
            (r#"{"a":"-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\n"}"#, r#"{"a":"[redacted]\n"}"#, 1),
            (r#""just text""#, r#""just text""#, 0),
            ("[]", "[]", 0),
        ];
        for (given, left, redactions) in table {
            assert_eq!(kept(given), (left.to_owned(), false, redactions), "{given}");
        }
    }

    #[test]
    fn what_ends_early_is_cut_and_half_a_secret_is_none() {
        for given in
            ["", "{", r#"{"a"#, r#"{"a":"#, r#"{"a":[1,"#, r#"{"a":"x y sk-0123"#, r#"{"a":"x \"#, "nonsense}", r#"{"a" 1}"#]
        {
            let (text, _, _) = kept(given);
            assert!(!text.contains("sk-") && given.len() >= text.len(), "{given}: {text}");
        }
        assert_eq!(kept(r#"{"a":"one two thr"#), (r#"{"a":"one two""#.to_owned(), true, 0));
        let long = format!(r#"{{"a":"{} sk-0123456789abcdefghij"}}"#, "x".repeat(90));
        for most in 1..109 {
            let kept = keep(long.as_bytes(), &capture(most, &[]));
            assert!(kept.text.len() <= most as usize && !kept.text.contains("sk-"), "{most}: {kept:?}");
            assert!(kept.cut, "{most}: {kept:?}");
        }
        let deep = "[".repeat(500);
        assert!(keep(deep.as_bytes(), &capture(0, &[])).cut);
    }

    #[test]
    fn one_member_is_found_whole_or_as_far_as_it_goes() {
        let find = |json: &'static str| {
            let found = member(json.as_bytes(), &["result", "error"], &capture(0, &[]));
            found.map(|found| std::str::from_utf8(found).unwrap())
        };
        assert_eq!(find(r#"{"jsonrpc":"2.0","id":{"result":1},"result":{"a":[1]},"x":1}"#), Some(r#"{"a":[1]}"#));
        assert_eq!(find(r#"{"error" : "x"}"#), Some(r#""x""#));
        assert_eq!(find(r#"{"id":1,"result":{"a":[1,"#), Some(r#"{"a":[1,"#));
        assert_eq!(find(r#"{"id":1}"#), None);
        assert_eq!(find("[1]"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200), most in 1u32..100) {
            let kept = keep(&bytes, &capture(most, &["$..a", "b"]));
            prop_assert!(kept.text.len() <= most as usize);
        }

        #[test]
        fn plain_json_stays_the_same_value(numbers in proptest::collection::vec(any::<i32>(), 0..20), word in "[a-z]{0,5}") {
            let value = serde_json::json!({ "list": numbers, "deep": { "er": [word, { "x": null }] } });
            let kept = keep(value.to_string().as_bytes(), &capture(0, &["ssn"]));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&kept.text).unwrap(), value);
        }
    }
}
