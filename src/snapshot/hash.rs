//! Content hashes, the digest over a scope, and version order.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 of a resource's encoded bytes; its lower-case hex is the resource's xDS version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

/// SHA-256 over a set of resources; see [`digest`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest([u8; 32]);

/// A configuration version. Ordered by epoch, then version: commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Grows when the store was restored from a backup.
    pub epoch: u64,
    /// Grows with every committed change.
    pub version: u64,
}

impl ContentHash {
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(sha256(&[body]))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Digest {
    /// `None` unless `bytes` are 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The digest of a scope: SHA-256 over, for each resource in the order of (type URL, name), `type_url 0x00 name 0x00 content_hash`.
/// The order of the input does not matter.
pub fn digest<'a>(resources: impl IntoIterator<Item = (&'a str, &'a str, ContentHash)>) -> Digest {
    let mut resources: Vec<_> = resources.into_iter().collect();
    resources.sort_unstable();
    let mut context = Context::new(&SHA256);
    for (type_url, name, hash) in resources {
        context.update(type_url.as_bytes());
        context.update(&[0]);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(&hash.0);
    }
    Digest(to_array(context.finish().as_ref()))
}

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    to_array(context.finish().as_ref())
}

fn to_array(hash: &[u8]) -> [u8; 32] {
    hash.try_into().expect("SHA-256 has 32 bytes")
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.version)
    }
}
