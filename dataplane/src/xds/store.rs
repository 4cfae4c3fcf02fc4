//! Revocations on disk, as received: a restart must not take back what was acknowledged.

use std::io;
use std::path::Path;

use mcp_gateway::proto::config::v1::Revocation;
use mcp_gateway::snapshot::ContentHash;
use prost::Message;

use crate::node::identity::write_private;

const FILE: &str = "revocation.pb";

/// Replaces what is on disk; returns when it is there.
pub(super) fn save(state_dir: &Path, body: &[u8]) -> io::Result<()> {
    write_private(&state_dir.join(FILE), body)
}

/// What is on disk, and its version. A file that cannot be read is told and counts as none: the stream brings it again.
pub(super) fn load(state_dir: &Path) -> Option<(Revocation, String)> {
    let path = state_dir.join(FILE);
    let body = match std::fs::read(&path) {
        Ok(body) => body,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), "the stored revocations cannot be read: {error}");
            return None;
        }
    };
    match Revocation::decode(&body[..]) {
        Ok(revocation) => Some((revocation, ContentHash::of(&body).to_string())),
        Err(error) => {
            tracing::error!(path = %path.display(), "the stored revocations are damaged: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_come_back_after_a_restart_and_damage_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_none());
        let revocation = Revocation { api_keys: vec!["k".into()], ..Revocation::default() };
        let body = revocation.encode_to_vec();
        save(dir.path(), &body).unwrap();
        assert_eq!(load(dir.path()), Some((revocation, ContentHash::of(&body).to_string())));
        save(dir.path(), &[0xff; 5]).unwrap();
        assert!(load(dir.path()).is_none());
    }
}
