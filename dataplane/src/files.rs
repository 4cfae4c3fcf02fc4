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
    /// What is in force: the last good content of every file.
    good: Vec<(String, OrganizationDocument)>,
}

/// Every document that was read, or why not, with the name of its file; and every file that was looked into, as it was before.
struct Found {
    documents: Vec<(String, Result<OrganizationDocument, Faults>)>,
    seen: Vec<(PathBuf, Stamp)>,
}

/// What came of a look.
struct Compiled {
    snapshot: Result<Snapshot, Faults>,
    /// The documents in it.
    documents: Vec<(String, OrganizationDocument)>,
    /// What is wrong with files whose last good content is in it.
    refused: Vec<Fault>,
    seen: Vec<(PathBuf, Stamp)>,
}

/// Reads and compiles without serving.
pub fn check(paths: &[PathBuf]) -> Result<(), LoadError> {
    let session_key = SessionKey { key_id: String::new(), key: vec![0; 32].into(), current: true };
    let work = Work { paths: paths.to_vec(), session_key, in_force: Version::default(), good: Vec::new(), previous: None };
    work.run().snapshot.map(drop).map_err(LoadError::Faults)
}

/// A look at the files, for a thread that may block.
struct Work {
    paths: Vec<PathBuf>,
    session_key: SessionKey,
    in_force: Version,
    good: Vec<(String, OrganizationDocument)>,
    previous: Option<Arc<Snapshot>>,
}

impl Work {
    fn run(self) -> Compiled {
        let Found { documents, seen } = read(&self.paths);
        let written_at_ms = seen.iter().filter_map(|(_, stamp)| milliseconds(stamp.as_ref()?.0)).max().unwrap_or(0);
        let version = Version { epoch: 1, version: written_at_ms.unsigned_abs().max(self.in_force.version + 1) };
        let with = Lone { session_key: self.session_key, version, written_at_ms };
        let (mut usable, mut refused) = (Vec::new(), Vec::new());
        for (file, document) in documents {
            let alone = document.and_then(|document| {
                let alone = [(file.clone(), document)];
                document::compile(&alone, &with, None)?;
                Ok(alone)
            });
            match alone {
                Ok([document]) => usable.push(document),
                Err(Faults(faults)) => {
                    refused.extend(faults);
                    usable.extend(self.good.iter().find(|(good, _)| *good == file).cloned());
                }
            }
        }
        let known = usable.len() == self.paths.len();
        let snapshot = if known {
            document::compile(&usable, &with, self.previous.as_deref())
        } else {
            Err(Faults(std::mem::take(&mut refused)))
        };
        Compiled { snapshot, documents: usable, refused, seen }
    }
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
            good: Vec::new(),
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
            tracing::error!(
                "a document of --static has changed and does not fit; its last good content stays in force:\n{faults}"
            );
        }
    }

    /// Reads, compiles and puts in force. A file that does not fit is left out of it if there is a last good content: then that is what
    /// fails, and what the others say is in force all the same.
    async fn compile(&mut self, background: &Handle) -> Result<(), Faults> {
        let work = Work {
            paths: self.paths.clone(),
            session_key: self.session_key.clone(),
            in_force: self.in_force,
            good: self.good.clone(),
            previous: self.live.snapshot(),
        };
        let result = match background.spawn_blocking(move || work.run()).await {
            Ok(Compiled { snapshot, documents, mut refused, seen }) => {
                self.seen = seen;
                match snapshot {
                    Ok(snapshot) => {
                        self.good = documents;
                        self.put_in_force(snapshot);
                    }
                    Err(Faults(faults)) => refused.extend(faults),
                }
                if refused.is_empty() { Ok(()) } else { Err(Faults(refused)) }
            }
            Err(error) => Err(Faults(vec![Fault::new("", format!("compiling the documents broke off: {error}"))])),
        };
        self.metrics.static_load(result.is_ok());
        if result.is_ok() {
            self.metrics.discovery.confirmed();
        } else {
            self.metrics.discovery.unconfirmed();
        }
        result
    }

    fn put_in_force(&mut self, snapshot: Snapshot) {
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
    let mut found = Found { documents: Vec::new(), seen: Vec::new() };
    for path in paths {
        let file = path.display().to_string();
        found.seen.push((path.clone(), stamp(path)));
        let document = match fs::read_to_string(path) {
            Ok(text) => parse(&text, path, &mut found.seen),
            Err(error) => Err(Faults(vec![Fault::new(&file, format!("cannot be read: {error}"))])),
        };
        found.documents.push((file, document));
    }
    found
}

fn parse(text: &str, path: &Path, seen: &mut Vec<(PathBuf, Stamp)>) -> Result<OrganizationDocument, Faults> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let document = Document::parse(text, &mut |source| value(beside, source, seen));
    document.map(|document| document.resource).map_err(|Faults(faults)| {
        let file = path.display().to_string();
        Faults(faults.into_iter().map(|fault| Fault::new(&file, fault.to_string())).collect())
    })
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
