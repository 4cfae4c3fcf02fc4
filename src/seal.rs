//! Sealing secrets to the nodes of a pool.
//!
//! A pool has a data key. Secrets are sealed under it deterministically, so that every replica of the control plane sends the same bytes;
//! the data key itself is sealed to each node's own key pair with HPKE (RFC 9180) at enrolment and renewal.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use prost::Message;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::proto::config::v1::{SecretEnvelope, Secrets};
use crate::proto::node::v1::SealedPoolKey;

const INFO: &[u8] = b"mcpgw pool key";

/// Why something could not be sealed or opened. Says nothing about the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the key has the wrong length; expected 32 bytes")]
    KeyLength,
    #[error("the node's public key is not an X25519 key")]
    PublicKey,
    #[error("the content cannot be opened with this key")]
    Unreadable,
    #[error("the system's random generator failed")]
    Random,
}

/// The 32-byte data key of a pool; wiped on drop, never printed.
#[derive(Clone)]
pub struct PoolKey(Zeroizing<[u8; 32]>);

/// A node's X25519 key pair for HPKE.
pub struct NodeKeyPair {
    /// 32 bytes, told to the control plane.
    pub public: Vec<u8>,
    private: Zeroizing<Vec<u8>>,
}

impl PoolKey {
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).or(Err(Error::Random))?; // the cause is always "unspecified"
        Ok(Self(bytes))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: [u8; 32] = bytes.try_into().or(Err(Error::KeyLength))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, self.0.as_ref()).expect("32 bytes fit AES-256"))
    }
}

impl NodeKeyPair {
    pub fn generate() -> Result<Self, Error> {
        let (public, private) = DH_KEM_X25519_HKDF_SHA256_AES_128.generate_key_pair().or(Err(Error::Random))?;
        Ok(Self { public: public.0, private: Zeroizing::new(private.secret_bytes().to_vec()) })
    }

    /// From what was stored.
    #[must_use]
    pub fn from_parts(public: Vec<u8>, private: Vec<u8>) -> Self {
        Self { public, private: Zeroizing::new(private) }
    }

    /// For storing, readable by the node alone.
    #[must_use]
    pub fn private_bytes(&self) -> &[u8] {
        &self.private
    }
}

/// Seals `secrets` so that the same plaintext gives the same bytes: the nonce is an HMAC of name and plaintext,
/// and AES-256-GCM-SIV (RFC 8452) stays safe even if nonces ever repeated.
#[must_use]
pub fn seal_secrets(key_id: &str, key: &PoolKey, resource_name: &str, secrets: &Secrets) -> SecretEnvelope {
    let mut sealed = secrets.encode_to_vec();
    let nonce = synthetic_nonce(key, resource_name, &sealed);
    key.cipher()
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(resource_name.as_bytes()), &mut sealed)
        .expect("secrets are far below the cipher's limit of 64 GiB");
    SecretEnvelope { pool_key_id: key_id.to_owned(), nonce: nonce.to_vec().into(), ciphertext: sealed.into() }
}

/// Opens what [`seal_secrets`] sealed under the same key and resource name.
pub fn open_secrets(key: &PoolKey, resource_name: &str, envelope: &SecretEnvelope) -> Result<Secrets, Error> {
    let nonce: [u8; NONCE_LEN] = envelope.nonce.as_ref().try_into().or(Err(Error::Unreadable))?;
    let mut sealed = Zeroizing::new(envelope.ciphertext.to_vec());
    let plain = key
        .cipher()
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(resource_name.as_bytes()), &mut sealed)
        .or(Err(Error::Unreadable))?;
    Secrets::decode(&*plain).or(Err(Error::Unreadable))
}

/// Seals a pool key to a node. Randomised: two calls give different bytes.
pub fn seal_pool_key(node_public: &[u8], key_id: &str, key: &PoolKey) -> Result<SealedPoolKey, Error> {
    if node_public.len() != 32 {
        return Err(Error::PublicKey);
    }
    let public = HpkePublicKey(node_public.to_vec());
    let (encapsulated, ciphertext) =
        DH_KEM_X25519_HKDF_SHA256_AES_128.seal(INFO, key_id.as_bytes(), key.as_bytes(), &public).or(Err(Error::PublicKey))?;
    Ok(SealedPoolKey { key_id: key_id.to_owned(), encapsulated: encapsulated.0.into(), ciphertext: ciphertext.into() })
}

/// Opens a pool key with the node's own key pair.
pub fn open_pool_key(node: &NodeKeyPair, sealed: &SealedPoolKey) -> Result<PoolKey, Error> {
    let secret = HpkePrivateKey::from(node.private.to_vec());
    let plain = DH_KEM_X25519_HKDF_SHA256_AES_128
        .open(&EncapsulatedSecret(sealed.encapsulated.to_vec()), INFO, sealed.key_id.as_bytes(), &sealed.ciphertext, &secret)
        .or(Err(Error::Unreadable))?;
    PoolKey::from_bytes(&Zeroizing::new(plain))
}

fn synthetic_nonce(key: &PoolKey, resource_name: &str, plaintext: &[u8]) -> [u8; NONCE_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    context.update(b"nonce\0");
    context.update(resource_name.as_bytes());
    context.update(&[0]);
    context.update(plaintext);
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&context.sign().as_ref()[..NONCE_LEN]);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config::v1::UpstreamCredential;

    fn secrets() -> Secrets {
        let credential = UpstreamCredential { id: "c1".into(), header: "authorization".into(), value: "Bearer x".into() };
        Secrets { session_keys: vec![], credentials: vec![credential] }
    }

    #[test]
    fn sealing_twice_gives_the_same_bytes_and_opens_again() {
        let key = PoolKey::generate().unwrap();
        let envelope = seal_secrets("k1", &key, "secrets/default", &secrets());
        assert_eq!(envelope, seal_secrets("k1", &key, "secrets/default", &secrets()));
        assert_eq!(open_secrets(&key, "secrets/default", &envelope), Ok(secrets()));
    }

    #[test]
    fn another_name_another_key_and_every_flipped_bit_are_refused() {
        let key = PoolKey::generate().unwrap();
        let envelope = seal_secrets("k1", &key, "secrets/default", &secrets());
        assert_eq!(open_secrets(&key, "secrets/other", &envelope), Err(Error::Unreadable));
        assert_eq!(open_secrets(&PoolKey::generate().unwrap(), "secrets/default", &envelope), Err(Error::Unreadable));
        for index in 0..envelope.ciphertext.len() {
            let mut flipped = envelope.ciphertext.to_vec();
            flipped[index] ^= 1;
            let forged = SecretEnvelope { ciphertext: flipped.into(), ..envelope.clone() };
            assert_eq!(open_secrets(&key, "secrets/default", &forged), Err(Error::Unreadable));
        }
    }

    #[test]
    fn a_pool_key_reaches_one_node_and_no_other() {
        let (node, other) = (NodeKeyPair::generate().unwrap(), NodeKeyPair::generate().unwrap());
        let key = PoolKey::generate().unwrap();
        let sealed = seal_pool_key(&node.public, "k1", &key).unwrap();
        assert_eq!(open_pool_key(&node, &sealed).unwrap().as_bytes(), key.as_bytes());
        assert!(matches!(open_pool_key(&other, &sealed), Err(Error::Unreadable)));
        let renamed = SealedPoolKey { key_id: "k2".into(), ..sealed };
        assert!(matches!(open_pool_key(&node, &renamed), Err(Error::Unreadable)));
        assert!(matches!(seal_pool_key(&[1, 2, 3], "k1", &key), Err(Error::PublicKey)));
    }
}
