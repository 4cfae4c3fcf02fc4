//! The last good snapshots on disk, as received: what a node serves when it starts and no control plane answers.
//! Owns the files, their order and their checks. Never puts anything in force: [`super::restore`] and the stream do.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use mcp_gateway::proto::config::v1::{Manifest, UpstreamCredential};
use mcp_gateway::snapshot::{
    Digest, Fallback, Fallbacks, ManifestError, Problem, Snapshot, Staged, Version, restore, verify_manifest,
};
use mcp_gateway::type_url;
use prost::Message;

use super::machine::is_older;
use super::vault::{Broken, Vault};
use crate::node::{BUILD, Identity};

/// The directory in the state directory.
const DIR: &str = "snapshots";
const PREFIX: &str = "snapshot-";
/// How many are kept; and how many that were refused, for whoever wants to know why.
const KEPT: usize = 3;
/// What a refused file's name ends in.
const CORRUPT: &str = "corrupt";

/// Snapshots of this node, newest first.
pub struct LastGood {
    dir: PathBuf,
    vault: Arc<Vault>,
}

/// A manifest and the resources that it covers, as received, and what is served in the place of some of them.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub manifest: Manifest,
    pub staged: Arc<Staged>,
    pub fallbacks: Fallbacks,
}

/// What was found on disk, checked like something that came over a stream.
pub(super) struct Found {
    pub received: Received,
    pub snapshot: Arc<Snapshot>,
    /// As far as the file tells, when a control plane last said that this is the configuration.
    pub confirmed: SystemTime,
}

/// What is sealed in a file. No other program reads it, so it is not part of the contract; fields are only ever added.
#[derive(Clone, PartialEq, Message)]
struct Content {
    /// An encoded Manifest, signature and all.
    #[prost(bytes = "bytes", tag = "1")]
    manifest: Bytes,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    /// Organisations in quarantine. No manifest covers what they are served from; only this node can have written it here.
    #[prost(message, repeated, tag = "3")]
    fallbacks: Vec<Kept>,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(string, tag = "1")]
    org_id: String,
    /// Its bundles as they were when they were good; none: it is denied.
    #[prost(message, repeated, tag = "2")]
    bundles: Vec<Resource>,
    /// What its servers name and the manifest's secrets do not hold any more.
    #[prost(message, repeated, tag = "3")]
    credentials: Vec<UpstreamCredential>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    /// As received; secrets in it are sealed to the pool.
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

/// Why a file is passed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("its content cannot be understood: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("it is of pool {found:?}, and this node is of pool {expected:?}")]
    Scope { expected: String, found: String },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("it needs a node of version {needed} or newer, and this is {BUILD}")]
    NewerNode { needed: String },
    #[error("its resources are not those of its manifest")]
    Digest,
    #[error("it does not compile: {}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
    Compile(Vec<Problem>),
    #[error("its compilation broke off")]
    BrokeOff,
}

impl Refused {
    /// Whether the file can never be of use to this node again.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Io(_) | Self::NewerNode { .. } => false,
            Self::Broken(_) | Self::Undecodable(_) | Self::Scope { .. } | Self::Manifest(_) => true,
            Self::Digest | Self::Compile(_) | Self::BrokeOff => true,
        }
    }
}

impl LastGood {
    pub(super) fn new(state_dir: &Path, vault: Arc<Vault>) -> Self {
        Self { dir: state_dir.join(DIR), vault }
    }

    /// Keeps what is in force; returns when it is on disk. The three newest stay.
    pub(super) fn save(&self, received: &Received) -> io::Result<()> {
        let name = name(&received.manifest);
        let resource = |type_url: &str, name: String| {
            let body = received.staged.body(type_url, &name)?.clone();
            Some(Resource { type_url: type_url.to_owned(), name, body })
        };
        let of_type = |type_url| {
            let names = received.staged.versions(type_url).into_keys();
            names.filter_map(move |name| resource(type_url, name))
        };
        let content = Content {
            manifest: received.manifest.encode_to_vec().into(),
            resources: type_url::COVERED.into_iter().flat_map(of_type).collect(),
            fallbacks: received.fallbacks.iter().map(|(org, fallback)| Kept::of(org, fallback)).collect(),
        };
        let encode = |file: &mut Vec<u8>| content.encode(file).expect("a Vec grows as needed");
        self.vault.write(&self.dir.join(&name), encode)?;
        self.prune(&name);
        Ok(())
    }

    /// The newest that can be used. What cannot is told, set aside, and the one before is tried.
    pub(super) fn load(&self, identity: &Identity) -> Option<Found> {
        let mut names = self.names(|name| parse(name).map(|version| (version, name.to_owned())));
        names.sort_unstable_by_key(|(version, _)| Reverse(*version));
        names.into_iter().find_map(|(_, name)| {
            let path = self.dir.join(&name);
            let refused = match self.read(&path, identity) {
                Ok(found) => return Some(found),
                Err(refused) => refused,
            };
            tracing::error!(path = %path.display(), "the snapshot {name} on disk is not used: {refused}");
            if refused.is_lasting()
                && let Err(error) = fs::rename(&path, self.dir.join(format!("{name}.{CORRUPT}")))
            {
                tracing::error!(path = %path.display(), "the snapshot {name} cannot be set aside: {error}");
            }
            None
        })
    }

    /// Notes on the file that a control plane says that it is still the configuration.
    pub(super) fn confirm(&self, manifest: &Manifest) -> io::Result<()> {
        File::options().write(true).open(self.dir.join(name(manifest)))?.set_modified(SystemTime::now())
    }

    pub(super) fn read(&self, path: &Path, identity: &Identity) -> Result<Found, Refused> {
        let file = fs::read(path)?;
        let confirmed = fs::metadata(path)?.modified()?;
        let content = Content::decode(self.vault.open_file(path, file)?)?;
        let manifest = Manifest::decode(content.manifest)?;
        if manifest.scope != identity.pool {
            return Err(Refused::Scope { expected: identity.pool.clone(), found: manifest.scope });
        }
        verify_manifest(&manifest, &identity.manifest_keys)?;
        if is_older(BUILD, &manifest.min_node_version) {
            return Err(Refused::NewerNode { needed: manifest.min_node_version });
        }
        let mut staged = Staged::new();
        for Resource { type_url, name, body } in content.resources {
            staged.put(&type_url, &name, body).map_err(|problem| Refused::Compile(vec![problem]))?;
        }
        if Digest::from_bytes(&manifest.digest) != Some(staged.digest()) {
            return Err(Refused::Digest);
        }
        let fallbacks: Fallbacks = content.fallbacks.into_iter().map(Kept::fallback).collect();
        // A panic is a defect of ours, and must not keep a node from starting.
        let compiled = catch_unwind(AssertUnwindSafe(|| restore(&manifest, &staged, &identity.pool_keys, &fallbacks)));
        let snapshot = compiled.or(Err(Refused::BrokeOff))?.map_err(Refused::Compile)?;
        let received = Received { manifest, staged: Arc::new(staged), fallbacks };
        Ok(Found { received, snapshot: Arc::new(snapshot), confirmed })
    }

    /// Deletes all but the newest. What counts as newer than the one in force is of an earlier life of this node, before it joined
    /// again: versions only grow.
    fn prune(&self, written: &str) {
        let in_force = parse(written);
        let mut names = self.names(|name| name.starts_with(PREFIX).then(|| (parse(name), name.to_owned())));
        names.sort_unstable_by(|one, other| other.cmp(one));
        let (mut kept, mut refused) = (0, 0);
        for (version, name) in names {
            let keep = if name == written || (version.is_some() && version < in_force) {
                kept += 1;
                kept <= KEPT
            } else if name.ends_with(CORRUPT) {
                refused += 1;
                refused <= KEPT
            } else {
                false
            };
            if !keep && let Err(error) = fs::remove_file(self.dir.join(&name)) {
                tracing::warn!("{name} in {} is not needed and cannot be deleted: {error}", self.dir.display());
            }
        }
    }

    /// What `pick` says of the names in the directory; nothing if it cannot be read.
    fn names<T>(&self, pick: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::error!("the snapshots in {} cannot be listed: {error}", self.dir.display());
                return Vec::new();
            }
        };
        entries.flatten().filter_map(|entry| pick(entry.file_name().to_str()?)).collect()
    }
}

impl Kept {
    fn of(org: &str, fallback: &Fallback) -> Self {
        let resource = |(name, body): (&String, &Bytes)| Resource {
            type_url: type_url::ORG_BUNDLE.to_owned(),
            name: name.clone(),
            body: body.clone(),
        };
        Self {
            org_id: org.to_owned(),
            bundles: fallback.bundles.iter().map(resource).collect(),
            credentials: fallback.credentials.clone(),
        }
    }

    fn fallback(self) -> (String, Fallback) {
        let bundles = self.bundles.into_iter().map(|resource| (resource.name, resource.body)).collect();
        (self.org_id, Fallback { bundles, credentials: self.credentials })
    }
}

/// `snapshot-<epoch>-<version>-<digest>`.
fn name(manifest: &Manifest) -> String {
    format!("{PREFIX}{}-{}-{}", manifest.epoch, manifest.version, hex::encode(&manifest.digest))
}

/// The version in a name of this form; `None` for every other.
fn parse(name: &str) -> Option<Version> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let (epoch, version, digest) = (parts.next()?, parts.next()?, parts.next()?);
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(Version { epoch: epoch.parse().ok()?, version: version.parse().ok()? })
}

#[cfg(test)]
mod tests;
