//! The inside of JSON strings: finding where plain text ends, eight bytes at a time, and undoing escapes.
//! Owns no positions and reports no errors; called only by the lexer, on text whose syntax the lexer checks.

/// How many leading bytes are neither a quote, a backslash nor a control character, eight at a time.
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut done = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let slash = word ^ (ONES * u64::from(b'\\'));
        // The classic zero-byte test; bytes above 0x7F never count as below 0x20 because of `!word`.
        let quotes = quote.wrapping_sub(ONES) & !quote;
        let slashes = slash.wrapping_sub(ONES) & !slash;
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quotes | slashes | controls) & HIGH;
        if found != 0 {
            // Borrows only travel upwards, so the lowest marked byte is exact.
            return done + (found.trailing_zeros() / 8) as usize;
        }
        done += 8;
    }
    done + rest.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count()
}

/// Four hexadecimal digits as a UTF-16 code unit.
pub(super) fn hex4(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |unit, &digit| Some((unit << 4) | (digit as char).to_digit(16)? as u16))
}

/// Unescapes what the lexer has accepted.
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        let mut used = at + 2;
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = |from: usize| hex4(&rest.as_bytes()[from..from + 4]).expect("the lexer checked the digits");
                let first = unit(used);
                used += 4;
                let units = if (0xD800..0xDC00).contains(&first) {
                    used += 6;
                    [first, unit(used - 4)]
                } else {
                    [first, 0]
                };
                char::decode_utf16(units).next().and_then(Result::ok).expect("the lexer refuses lone surrogates")
            }
            other => other as char,
        });
        rest = &rest[used..];
    }
    out.push_str(rest);
    out
}
