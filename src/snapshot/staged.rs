//! Resources as received, before a manifest says that they belong together.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ContentHash, Digest, Problem, digest};
use crate::type_url;

/// The covered resources of one scope, by type and name. Holding a resource here says nothing about its validity.
#[derive(Clone, Default)]
pub struct Staged {
    by_type: BTreeMap<&'static str, BTreeMap<String, Held>>,
}

/// A resource, encoded.
#[derive(Clone)]
pub(crate) struct Held {
    pub hash: ContentHash,
    pub body: Bytes,
}

/// Says how many; contents may be secret.
impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({} resources)", self.len())
    }
}

impl Staged {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a resource. [`Problem::UnknownType`] unless the manifest's digest covers the type.
    pub fn put(&mut self, type_url: &str, name: &str, body: Bytes) -> Result<ContentHash, Problem> {
        let Some(covered) = covered(type_url) else {
            return Err(Problem::UnknownType { resource: name.to_owned(), type_url: type_url.to_owned() });
        };
        let hash = ContentHash::of(&body);
        self.by_type.entry(covered).or_default().insert(name.to_owned(), Held { hash, body });
        Ok(hash)
    }

    /// Forgets a resource; whether it was held.
    pub fn remove(&mut self, type_url: &str, name: &str) -> bool {
        self.by_type.get_mut(type_url).is_some_and(|held| held.remove(name).is_some())
    }

    /// Forgets every resource of a type.
    pub fn clear(&mut self, type_url: &str) {
        self.by_type.remove(type_url);
    }

    /// Name to version (lower-case hex of the content hash), as `initial_resource_versions` wants it.
    #[must_use]
    pub fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        self.of_type(type_url).map(|(name, held)| (name.to_owned(), held.hash.to_string())).collect()
    }

    /// The hash of a held resource.
    #[must_use]
    pub fn hash(&self, type_url: &str, name: &str) -> Option<ContentHash> {
        self.by_type.get(type_url)?.get(name).map(|held| held.hash)
    }

    /// The body of a held resource.
    #[must_use]
    pub fn body(&self, type_url: &str, name: &str) -> Option<&Bytes> {
        self.by_type.get(type_url)?.get(name).map(|held| &held.body)
    }

    /// The digest over everything held; what a manifest is compared with.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(self.iter().map(|(type_url, name, held)| (type_url, name, held.hash)))
    }

    /// How many resources are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_type.values().map(BTreeMap::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str, &Held)> {
        self.by_type.iter().flat_map(|(type_url, held)| held.iter().map(|(name, held)| (*type_url, name.as_str(), held)))
    }

    pub(crate) fn of_type(&self, type_url: &str) -> impl Iterator<Item = (&str, &Held)> {
        self.by_type.get(type_url).into_iter().flatten().map(|(name, held)| (name.as_str(), held))
    }
}

fn covered(type_url: &str) -> Option<&'static str> {
    type_url::COVERED.into_iter().find(|covered| *covered == type_url)
}
