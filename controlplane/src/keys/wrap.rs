//! AES-256-GCM with random nonces: how everything secret is stored. `nonce || ciphertext || tag`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::domain::ids;

/// The stored bytes do not open: another key, another context, or altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be unwrapped: the key is another, or the bytes were altered")]
pub struct Unreadable;

/// Seals `plain`; it opens only with the same `context`.
pub fn seal(key: &[u8; 32], context: &[&str], plain: &[u8]) -> Vec<u8> {
    let nonce = ids::random::<NONCE_LEN>();
    let mut sealed = plain.to_vec();
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad(context)), &mut sealed)
        .expect("AES-GCM seals anything shorter than 64 GB");
    [nonce.as_slice(), &sealed].concat()
}

/// Opens what [`seal`] made.
pub fn open(key: &[u8; 32], context: &[&str], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unreadable)?;
    let mut body = Zeroizing::new(body.to_vec());
    let opened = cipher(key).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad(context)), &mut body);
    let len = opened.ok().ok_or(Unreadable)?.len(); // aws-lc says nothing more than "unspecified"
    body.truncate(len);
    Ok(body)
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

/// Each part with its length before it, so that no two contexts run together.
fn aad(context: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in context {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_with_its_key_and_context() {
        let sealed = seal(&[1; 32], &["jwt", "id"], b"secret");
        assert_eq!(open(&[1; 32], &["jwt", "id"], &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(open(&[2; 32], &["jwt", "id"], &sealed), Err(Unreadable));
        assert_eq!(open(&[1; 32], &["jw", "tid"], &sealed), Err(Unreadable));
        let mut altered = sealed.clone();
        altered[20] ^= 1;
        assert_eq!(open(&[1; 32], &["jwt", "id"], &altered), Err(Unreadable));
        assert_eq!(open(&[1; 32], &["jwt", "id"], &sealed[..11]), Err(Unreadable));
    }
}
