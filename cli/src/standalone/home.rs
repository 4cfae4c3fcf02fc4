//! The data directory of standalone: one process at a time, secrets for its owner only.
//! Never knows what the files mean. Called by `standalone` and `mcpgw postgres`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::postgres;

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    // The lock lives as long as this descriptor is open.
    _lock: File,
}

impl Home {
    /// Creates the directory if need be and takes its lock.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = postgres::create_home(dir)?;
        let path = dir.join("standalone.lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut lock = options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                bail!("{} is in use by mcpgw (process {}): stop it, or choose another --data-dir", dir.display(), holder.trim());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
        lock.set_len(0)?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file that only we read; written by `make` on first use.
    pub fn secret(&self, name: &str, make: impl FnOnce() -> String) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        if !path.exists() {
            self.write_secret(name, &make())?;
        }
        Ok(path)
    }

    /// The path of a directory that only we enter; created on first use.
    pub fn private_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        let create = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        create.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Replaces a file that only we read, in one step.
    pub fn write_secret(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}.new"));
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_data_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path()).unwrap();
        let error = Home::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Home::open(dir.path()).unwrap();
    }

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let path = home.secret("master.key", || "first".into()).unwrap();
        home.secret("master.key", || "second".into()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
