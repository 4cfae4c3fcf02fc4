//! Where the foreign packages of `tests/foreign` are installed, and how their processes are run: bounded in
//! time and ended with their parent. Installs nothing itself; used by `conformance` and `peers`.

mod process;

use std::path::{Path, PathBuf};

use anyhow::ensure;

pub use process::{Output, Service, run};

/// The installed foreign packages.
#[derive(Clone, Debug)]
pub struct Foreign {
    cache: PathBuf,
}

impl Foreign {
    /// Finds the packages that `tests/foreign/install` put into `.cache/foreign`.
    pub fn installed() -> anyhow::Result<Self> {
        let found = Self { cache: tests_directory().join("../.cache/foreign") };
        for needed in [found.node(), found.python(), found.python1()] {
            ensure!(needed.exists(), "{} is missing: run tests/foreign/install first", needed.display());
        }
        Ok(found)
    }

    /// The Node of the lock file, not the machine's.
    pub fn node(&self) -> PathBuf {
        self.cache.join("node/node_modules/.bin/node")
    }

    /// Python with the packages of `requirements.txt`.
    pub fn python(&self) -> PathBuf {
        self.cache.join("python/bin/python")
    }

    /// Python with the packages of `requirements-python1.txt`: the SDK 1.x.
    pub fn python1(&self) -> PathBuf {
        self.cache.join("python1/bin/python")
    }

    /// A file of an installed Node package.
    pub fn package(&self, file: &str) -> PathBuf {
        self.cache.join("node/node_modules").join(file)
    }
}

/// The directory of this crate, which holds the peers' scripts and the conformance records.
pub fn tests_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
