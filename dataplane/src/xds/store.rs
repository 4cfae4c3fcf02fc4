//! On disk, as received, what travels beside the manifest and outlives a restart: revocations, because a restart must not take back what
//! was acknowledged, and the states of endpoints, because what is drained stays so without a control plane.

use std::io;
use std::path::{Path, PathBuf};

use mcp_gateway::snapshot::ContentHash;
use prost::Message;

use super::vault::{Broken, Vault};

pub(super) const REVOCATIONS: &str = "revocations";
pub(super) const ENDPOINTS: &str = "endpoints";

/// Why nobody knows what a file said. It stays until the stream replaces it: without it a restart would take revocations back.
#[derive(Debug, thiserror::Error)]
#[error("the stored {} cannot be used: {reason}", path.display())]
pub(super) struct LoadError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Undecodable(#[from] prost::DecodeError),
}

/// Replaces what is on disk; returns when it is there.
pub(super) fn save(vault: &Vault, state_dir: &Path, file: &str, body: &[u8]) -> io::Result<()> {
    vault.write(&state_dir.join(file), |file| file.extend_from_slice(body))
}

/// What is on disk, and its version; `None` if nothing ever was.
pub(super) fn load<M: Message + Default>(vault: &Vault, state_dir: &Path, file: &str) -> Result<Option<(M, String)>, LoadError> {
    let path = state_dir.join(file);
    let read = || -> Result<_, Reason> {
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let body = vault.open_file(&path, file)?;
        let version = ContentHash::of(&body).to_string();
        Ok(Some((M::decode(body)?, version)))
    };
    read().map_err(|reason| LoadError { path: path.clone(), reason })
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::config::v1::Revocation;

    use super::*;

    type Loaded = Result<Option<(Revocation, String)>, LoadError>;

    #[test]
    fn revocations_come_back_after_a_restart_and_damage_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let load = |vault: &Vault| -> Loaded { load(vault, dir.path(), REVOCATIONS) };
        assert!(load(&vault).unwrap().is_none());
        let revocation = Revocation { api_keys: vec!["k".into()], ..Revocation::default() };
        let body = revocation.encode_to_vec();
        save(&vault, dir.path(), REVOCATIONS, &body).unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        assert_eq!(load(&vault).unwrap(), Some((revocation, ContentHash::of(&body).to_string())));
        let whole = std::fs::read(dir.path().join(REVOCATIONS)).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            std::fs::write(dir.path().join(REVOCATIONS), damaged).unwrap();
            load(&vault).expect_err("a changed bit could name another key");
        }
    }
}
