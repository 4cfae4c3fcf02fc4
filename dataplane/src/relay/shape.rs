//! What an error's message looks like, as a number: the same for messages that differ only in what changes from call to call.
//! The text itself is never kept: it may hold secrets. Runs only where an answer is an error.

/// At most so many bytes of a message are looked at.
const LOOK_AT: usize = 1024;

/// FNV-1a, 64 bits: the same on every node and in every version, which is all that is asked of it.
struct Hash(u64);

impl Hash {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// The shape of JSON as written. What is quoted within the text, digits, and words with a digit in them (numbers, hex, ids, dates) count as
/// one mark each; letters count without their case and white space as one blank. Never 0.
pub fn of(json: &str) -> u64 {
    let bytes = json.as_bytes();
    let bytes = &bytes[..bytes.len().min(LOOK_AT)];
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    let mut at = 0;
    let mut blank = true;
    while let Some(byte) = bytes.get(at) {
        let (next, mark) = token(bytes, at);
        match mark {
            Mark::Blank if blank => {}
            Mark::Blank => hash.byte(b' '),
            Mark::Changing => hash.byte(b'#'),
            Mark::Word => bytes[at..next].iter().for_each(|byte| hash.byte(byte.to_ascii_lowercase())),
            Mark::Sign => hash.byte(*byte),
        }
        blank = mark == Mark::Blank;
        at = next;
    }
    hash.0.max(1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Blank,
    /// Differs between calls.
    Changing,
    Word,
    Sign,
}

/// What begins at a place, and where it ends.
fn token(bytes: &[u8], at: usize) -> (usize, Mark) {
    let run = |from: usize, part: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|byte| part(byte)).count();
    match bytes[at] {
        b' ' | b'\t' | b'\n' | b'\r' => (run(at, u8::is_ascii_whitespace), Mark::Blank),
        // JSON's own escapes: a quote within the text begins what it quotes, the others are blanks.
        b'\\' => match bytes.get(at + 1) {
            Some(b'"') => (quoted(bytes, at + 2, b"\\\""), Mark::Changing),
            _ => ((at + 2).min(bytes.len()), Mark::Blank),
        },
        quote @ (b'\'' | b'`') if at == 0 || !is_wordy(&bytes[at - 1]) => match quoted(bytes, at + 1, &[quote]) {
            end if end <= bytes.len() && end > at + 1 && bytes[..end].ends_with(&[quote]) => (end, Mark::Changing),
            _ => (at + 1, Mark::Sign),
        },
        byte if is_wordy(&byte) => {
            let end = run(at, is_wordy);
            let changing = bytes[at..end].iter().any(u8::is_ascii_digit);
            (end, if changing { Mark::Changing } else { Mark::Word })
        }
        _ => (at + 1, Mark::Sign),
    }
}

/// Where a quotation ends: behind its closing quote, or where the text does.
fn quoted(bytes: &[u8], from: usize, close: &[u8]) -> usize {
    let end = bytes[from..].windows(close.len()).position(|window| window == close);
    end.map_or(bytes.len(), |end| from + end + close.len())
}

/// Part of a word, an id or a number; letters beyond ASCII are.
fn is_wordy(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+') || *byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn what_changes_from_call_to_call_does_not_count() {
        let alike = [
            (r#""no row 17""#, r#""no row 4""#),
            (r#""no row 17""#, r#""No  row\n 17""#),
            (r#""user 0198c0de-0000-7000-8000-000000000001 is gone""#, r#""user 0aaac0de-ffff-7000-8000-000000000009 is gone""#),
            (r#""at 2026-11-22T20:04:05.123Z: late""#, r#""at 2025-01-01T00:00:00Z: late""#),
            (r#""no file 'a.txt' here""#, r#""no file 'another, longer' here""#),
            (r#""no file \"a\" here""#, r#""no file \"b c d\" here""#),
            (r#""key `sk-abcdef` is wrong""#, r#""key `x` is wrong""#),
            (r#""hash deadbeef01""#, r#""hash 1234""#),
        ];
        for (one, other) in alike {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        let apart = [
            (r#""no row 17""#, r#""no table 17""#),
            (r#""it doesn't work""#, r#""it doesn't matter""#),
            (r#""a 'quotation that never ends""#, r#""a 'quotation without an end""#),
            (r#""refused""#, r#""timed out""#),
            (r#""""#, r#""x""#),
        ];
        for (one, other) in apart {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn any_text_has_a_shape_and_the_shape_is_for_ever() {
        for text in ["", "\\", "\\\"", "'", "é", "'é", "\\u00e9", &"x".repeat(5000), &"\\\"".repeat(600)] {
            assert_ne!(of(text), 0, "{text}");
        }
        assert_eq!(
            of(&format!("{}1", "x ".repeat(512))),
            of(&format!("{}y", "x ".repeat(512))),
            "only the beginning is looked at"
        );
        assert_eq!(of("a"), 0xaf63_dc4c_8601_ec8c, "FNV-1a of the letter");
    }
}
