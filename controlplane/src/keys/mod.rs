//! Custody of every secret key: in Postgres, wrapped by the master key, which never is. Created when first needed.
//!
//! Owns loading, creating, sealing with and signing with them; never prints one. Called by `api`, `publish`, `nodes`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use mcp_gateway::{seal::PoolKey, snapshot::Version};
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use zeroize::Zeroizing;

use crate::{
    domain::ids,
    store::{self, Store},
};

mod node_ca;
mod rotate;
pub mod token;
pub mod wrap;

pub use node_ca::NodeCa;
pub use rotate::{Rotation, stored_purpose, written_purpose};

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the keys are not loaded yet: the database has not been reached since the start")]
    NotLoaded,
    #[error("key {id}: cannot be unwrapped: the master key is not the one that wrapped it")]
    WrongMasterKey { id: String },
    #[error("key {id}: {reason}")]
    Malformed { id: String, reason: String },
    #[error("no key of this installation sealed this")]
    Unreadable,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// 32 secret bytes.
#[derive(Clone)]
pub struct Key32(Zeroizing<[u8; 32]>);

impl Key32 {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// An Ed25519 key pair.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// 32 bytes (RFC 8032).
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

/// What a key may be used for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Published so that everybody knows it before it is used.
    Next,
    /// Signs and seals.
    Current,
    /// Only checks and opens what it made.
    Retiring,
}

/// A key with its id.
pub struct Key<T> {
    pub id: String,
    pub state: State,
    pub material: T,
}

/// The keys of one purpose: exactly one is current.
pub struct Ring<T>(Vec<Key<T>>);

impl<T> Ring<T> {
    /// The one that signs and seals.
    pub fn current(&self) -> &Key<T> {
        self.0.iter().find(|key| key.state == State::Current).expect("a ring is only built around a current key")
    }

    pub fn get(&self, id: &str) -> Option<&Key<T>> {
        self.0.iter().find(|key| key.id == id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Key<T>> {
        self.0.iter()
    }
}

/// Every key at one moment.
pub struct Keys {
    /// The configuration version of that moment: newer keys replace older ones, never the other way round.
    pub as_of: Version,
    /// Ids and states of all of them.
    marks: Vec<(String, String)>,
    /// Sign access tokens.
    pub jwt: Ring<SigningKey>,
    /// Sign manifests.
    pub manifest: Ring<SigningKey>,
    /// Issues the certificates of nodes and of the node listener.
    pub node_ca: Ring<NodeCa>,
    /// Seal the session tokens that nodes hand out.
    pub session: Ring<Key32>,
    /// Seal what this database keeps for later.
    pub credential: Ring<Key32>,
    /// Seal the secrets of a pool, by pool.
    pub pools: BTreeMap<String, Ring<PoolKey>>,
}

impl Keys {
    /// As [`Custody::seal`].
    pub fn seal(&self, context: &[&str], plain: &[u8]) -> Vec<u8> {
        let key = self.credential.current();
        let sealed = wrap::seal(key.material.as_bytes(), context, plain);
        let id_len = u8::try_from(key.id.len()).expect("ids of keys are made here and short");
        [&[id_len], key.id.as_bytes(), &sealed].concat()
    }

    /// As [`Custody::open`].
    pub fn open(&self, context: &[&str], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (id_len, rest) = sealed.split_first().ok_or(Error::Unreadable)?;
        let (id, body) = rest.split_at_checked(usize::from(*id_len)).ok_or(Error::Unreadable)?;
        let id = std::str::from_utf8(id).ok().ok_or(Error::Unreadable)?;
        let key = self.credential.get(id).ok_or(Error::Unreadable)?;
        wrap::open(key.material.as_bytes(), context, body).map_err(|wrap::Unreadable| Error::Unreadable)
    }
}

/// How often the keys are read again.
const LOOK: Duration = Duration::from_secs(30);
const JWT: &str = "jwt";
const MANIFEST: &str = "manifest";
const NODE_CA: &str = "node_ca";
const SESSION: &str = "session";
const CREDENTIAL: &str = "credential";
const POOL: &str = "pool/";
/// What every installation needs from the start.
const NEEDED: [&str; 6] = [JWT, MANIFEST, NODE_CA, SESSION, CREDENTIAL, "pool/default"];

/// The pool that organisations and nodes are in unless they say otherwise.
pub const DEFAULT_POOL: &str = "default";

/// The keys, shared. Cheap to clone.
#[derive(Clone)]
pub struct Custody {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    master: Key32,
    trust_domain: String,
    keys: watch::Sender<Option<Arc<Keys>>>,
}

impl fmt::Debug for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custody(***)")
    }
}

impl Custody {
    /// Holds nothing until [`Custody::load`].
    pub fn new(store: Store, master_key: [u8; 32], trust_domain: &str) -> Self {
        let master = Key32(Zeroizing::new(master_key));
        Self { inner: Arc::new(Inner { store, master, trust_domain: trust_domain.into(), keys: watch::Sender::new(None) }) }
    }

    /// Reads every key, creating what a purpose lacks. Also how a replica learns of keys that another made.
    pub async fn load(&self) -> Result<Arc<Keys>, Error> {
        self.load_with(&NEEDED).await
    }

    /// Reads the keys now and then: another replica may have made or moved some.
    pub async fn follow(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            if let Err(cause) = self.load().await {
                warn!(cause = %crate::open::chain(&cause), "the keys could not be read again; those last read stay in use");
            }
        }
    }

    /// The keys as last loaded.
    pub fn keys(&self) -> Result<Arc<Keys>, Error> {
        self.inner.keys.borrow().clone().ok_or(Error::NotLoaded)
    }

    /// The keys as last loaded, and their changes.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Keys>>> {
        self.inner.keys.subscribe()
    }

    /// The keys in a view of one moment, at which the configuration had the version `as_of`: what is published of that version
    /// holds these keys, on every replica. Creates nothing.
    pub async fn read(&self, moment: &mut PgConnection, as_of: Version) -> Result<Arc<Keys>, Error> {
        let rows = store::keys::all(moment).await?;
        let held = self.inner.keys.borrow().clone();
        if let Some(held) = held.filter(|held| held.marks == marks(&rows)) {
            return Ok(held);
        }
        let keys = Arc::new(self.unwrap_all(&rows, as_of)?);
        self.adopt(&keys);
        Ok(keys)
    }

    /// The keys, with those of `pool` among them: created if this is their first need.
    pub async fn with_pool(&self, pool: &str) -> Result<Arc<Keys>, Error> {
        let keys = self.keys()?;
        if keys.pools.contains_key(pool) {
            return Ok(keys);
        }
        self.load_with(&[&format!("{POOL}{pool}")]).await
    }

    /// Seals a value for `context`; [`Custody::open`] with the same context gives it back.
    pub fn seal(&self, context: &[&str], plain: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.keys()?.seal(context, plain))
    }

    /// Opens what [`Custody::seal`] made.
    pub fn open(&self, context: &[&str], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.keys()?.open(context, sealed)
    }

    /// A code over `message` that only this installation can make.
    pub fn mac(&self, purpose: &str, message: &[u8]) -> Result<hmac::Tag, Error> {
        Ok(hmac::sign(&mac_key(self.keys()?.credential.current(), purpose), message))
    }

    /// Whether `code` is, or begins with at least 16 bytes of, one that [`Custody::mac`] made. Constant time.
    pub fn mac_holds(&self, purpose: &str, message: &[u8], code: &[u8]) -> Result<bool, Error> {
        use subtle::ConstantTimeEq;
        let fits = |key: &Key<Key32>| {
            let made = hmac::sign(&mac_key(key, purpose), message);
            made.as_ref().get(..code.len()).is_some_and(|made| made.ct_eq(code).into())
        };
        Ok(code.len() >= 16 && self.keys()?.credential.iter().any(fits))
    }

    async fn load_with(&self, needed: &[&str]) -> Result<Arc<Keys>, Error> {
        let mut tx = self.inner.store.lock_keys().await?;
        // Under the lock no rotation can commit between these two readings.
        let as_of = store::publish::head(&mut tx).await?.version;
        let mut rows = store::keys::all(&mut tx).await?;
        let known: Vec<String> = rows.iter().map(|row| row.purpose.clone()).collect();
        let purposes: BTreeSet<&str> = known.iter().map(String::as_str).chain(needed.iter().copied()).collect();
        for purpose in purposes {
            for state in ["current", "next"] {
                if !rows.iter().any(|row| row.purpose == purpose && row.state == state) {
                    let row = self.create(purpose, state)?;
                    store::keys::insert(&mut tx, &row).await?;
                    rows.push(row);
                }
            }
        }
        tx.commit().await.map_err(store::Error::from)?;
        let keys = Arc::new(self.unwrap_all(&rows, as_of)?);
        self.adopt(&keys);
        Ok(keys)
    }

    fn adopt(&self, keys: &Arc<Keys>) {
        self.inner.keys.send_if_modified(|held| {
            let newer = held.as_ref().is_none_or(|held| keys.as_of >= held.as_of);
            if newer {
                *held = Some(Arc::clone(keys));
            }
            newer
        });
    }

    fn create(&self, purpose: &str, state: &str) -> Result<store::keys::Row, Error> {
        let id = format!("{}-{}", purpose.replace(['/', '_'], "-"), ids::public_id());
        let (secret, public) = if purpose == NODE_CA {
            NodeCa::generate(&id, &self.inner.trust_domain)?
        } else {
            let secret = ids::random::<32>();
            let public = match purpose {
                JWT | MANIFEST => signing(&id, &secret)?.public().to_vec(),
                _ => Vec::new(),
            };
            (Zeroizing::new(secret.to_vec()), public)
        };
        let wrapped = wrap::seal(self.inner.master.as_bytes(), &[&id, purpose], &secret);
        let created_at = chrono::Utc::now();
        Ok(store::keys::Row { id, purpose: purpose.into(), state: state.into(), wrapped, public, created_at, retired_at: None })
    }

    fn unwrap_all(&self, rows: &[store::keys::Row], as_of: Version) -> Result<Keys, Error> {
        let pools = rows.iter().filter_map(|row| row.purpose.strip_prefix(POOL));
        let pools: BTreeSet<&str> = pools.collect();
        Ok(Keys {
            as_of,
            marks: marks(rows),
            jwt: self.ring(rows, JWT, |row, secret| signing(&row.id, &bytes32(row, secret)?))?,
            manifest: self.ring(rows, MANIFEST, |row, secret| signing(&row.id, &bytes32(row, secret)?))?,
            node_ca: self.ring(rows, NODE_CA, |row, secret| NodeCa::from_stored(&row.id, secret, &row.public))?,
            session: self.ring(rows, SESSION, |row, secret| Ok(Key32(bytes32(row, secret)?)))?,
            credential: self.ring(rows, CREDENTIAL, |row, secret| Ok(Key32(bytes32(row, secret)?)))?,
            pools: pools.into_iter().map(|pool| Ok((pool.into(), self.pool_ring(rows, pool)?))).collect::<Result<_, Error>>()?,
        })
    }

    fn pool_ring(&self, rows: &[store::keys::Row], pool: &str) -> Result<Ring<PoolKey>, Error> {
        self.ring(rows, &format!("{POOL}{pool}"), |row, secret| {
            PoolKey::from_bytes(secret).map_err(|error| malformed(&row.id, error.to_string()))
        })
    }

    fn ring<T>(
        &self,
        rows: &[store::keys::Row],
        purpose: &str,
        material: impl Fn(&store::keys::Row, &[u8]) -> Result<T, Error>,
    ) -> Result<Ring<T>, Error> {
        let mut ring = Vec::new();
        for row in rows.iter().filter(|row| row.purpose == purpose) {
            let opened = wrap::open(self.inner.master.as_bytes(), &[&row.id, purpose], &row.wrapped);
            let secret = opened.map_err(|wrap::Unreadable| Error::WrongMasterKey { id: row.id.clone() })?;
            let state = match row.state.as_str() {
                "next" => State::Next,
                "current" => State::Current,
                "retiring" => State::Retiring,
                other => return Err(malformed(&row.id, format!("unknown state {other:?}"))),
            };
            ring.push(Key { id: row.id.clone(), state, material: material(row, &secret)? });
        }
        if ring.iter().any(|key| key.state == State::Current) {
            Ok(Ring(ring))
        } else {
            Err(malformed(purpose, "no current key"))
        }
    }
}

fn marks(rows: &[store::keys::Row]) -> Vec<(String, String)> {
    let mut marks: Vec<_> = rows.iter().map(|row| (row.id.clone(), row.state.clone())).collect();
    marks.sort();
    marks
}

fn mac_key(key: &Key<Key32>, purpose: &str) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, key.material.as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose.as_bytes()).as_ref())
}

fn signing(id: &str, seed: &Zeroizing<[u8; 32]>) -> Result<SigningKey, Error> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|e| malformed(id, e.to_string()))?;
    Ok(SigningKey { pair })
}

fn bytes32(row: &store::keys::Row, secret: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
    let found = secret.len();
    let bytes = secret.try_into().ok().ok_or_else(|| malformed(&row.id, format!("expected 32 bytes, found {found}")))?;
    Ok(Zeroizing::new(bytes))
}

fn malformed(id: &str, reason: impl Into<String>) -> Error {
    Error::Malformed { id: id.into(), reason: reason.into() }
}
