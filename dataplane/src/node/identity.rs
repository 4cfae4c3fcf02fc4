//! What a node is and keeps: one file in the state directory, readable by its owner alone, replaced as a whole.
//! Owns reading, writing and checking it. Never talks to anyone: [`super::enrol`] and [`super::renew`] obtain what is in it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use mcp_gateway::proto::node::v1::{NodeCredentials, SealedPoolKey};
use mcp_gateway::seal::{self, NodeKeyPair, PoolKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem;
use zeroize::{Zeroize, Zeroizing};

/// The file's name in the state directory.
const FILE: &str = "identity.json";

/// A node's identity and the keys that come with it.
pub struct Identity {
    pub node_id: String,
    pub pool: String,
    /// Leaf first.
    pub certificate_pem: String,
    /// Authorities of the control plane.
    pub ca_pem: String,
    /// Public keys that manifests may be signed with, by id.
    pub manifest_keys: BTreeMap<String, Vec<u8>>,
    /// Keys that open the pool's secrets, by id.
    pub pool_keys: BTreeMap<String, PoolKey>,
    /// When the certificate starts to hold, seconds since the Unix epoch.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
    private_key_pem: SecretString,
    hpke: NodeKeyPair,
    sealed_pool_keys: Vec<SealedPoolKey>,
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{}: {reason}; remove the file and start the node with a new join token (`mcpgw node join-token create`)",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("the control plane's credentials cannot be used: {0}")]
    Credentials(String),
    #[error("making a key: {0}")]
    Key(String),
}

/// Key pairs that were made for a request, before the answer makes them an identity.
pub(super) struct Keys {
    key: KeyPair,
    hpke: NodeKeyPair,
}

impl Keys {
    /// A P-256 key for the certificate and an X25519 key for sealed secrets.
    pub(super) fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(|error| IdentityError::Key(error.to_string()))?;
        let hpke = NodeKeyPair::generate().map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(Self { key, hpke })
    }

    /// A PKCS#10 request, DER. The control plane ignores its subject, so there is none.
    pub(super) fn certificate_request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key).map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(request.der().to_vec())
    }

    pub(super) fn hpke_public(&self) -> &[u8] {
        &self.hpke.public
    }

    /// Checks that what the control plane answered fits these keys.
    pub(super) fn into_identity(
        self,
        node_id: &str,
        pool: &str,
        credentials: NodeCredentials,
    ) -> Result<Identity, IdentityError> {
        Identity::assemble(Parts {
            node_id: node_id.to_owned(),
            pool: pool.to_owned(),
            private_key_pem: self.key.serialize_pem().into(),
            hpke: self.hpke,
            certificate_pem: credentials.certificate_pem,
            ca_pem: credentials.ca_pem,
            manifest_keys: credentials.manifest_keys.into_iter().map(|key| (key.key_id, key.public_key.to_vec())).collect(),
            sealed_pool_keys: credentials.pool_keys,
        })
        .map_err(IdentityError::Credentials)
    }
}

struct Parts {
    node_id: String,
    pool: String,
    private_key_pem: SecretString,
    hpke: NodeKeyPair,
    certificate_pem: String,
    ca_pem: String,
    manifest_keys: BTreeMap<String, Vec<u8>>,
    sealed_pool_keys: Vec<SealedPoolKey>,
}

/// The file's shape. Bytes are base64.
#[derive(Serialize, Deserialize)]
struct Stored {
    node_id: String,
    pool: String,
    certificate_pem: String,
    ca_pem: String,
    private_key_pem: String,
    hpke_public_key: String,
    hpke_private_key: String,
    manifest_keys: BTreeMap<String, String>,
    pool_keys: Vec<StoredPoolKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredPoolKey {
    key_id: String,
    encapsulated: String,
    ciphertext: String,
}

impl Identity {
    /// What is on disk; `None` if this node never enrolled.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        let damaged = |reason: String| IdentityError::Damaged { path: path.clone(), reason };
        // serde_json's own message could repeat a secret.
        let stored: Stored =
            serde_json::from_str(&text).map_err(|error| damaged(format!("not an identity (line {})", error.line())))?;
        let parts = stored.parts().map_err(|()| damaged("a key is not base64".to_owned()))?;
        Self::assemble(parts).map(Some).map_err(damaged)
    }

    /// Replaces what is on disk, as a whole or not at all.
    pub fn save(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let path = state_dir.join(FILE);
        let text = Zeroizing::new(serde_json::to_string_pretty(&self.stored()).expect("an identity is plain text"));
        write_private(&path, text.as_bytes()).map_err(|source| IdentityError::Io { path, source })
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        now >= self.not_after
    }

    /// Its key pairs, for a request that they are already registered for.
    pub(super) fn keys(&self) -> Result<Keys, IdentityError> {
        let key = KeyPair::from_pem(self.private_key_pem()).map_err(|error| IdentityError::Key(error.to_string()))?;
        let hpke = NodeKeyPair::from_parts(self.hpke.public.clone(), self.hpke.private_bytes().to_vec());
        Ok(Keys { key, hpke })
    }

    /// PEM, PKCS#8.
    pub(crate) fn private_key_pem(&self) -> &str {
        self.private_key_pem.expose_secret()
    }

    fn assemble(parts: Parts) -> Result<Self, String> {
        let (not_before, not_after) = validity(&parts.certificate_pem)?;
        let mut pool_keys = BTreeMap::new();
        for sealed in &parts.sealed_pool_keys {
            let key =
                seal::open_pool_key(&parts.hpke, sealed).map_err(|error| format!("pool key {:?}: {error}", sealed.key_id))?;
            pool_keys.insert(sealed.key_id.clone(), key);
        }
        let key = KeyPair::from_pem(parts.private_key_pem.expose_secret()).ok().ok_or("the private key cannot be read")?;
        if !certificate_holds(&parts.certificate_pem, &key)? {
            return Err("the certificate is not for this node's key".to_owned());
        }
        let Parts { node_id, pool, private_key_pem, hpke, certificate_pem, ca_pem, manifest_keys, sealed_pool_keys } = parts;
        Ok(Self {
            node_id,
            pool,
            certificate_pem,
            ca_pem,
            manifest_keys,
            pool_keys,
            not_before,
            not_after,
            private_key_pem,
            hpke,
            sealed_pool_keys,
        })
    }

    fn stored(&self) -> Stored {
        let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let pool_key = |sealed: &SealedPoolKey| StoredPoolKey {
            key_id: sealed.key_id.clone(),
            encapsulated: text(&sealed.encapsulated),
            ciphertext: text(&sealed.ciphertext),
        };
        Stored {
            node_id: self.node_id.clone(),
            pool: self.pool.clone(),
            certificate_pem: self.certificate_pem.clone(),
            ca_pem: self.ca_pem.clone(),
            private_key_pem: self.private_key_pem().to_owned(),
            hpke_public_key: text(&self.hpke.public),
            hpke_private_key: text(self.hpke.private_bytes()),
            manifest_keys: self.manifest_keys.iter().map(|(id, key)| (id.clone(), text(key))).collect(),
            pool_keys: self.sealed_pool_keys.iter().map(pool_key).collect(),
        }
    }
}

impl Stored {
    fn parts(&self) -> Result<Parts, ()> {
        let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(drop);
        let sealed = |stored: &StoredPoolKey| {
            let (encapsulated, ciphertext) = (bytes(&stored.encapsulated)?.into(), bytes(&stored.ciphertext)?.into());
            Ok(SealedPoolKey { key_id: stored.key_id.clone(), encapsulated, ciphertext })
        };
        Ok(Parts {
            node_id: self.node_id.clone(),
            pool: self.pool.clone(),
            private_key_pem: self.private_key_pem.clone().into(),
            hpke: NodeKeyPair::from_parts(bytes(&self.hpke_public_key)?, bytes(&self.hpke_private_key)?),
            certificate_pem: self.certificate_pem.clone(),
            ca_pem: self.ca_pem.clone(),
            manifest_keys: self.manifest_keys.iter().map(|(id, key)| Ok((id.clone(), bytes(key)?))).collect::<Result<_, ()>>()?,
            sealed_pool_keys: self.pool_keys.iter().map(sealed).collect::<Result<_, ()>>()?,
        })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.private_key_pem.zeroize();
        self.hpke_private_key.zeroize();
    }
}

/// From and until when the leaf holds, seconds since the Unix epoch.
fn validity(certificate_pem: &str) -> Result<(i64, i64), String> {
    with_leaf(certificate_pem, |leaf| {
        let validity = leaf.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    })
}

fn certificate_holds(certificate_pem: &str, key: &KeyPair) -> Result<bool, String> {
    with_leaf(certificate_pem, |leaf| leaf.public_key().subject_public_key.data == key.public_key_raw())
}

fn with_leaf<T>(
    certificate_pem: &str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, String> {
    let first = Pem::iter_from_buffer(certificate_pem.as_bytes()).next();
    let leaf = first.and_then(Result::ok).ok_or("the certificate is not PEM")?;
    let leaf = leaf.parse_x509().map_err(|error| format!("the certificate cannot be read: {error}"))?;
    Ok(read(&leaf))
}

/// Writes beside, then renames: a crash leaves the old file or the new one. Mode 0600 in a directory of mode 0700.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}
