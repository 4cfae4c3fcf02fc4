//! Where the binaries of PostgreSQL are on this machine.
//! Never installs anything, but says what to install. Called by `cluster`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::config;

const MISSING: &str = "no PostgreSQL server found on this machine (initdb and postgres, in PATH or /usr/lib/postgresql/*/bin)
  Debian, Ubuntu:  apt-get install -y postgresql
  Fedora, RHEL:    dnf install -y postgresql-server
  Alpine:          apk add postgresql
or say where it is with --pg-bin DIR, or use a database of yours with DATABASE_URL";

/// A directory with `initdb` and `postgres`, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

/// The binaries to use: those of `given`, or the newest found; with `existing`, those that fit data of that version.
pub fn find(given: Option<&Path>, existing: Option<u32>) -> anyhow::Result<Binaries> {
    let mut found: Vec<Binaries> = match given {
        Some(dir) => vec![inspect(dir).with_context(|| format!("--pg-bin {}", dir.display()))?],
        None => config::path().into_iter().chain(packaged()).filter_map(|dir| inspect(&dir).ok()).collect(),
    };
    // Stable, so that of equal versions the one in PATH wins.
    found.sort_by_key(|it| std::cmp::Reverse(it.major));
    if found.is_empty() {
        bail!(MISSING);
    }
    let Some(wanted) = existing else { return Ok(found.swap_remove(0)) };
    let majors: Vec<_> = found.iter().map(|it| it.major.to_string()).collect();
    found.into_iter().find(|it| it.major == wanted).with_context(|| {
        format!("the data was written by PostgreSQL {wanted}, but this machine has {}: install postgresql-{wanted}, or name it with --pg-bin", majors.join(", "))
    })
}

/// Where distributions put what is not in PATH.
fn packaged() -> Vec<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|it| it.path().join("bin"));
    let others = ["/usr/libexec/postgresql", "/usr/local/pgsql/bin"].map(PathBuf::from);
    debian.chain(others).collect()
}

fn inspect(dir: &Path) -> anyhow::Result<Binaries> {
    // PATH often has links to some of the binaries only.
    let postgres = dir.join("postgres").canonicalize().context("there is no postgres")?;
    let dir = postgres.parent().context("postgres is nowhere")?.to_owned();
    if !dir.join("initdb").is_file() {
        bail!("{} has no initdb", dir.display());
    }
    let output = Command::new(&postgres).arg("--version").output().context("cannot run postgres")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let major = major(&said).with_context(|| format!("cannot read the version from {said:?}"))?;
    Ok(Binaries { dir, major })
}

/// 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major(said: &str) -> Option<u32> {
    let version = said.split_whitespace().nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_releases_and_betas() {
        let table = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta2", Some(18)),
            ("postgres", None),
        ];
        for (said, expected) in table {
            assert_eq!(major(said), expected, "{said:?}");
        }
    }

    #[test]
    fn a_directory_without_binaries_is_refused_by_name() {
        let error = find(Some(Path::new("/nonexistent")), None).unwrap_err();
        assert!(format!("{error:#}").contains("--pg-bin /nonexistent"), "{error:#}");
    }
}
