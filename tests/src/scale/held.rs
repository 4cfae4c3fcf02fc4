//! What a simulated node holds: names and hashes, never contents. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use mcp_gateway::proto::config::v1::Manifest;
use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use mcp_gateway::seal::PoolKey;
use mcp_gateway::snapshot::{ContentHash, Digest, Snapshot, Staged, Version, compile, digest, verify_manifest};
use mcp_gateway::type_url;
use prost::Message as _;

/// Names, each kept once for all nodes of the rig.
#[derive(Default)]
pub(super) struct Names(Mutex<HashSet<Arc<str>>>);

impl Names {
    fn of(&self, name: &str) -> Arc<str> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = name.into();
        names.insert(Arc::clone(&name));
        name
    }
}

/// Contents, for the one node that compiles what it gets as a real one would.
pub(super) struct Whole {
    pool_keys: BTreeMap<String, PoolKey>,
    staged: Staged,
    snapshot: Option<Snapshot>,
    /// Milliseconds of each compilation; the first one knew nothing before it.
    pub took: Vec<f64>,
}

impl Whole {
    pub(super) fn new(pool_keys: BTreeMap<String, PoolKey>) -> Self {
        Self { pool_keys, staged: Staged::new(), snapshot: None, took: Vec::new() }
    }

    fn take(&mut self, response: &DeltaDiscoveryResponse) -> anyhow::Result<()> {
        for resource in &response.resources {
            let body = resource.resource.clone().unwrap_or_default().value;
            self.staged.put(&response.type_url, &resource.name, body.into())?;
        }
        for name in &response.removed_resources {
            self.staged.remove(&response.type_url, name);
        }
        Ok(())
    }

    fn compile(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        let began = Instant::now();
        let made = tokio::task::block_in_place(|| compile(manifest, &self.staged, &self.pool_keys, self.snapshot.as_ref()));
        self.took.push(began.elapsed().as_secs_f64() * 1000.0);
        self.snapshot = Some(made.map_err(|problems| anyhow!("{problems:?}"))?);
        Ok(())
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    pub whole: Option<Whole>,
    covered: BTreeMap<&'static str, BTreeMap<Arc<str>, ContentHash>>,
    /// By type: name and version of what travels beside the manifest.
    pub beside: BTreeMap<String, BTreeMap<String, String>>,
    /// What the last manifest that fitted said.
    pub applied: Option<(Version, Digest)>,
}

impl Held {
    /// Takes what a response carries, as a node would: content by its hash, and a manifest only if it is signed and fits. Returns the
    /// commit time of a manifest that was not in force yet, in milliseconds since the Unix epoch.
    pub(super) fn take(
        &mut self,
        response: &DeltaDiscoveryResponse,
        names: &Names,
        manifest_keys: &BTreeMap<String, Vec<u8>>,
    ) -> anyhow::Result<Option<i64>> {
        let covered = type_url::COVERED.into_iter().find(|covered| *covered == response.type_url);
        let mut made_at = None;
        if let (Some(whole), Some(_)) = (&mut self.whole, covered) {
            whole.take(response)?;
        }
        for resource in &response.resources {
            let body = &resource.resource.as_ref().context("a resource without content")?.value;
            match covered {
                Some(covered) => {
                    let hash = ContentHash::of(body);
                    ensure!(hash.to_string() == resource.version, "{}: the version is not the content's hash", resource.name);
                    self.covered.entry(covered).or_default().insert(names.of(&resource.name), hash);
                }
                None if response.type_url == type_url::MANIFEST => {
                    made_at = self.manifest(&Manifest::decode(&body[..])?, manifest_keys)?;
                }
                None => {
                    let held = self.beside.entry(response.type_url.clone()).or_default();
                    held.insert(resource.name.clone(), resource.version.clone());
                }
            }
        }
        if let Some(held) = covered.and_then(|covered| self.covered.get_mut(covered)) {
            for name in &response.removed_resources {
                held.remove(name.as_str());
            }
        }
        Ok(made_at)
    }

    fn manifest(&mut self, manifest: &Manifest, keys: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Option<i64>> {
        verify_manifest(manifest, keys)?;
        let version = Version { epoch: manifest.epoch, version: manifest.version };
        let stated = Digest::from_bytes(&manifest.digest).context("a digest has 32 bytes")?;
        if self.applied == Some((version, stated)) {
            return Ok(None);
        }
        ensure!(self.applied.is_none_or(|(applied, _)| applied <= version), "version {version} is older than what is in force");
        ensure!(self.digest() == stated, "version {version}: what was received does not have the manifest's digest");
        self.applied = Some((version, stated));
        if let Some(whole) = &mut self.whole {
            whole.compile(manifest)?;
        }
        Ok(Some(manifest.created_at_ms))
    }

    fn digest(&self) -> Digest {
        digest(self.covered.iter().flat_map(|(type_url, held)| held.iter().map(|(name, hash)| (*type_url, &**name, *hash))))
    }

    /// How many covered resources.
    pub(super) fn len(&self) -> usize {
        self.covered.values().map(BTreeMap::len).sum()
    }

    /// As `initial_resource_versions` wants it.
    pub(super) fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        let covered = self.covered.get(type_url).into_iter().flatten().map(|(name, hash)| (name.to_string(), hash.to_string()));
        covered.chain(self.beside.get(type_url).cloned().unwrap_or_default()).collect()
    }
}
