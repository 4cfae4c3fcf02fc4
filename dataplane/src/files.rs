//! Configuration from files, for a node without a control plane: documents of organisations, compiled by the contract as everywhere, and
//! watched. A change that does not fit changes nothing: it is logged and counted, and what was good stays in force. Built by [`crate::app`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_gateway::document::{self, Document, Fault, Faults, Lone, Source};
use mcp_gateway::proto::admin::v1::OrganizationDocument;
use mcp_gateway::proto::config::v1::SessionKey;
use mcp_gateway::snapshot::{ContentHash, Snapshot, Version};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::audit::Spool;
use crate::config::{self, Config};
use crate::listener::tls::{Stamp, stamp};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::node::identity::write_private;

#[cfg(test)]
mod tests;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The key of sessions in the state directory: 32 bytes, mode 0600.
const SESSION_KEY: &str = "session.key";

/// Why a lone node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the documents of --static do not fit:\n{0}")]
    Faults(Faults),
    #[error("{}: {source}", path.display())]
    SessionKey { path: PathBuf, source: io::Error },
}

/// The documents that a lone node serves.
pub struct Files {
    paths: Vec<PathBuf>,
    session_key: SessionKey,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    seen: Vec<(PathBuf, Stamp)>,
    in_force: Version,
}

/// What a look at the files found.
struct Found {
    documents: Result<Vec<(String, OrganizationDocument)>, Faults>,
    /// The documents and every file that they point to, as they were before they were read.
    seen: Vec<(PathBuf, Stamp)>,
}

/// Reads and compiles without serving.
pub fn check(paths: &[PathBuf]) -> Result<(), LoadError> {
    let session_key = SessionKey { key_id: String::new(), key: vec![0; 32].into(), current: true };
    let with = Lone { session_key, version: Version::default(), written_at_ms: 0 };
    let documents = read(paths).documents.map_err(LoadError::Faults)?;
    document::compile(&documents, &with, None).map(drop).map_err(LoadError::Faults)
}

impl Files {
    /// Puts the documents of `config.static_files` in force, or says what is wrong with them.
    pub async fn load(config: &Config, live: &Arc<Live>, metrics: &Arc<Metrics>, background: &Handle) -> Result<Self, LoadError> {
        let mut files = Self {
            paths: config.static_files.clone(),
            session_key: session_key(&config.state_dir)?,
            live: live.clone(),
            metrics: metrics.clone(),
            seen: Vec::new(),
            in_force: Version::default(),
        };
        files.compile(background).await.map_err(LoadError::Faults)?;
        Ok(files)
    }

    /// Loads the files again whenever one of them changed, until `stop`.
    pub async fn follow(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => self.look().await,
            }
        }
    }

    /// Gives up the oldest records when they take too much room: nobody ships them.
    pub fn keep_room(&self, spool: Arc<Spool>, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let metrics = self.metrics.clone();
        let keep = async move {
            loop {
                let frames = spool.retired().await;
                metrics.records_retired.inc_by(frames);
                tracing::info!(frames, "the oldest {frames} audit frames gave way to newer ones");
            }
        };
        async move {
            stop.run_until_cancelled(keep).await;
        }
    }

    async fn look(&mut self) {
        if self.seen.iter().all(|(path, seen)| stamp(path) == *seen) {
            return;
        }
        if let Err(faults) = self.compile(&Handle::current()).await {
            self.metrics.discovery.unconfirmed();
            tracing::error!("the documents of --static have changed and do not fit; the last good ones stay in force:\n{faults}");
        }
    }

    /// Reads, compiles and puts in force.
    async fn compile(&mut self, background: &Handle) -> Result<(), Faults> {
        let (paths, session_key) = (self.paths.clone(), self.session_key.clone());
        let (in_force, previous) = (self.in_force, self.live.snapshot());
        let compiled = background.spawn_blocking(move || {
            let Found { documents, seen } = read(&paths);
            let written_at_ms = seen.iter().filter_map(|(_, stamp)| milliseconds(stamp.as_ref()?.0)).max().unwrap_or(0);
            let version = Version { epoch: 1, version: written_at_ms.unsigned_abs().max(in_force.version + 1) };
            let with = Lone { session_key, version, written_at_ms };
            (seen, documents.and_then(|documents| document::compile(&documents, &with, previous.as_deref())))
        });
        let broken = |error: tokio::task::JoinError| Faults(vec![Fault::new("", format!("compiling them broke off: {error}"))]);
        let result = match compiled.await {
            Ok((seen, result)) => {
                self.seen = seen;
                result
            }
            Err(error) => Err(broken(error)),
        };
        self.metrics.static_load(result.is_ok());
        self.put_in_force(result?);
        Ok(())
    }

    fn put_in_force(&mut self, snapshot: Snapshot) {
        self.metrics.discovery.confirmed();
        let same = self.live.snapshot().is_some_and(|current| current.digest() == snapshot.digest());
        if same {
            return; // touched, not changed
        }
        self.in_force = snapshot.version();
        self.live.swap(Arc::new(snapshot));
        self.metrics.discovery.swapped(self.in_force);
        let Version { epoch, version } = self.in_force;
        tracing::info!(config.epoch = epoch, config.version = version, "configuration {} is in force from files", self.in_force);
    }
}

fn read(paths: &[PathBuf]) -> Found {
    let (mut documents, mut faults, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let file = path.display().to_string();
        seen.push((path.clone(), stamp(path)));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                faults.push(Fault::new(file, format!("cannot be read: {error}")));
                continue;
            }
        };
        let beside = path.parent().unwrap_or(Path::new(""));
        match Document::parse(&text, &mut |source| value(beside, source, &mut seen)) {
            Ok(document) => documents.push((file, document.resource)),
            Err(Faults(found)) => {
                faults.extend(found.into_iter().map(|fault| Fault::new(file.clone(), fault.to_string())));
            }
        }
    }
    Found { documents: if faults.is_empty() { Ok(documents) } else { Err(Faults(faults)) }, seen }
}

/// The value of a credential that is not in its document.
fn value(beside: &Path, source: Source<'_>, seen: &mut Vec<(PathBuf, Stamp)>) -> Result<String, String> {
    match source {
        Source::Variable(name) => {
            config::variable(name).ok_or_else(|| format!("expected the environment variable {name}: it is not set"))
        }
        Source::File(path) => {
            let path = beside.join(path);
            seen.push((path.clone(), stamp(&path)));
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

/// Kept, so that sessions outlive a restart. A damaged key is replaced: its sessions end.
fn session_key(state_dir: &Path) -> Result<SessionKey, LoadError> {
    let path = state_dir.join(SESSION_KEY);
    let failed = |source| LoadError::SessionKey { path: path.clone(), source };
    let key = match fs::read(&path) {
        Ok(key) if key.len() == 32 => key,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(_) | Err(_) => {
            let mut key = vec![0; 32];
            aws_lc_rs::rand::fill(&mut key).map_err(io::Error::other).map_err(failed)?;
            write_private(&path, &key).map_err(failed)?;
            key
        }
    };
    let key_id = format!("static-{}", &ContentHash::of(&key).to_string()[..16]);
    Ok(SessionKey { key_id, key: key.into(), current: true })
}

fn milliseconds(at: SystemTime) -> Option<i64> {
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}
