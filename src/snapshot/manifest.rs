//! Signing and checking manifests: only what a control plane signed is ever served.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use prost::Message;

use crate::proto::config::v1::Manifest;

/// Why a manifest is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest {scope}: signed with key {key_id:?}, which this node was not told about at enrolment or renewal")]
    UnknownKey { scope: String, key_id: String },
    #[error("manifest {scope}: the signature of key {key_id:?} does not fit the content")]
    Forged { scope: String, key_id: String },
}

/// Signs in place: Ed25519 over the message encoded with an empty signature (protobuf encodes our messages, which have no maps, canonically).
pub fn sign_manifest(manifest: &mut Manifest, key_id: &str, key: &Ed25519KeyPair) {
    manifest.key_id = key_id.to_owned();
    manifest.signature = bytes::Bytes::new();
    manifest.signature = key.sign(&manifest.encode_to_vec()).as_ref().to_vec().into();
}

/// Checks the signature against public keys (32 bytes each) by key id.
pub fn verify_manifest(manifest: &Manifest, keys: &BTreeMap<String, Vec<u8>>) -> Result<(), ManifestError> {
    let (scope, key_id) = (manifest.scope.clone(), manifest.key_id.clone());
    let Some(key) = keys.get(&key_id) else {
        return Err(ManifestError::UnknownKey { scope, key_id });
    };
    let unsigned = Manifest { signature: bytes::Bytes::new(), ..manifest.clone() };
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&unsigned.encode_to_vec(), &manifest.signature)
        .or(Err(ManifestError::Forged { scope, key_id })) // aws-lc says nothing more than "unspecified"
}
