//! What one pool's nodes get, encoded once and shared by every stream: the covered resources with their manifest, and what travels beside.
//! Pure values; [`super::build`] makes them, [`crate::xds`] sends them. Nothing here depends on which replica encoded it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use mcp_gateway::{
    proto::config::v1::Manifest,
    snapshot::{ContentHash, Digest, Version},
    type_url,
};
use prost::Message;

/// One encoded resource. Two with the same hash are the same.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub hash: ContentHash,
    /// The lower-case hex content hash: the resource's xDS version.
    pub version: Arc<str>,
    /// The encoded message.
    pub body: Bytes,
}

impl Encoded {
    pub fn new(body: Vec<u8>) -> Self {
        let hash = ContentHash::of(&body);
        Self { hash, version: hash.to_string().into(), body: Bytes::from(body) }
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Encoded {}

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Encoded>;

/// A pool's configuration at one version. The manifest is one of the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The manifest's version: the last one that changed this pool's content.
    pub version: Version,
    /// Over the covered resources.
    pub digest: Digest,
    /// By type URL: the covered types and the manifest. A type that did not change since the version before is the same allocation.
    pub types: BTreeMap<&'static str, Arc<Resources>>,
}

impl Scope {
    /// The manifest, decoded.
    pub fn manifest(&self) -> Option<Manifest> {
        let encoded = self.types.get(type_url::MANIFEST)?.values().next()?;
        Manifest::decode(encoded.body.clone()).ok()
    }
}

/// What travels beside the manifest, by type URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    pub types: BTreeMap<&'static str, Arc<Resources>>,
}
