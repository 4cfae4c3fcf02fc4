//! The smallest configurations that compile, signed, as a node receives them.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use mcp_gateway::proto::config::v1::{Global, Manifest, Secrets, SessionKey, UpstreamCredential};
use mcp_gateway::seal::seal_secrets;
use mcp_gateway::snapshot::{Fallbacks, Staged, sign_manifest};
use mcp_gateway::type_url;
use prost::Message;

use super::last_good::Received;
use crate::node::testing::{Ca, POOL};

pub(super) struct Publisher {
    pub ca: Ca,
    signer: Ed25519KeyPair,
}

impl Publisher {
    pub fn new() -> Self {
        let signer = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let mut ca = Ca::new();
        ca.manifest_keys.insert("m1".into(), signer.public_key().as_ref().to_vec());
        Self { ca, signer }
    }

    pub fn received(&self, version: u64) -> Received {
        self.changed(version, |_, _| {})
    }

    /// Secrets with these credentials.
    pub fn secrets(&self, credentials: Vec<UpstreamCredential>) -> Bytes {
        let session_key = SessionKey { key_id: "s1".into(), key: vec![1; 32].into(), current: true };
        let secrets = Secrets { session_keys: vec![session_key], credentials };
        seal_secrets("p1", &self.ca.pool_key, "secrets/default", &secrets).encode_to_vec().into()
    }

    /// `change` is made to the resources before the manifest is made of them, and to the manifest before it is signed.
    pub fn changed(&self, version: u64, change: impl Fn(&mut Staged, &mut Manifest)) -> Received {
        let global = Global { pool: POOL.into(), ..Global::default() };
        let mut staged = Staged::new();
        staged.put(type_url::GLOBAL, "global/default", global.encode_to_vec().into()).unwrap();
        staged.put(type_url::SECRET_ENVELOPE, "secrets/default", self.secrets(vec![])).unwrap();
        let mut manifest = Manifest { epoch: 1, version, scope: POOL.into(), ..Manifest::default() };
        change(&mut staged, &mut manifest);
        if manifest.digest.is_empty() {
            manifest.digest = staged.digest().as_bytes().to_vec().into();
        }
        sign_manifest(&mut manifest, "m1", &self.signer);
        Received { manifest, staged: Arc::new(staged), fallbacks: Fallbacks::new() }
    }
}
