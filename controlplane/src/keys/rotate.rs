//! Moving the keys of a purpose on: next, current, retiring, gone. In the caller's transaction; what is sealed again is too.
//!
//! Owns how long a retiring key is kept. Called by `api`; every replica reads the table when the version has moved.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tracing::error;

use super::{CREDENTIAL, Custody, Error, JWT, NEEDED, NODE_CA, POOL, SESSION};
use crate::{
    config::Config,
    domain::{bundle::credential_context, is_slug},
    store::{self, keys::Row},
};

/// What was made with a key in the last moment before a replica heard of its retirement, and clocks that disagree.
const MARGIN: Duration = Duration::from_secs(600);
/// A node's certificate lives this long (`nodes::identity`), and with it what the node was told.
const NODE: Duration = Duration::from_secs(24 * 3600);
/// The longest life that a node may be configured to give its sessions.
const LONGEST_SESSION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Answers for repeated requests are kept sealed this long.
const ANSWERS: Duration = Duration::from_secs(24 * 3600);

/// What came of a rotation.
pub enum Rotation {
    /// The keys of the purpose as they are now, oldest first.
    Done(Vec<Row>),
    /// No key has the purpose.
    Unknown,
    /// Some node may not know the next authority before this moment.
    TooSoon(DateTime<Utc>),
}

/// The purpose as stored, of the purpose as the API writes it. None: there cannot be such a purpose.
pub fn stored_purpose(written: &str) -> Option<String> {
    let stored = written.replace("node-ca", NODE_CA);
    match written.strip_prefix(POOL) {
        Some(pool) => is_slug(pool).then(|| written.to_owned()),
        None => (written != NODE_CA && NEEDED.contains(&stored.as_str())).then_some(stored),
    }
}

/// The purpose as the API writes it.
pub fn written_purpose(stored: &str) -> String {
    if stored == NODE_CA { "node-ca".to_owned() } else { stored.to_owned() }
}

impl Custody {
    /// Moves the keys of a purpose (as stored) on, and seals again what is stored under the credential key.
    pub async fn rotate(&self, connection: &mut PgConnection, purpose: &str, config: &Config) -> Result<Rotation, Error> {
        store::keys::hold(connection).await?;
        let before = store::keys::all(connection).await?;
        let Some(next) = before.iter().find(|row| row.purpose == purpose && row.state == "next") else {
            return Ok(Rotation::Unknown);
        };
        // Nodes learn of an authority when they renew, which each does within the life of its certificate. One that trusts neither the
        // authority of the listener nor of the listener's successor could never ask again.
        let known_at = next.created_at + TimeDelta::from_std(NODE).expect("a day is not too long");
        if purpose == NODE_CA && known_at > Utc::now() {
            return Ok(Rotation::TooSoon(known_at));
        }
        store::keys::promote(connection, purpose).await?;
        store::keys::insert(connection, &self.create(purpose, "next")?).await?;
        if purpose == CREDENTIAL {
            self.reseal(connection).await?;
        }
        store::keys::remove_retired(connection, purpose, kept(purpose, config)).await?;
        let mut rows = store::keys::all(connection).await?;
        rows.retain(|row| row.purpose == purpose);
        Ok(Rotation::Done(rows))
    }

    async fn reseal(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let as_of = store::publish::head(connection).await?.version;
        let keys = self.unwrap_all(&store::keys::all(connection).await?, as_of)?;
        for (server, wrapped) in store::keys::sealed_credentials(connection).await? {
            let id = server.to_string();
            let context = credential_context(&id);
            match keys.open(&context, &wrapped) {
                Ok(value) => {
                    store::keys::reseal_credential(connection, server, &keys.seal(&context, &value)).await?;
                }
                // The publisher has switched the server off already; it must not stop the rotation.
                Err(Error::Unreadable) => error!(server.id = id, "server {id}: no key opens its credential; set it again"),
                Err(error) => return Err(error),
            }
        }
        for (rollout, place, server, wrapped) in store::rollouts::sealed_credentials(connection).await? {
            let id = server.to_string();
            let context = credential_context(&id);
            match keys.open(&context, &wrapped) {
                Ok(value) => store::rollouts::reseal(connection, rollout, place, &keys.seal(&context, &value)).await?,
                Err(Error::Unreadable) => {
                    error!(%rollout, server.id = id, "rollout {rollout}: no key opens its credential of server {id}")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How long a retiring key may still be needed.
fn kept(purpose: &str, config: &Config) -> Duration {
    let longest = match purpose {
        JWT => config.access_token_lifetime(),
        SESSION => LONGEST_SESSION,
        // Page tokens and refresh tokens carry a code of it.
        CREDENTIAL => config.refresh_token_lifetime().max(ANSWERS),
        // Manifests, authorities, pools: until every replica uses another one and every node was told of it.
        _others => NODE,
    };
    longest + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_written_with_hyphens_and_pools_by_name() {
        for (written, stored) in
            [("jwt", "jwt"), ("node-ca", "node_ca"), ("pool/default", "pool/default"), ("pool/edge", "pool/edge")]
        {
            assert_eq!(stored_purpose(written).as_deref(), Some(stored));
            assert_eq!(written_purpose(stored), written);
        }
        for wrong in ["", "node_ca", "pool/", "pool", "pool/a/b", "pool/A", "JWT", "master"] {
            assert_eq!(stored_purpose(wrong), None, "{wrong}");
        }
    }
}
