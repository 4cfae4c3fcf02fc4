//! Making and reading the texts that credentials are written as. Never stores or compares secrets.
//!
//! Called by `api` when it issues or receives API keys and refresh tokens, and by `nodes` for join tokens.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648 base32 in lower case without padding.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

/// The bytes that [`base32`] wrote as this text; none: it did not.
pub fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        buffer = (buffer << 5) | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(buffer >> bits & 255).ok()?);
        }
    }
    (base32(&bytes) == text).then_some(bytes) // one text per value: no stray bits, no stray characters
}

/// `N` bytes from the system's source of randomness.
pub fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut()).expect("the system's source of randomness works, or nothing here can be safe");
    bytes
}

/// A public id: 16 characters, 80 bits.
pub fn public_id() -> String {
    base32(random::<10>().as_ref())
}

/// A secret: 52 characters, 256 bits.
pub fn secret() -> Zeroizing<String> {
    Zeroizing::new(base32(random::<32>().as_ref()))
}

/// Whether `text` is written like a public id.
pub fn is_public_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| ALPHABET.contains(&b))
}

/// SHA-256: how secrets of at least 128 random bits are stored.
pub fn sha256(text: &str) -> [u8; 32] {
    sha256_of(text.as_bytes())
}

/// SHA-256 of bytes.
pub fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_rfc_4648_in_lower_case() {
        for (bytes, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(unbase32(text).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn a_text_that_no_bytes_are_written_as_is_refused() {
        for text in ["m", "mz", "MY", "my=", "m1", "mzxw6ytb7"] {
            assert_eq!(unbase32(text), None, "{text}");
        }
    }

    #[test]
    fn ids_and_secrets_have_the_promised_lengths() {
        assert!(is_public_id(&public_id()));
        assert_eq!(secret().len(), 52);
    }
}
