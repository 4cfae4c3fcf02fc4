//! The key that signs seals and checkpoints: from a file, never in the database, so that who can write there cannot sign.
//! Pure but for reading nothing: the text comes from the settings. Without a key everything stays hashed and chained, unsigned.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::canon::{Hash, sha256};

/// What is before a key that only checks.
const PUBLIC: &str = "public:";

/// See the module.
#[derive(Default)]
pub struct Signer {
    current: Option<(String, Ed25519KeyPair)>,
    known: BTreeMap<String, Vec<u8>>,
}

/// A key and what it made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Empty: not signed.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    Good,
    Unsigned,
    /// By a key that this process was not given.
    Stranger,
    Bad,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key_id().unwrap_or("unsigned"))
    }
}

impl Signer {
    /// Of the setting `audit_checkpoint_key`: the first line signs, further lines only check what earlier keys signed. A line is the 32
    /// bytes of an Ed25519 seed in base64, or `public:` and the 32 bytes of a public key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut signer = Self::default();
        for (place, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            let expected = || {
                format!(
                    "line {}: expected 32 bytes in base64, or public: and 32 bytes (`openssl rand -base64 32` makes a key)",
                    place + 1
                )
            };
            let public = match line.strip_prefix(PUBLIC) {
                Some(public) => BASE64.decode(public.trim()).ok().filter(|key| key.len() == 32).ok_or_else(expected)?,
                None => {
                    let seed = Zeroizing::new(BASE64.decode(line).ok().unwrap_or_default());
                    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok().ok_or_else(expected)?;
                    let public = pair.public_key().as_ref().to_vec();
                    if place == 0 {
                        signer.current = Some((id(&public), pair));
                    }
                    public
                }
            };
            signer.known.insert(id(&public), public);
        }
        Ok(signer)
    }

    /// Names the key that signs, if there is one.
    pub fn key_id(&self) -> Option<&str> {
        self.current.as_ref().map(|(id, _)| id.as_str())
    }

    /// The public half of a key, in base64.
    pub fn public_key(&self, key_id: &str) -> Option<String> {
        self.known.get(key_id).map(|key| BASE64.encode(key))
    }

    pub fn sign(&self, hash: &Hash) -> Signature {
        match &self.current {
            None => Signature::default(),
            Some((key_id, pair)) => Signature { key_id: key_id.clone(), bytes: pair.sign(hash).as_ref().to_vec() },
        }
    }

    pub fn judge(&self, hash: &Hash, signature: &Signature) -> Worth {
        if signature.key_id.is_empty() && signature.bytes.is_empty() {
            return Worth::Unsigned;
        }
        let Some(key) = self.known.get(&signature.key_id) else { return Worth::Stranger };
        match UnparsedPublicKey::new(&ED25519, key).verify(hash, &signature.bytes) {
            Ok(()) => Worth::Good,
            Err(_unspecified) => Worth::Bad,
        }
    }
}

/// 16 hexadecimal digits of the public key's hash.
fn id(public: &[u8]) -> String {
    hex::encode(&sha256(public)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    #[test]
    fn the_first_key_signs_and_the_others_check() {
        let (old, both) = (Signer::parse(ONE).unwrap(), Signer::parse(&format!("{TWO}\n\n {ONE}\n")).unwrap());
        let by_old = old.sign(&[7; 32]);
        let by_new = both.sign(&[7; 32]);
        assert_ne!(by_old.key_id, by_new.key_id);
        assert_eq!((both.judge(&[7; 32], &by_old), both.judge(&[7; 32], &by_new)), (Worth::Good, Worth::Good));
        assert_eq!((old.judge(&[7; 32], &by_new), both.judge(&[8; 32], &by_new)), (Worth::Stranger, Worth::Bad));
        let public = old.public_key(&by_old.key_id).unwrap();
        let checks = Signer::parse(&format!("public:{public}")).unwrap();
        assert_eq!((checks.key_id(), checks.judge(&[7; 32], &by_old)), (None, Worth::Good));
    }

    #[test]
    fn without_a_key_nothing_is_signed_and_a_bad_key_is_named() {
        let none = Signer::parse("\n").unwrap();
        assert_eq!(none.judge(&[7; 32], &none.sign(&[7; 32])), Worth::Unsigned);
        let error = Signer::parse(&format!("{ONE}\npublic:AAAA")).unwrap_err();
        assert!(error.starts_with("line 2:"), "{error}");
        assert!(Signer::parse("not base64").is_err());
    }
}
