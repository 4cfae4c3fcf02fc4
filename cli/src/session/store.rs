//! The context file: readable by its owner only, replaced in one step, guarded by a lock between processes.
//! Never looks into tokens. Called by `session` and the login verbs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::Saved;
use crate::failure::Failure;

/// A refresh takes one round trip; whoever holds the lock longer hangs.
const LOCK_DEADLINE: Duration = Duration::from_secs(60);

/// The directory of the context file.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The context file.
    pub fn path(&self) -> PathBuf {
        self.dir.join("context.json")
    }

    /// The saved login, if there is one. Needs no lock: the file is only ever replaced whole.
    pub fn load(&self) -> anyhow::Result<Option<Saved>> {
        let path = self.path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let saved = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: delete it and run `mcpgw login`", path.display()))?;
        Ok(Some(saved))
    }

    /// Waits for other processes that change the file.
    pub async fn lock(&self) -> anyhow::Result<Locked> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let path = self.dir.join("context.lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        let waited = tokio::time::timeout(LOCK_DEADLINE, waiting).await;
        let Ok(locked) = waited else {
            return Err(Failure::Unreachable(format!("another mcpgw has held {} for a minute", path.display())).into());
        };
        let file =
            locked.context("waiting for the lock was interrupted")?.with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Locked { store: self.clone(), _file: file })
    }
}

/// The right to change the file; ends when dropped.
#[derive(Debug)]
pub struct Locked {
    store: Store,
    // The lock lives as long as this descriptor is open.
    _file: File,
}

impl Locked {
    /// As `Store::load`, with nobody changing it meanwhile.
    pub fn load(&self) -> anyhow::Result<Option<Saved>> {
        self.store.load()
    }

    /// Replaces the file.
    pub fn save(&self, saved: &Saved) -> anyhow::Result<()> {
        let path = self.store.path();
        let next = path.with_extension("json.new");
        write_private(&next, serde_json::to_string_pretty(saved)?.as_bytes())
            .and_then(|()| fs::rename(&next, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the login.
    pub fn remove(&self) -> anyhow::Result<()> {
        let path = self.store.path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// A file that only its owner reads, on disk before this returns: a lost refresh token costs the session.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    // `mode` counts only for new files.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}
