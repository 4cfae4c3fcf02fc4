//! Where the counts of limits are that nodes share.

use std::path::PathBuf;
use std::time::Duration;

use redis::IntoConnectionInfo;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::units;

/// A decision that takes longer is of no use to a call.
const LONGEST_DEADLINE: Duration = Duration::from_secs(1);
const LONGEST_PREFIX: usize = 64;

/// Redis, for limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Redis {
    /// `redis://host:port`, or `rediss://host:port` for TLS; a path is the number of the database. Of a Cluster one node or several, with
    /// commas between them. Empty: every node counts for itself.
    pub url: String,
    /// Whether it is a Redis Cluster. An organisation's counts lie in one slot.
    pub cluster: bool,
    /// Whom to sign in as; none: the default user.
    pub username: Option<String>,
    #[serde(with = "units::secret")]
    pub password: Option<SecretString>,
    /// A file with the password, instead of `password`; read at every connection.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// What all keys begin with. Nodes share counts if they share it.
    pub key_prefix: String,
    /// How long a call waits for Redis before it is decided without.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
    /// Among how many nodes a limit is divided while Redis is away, until the control plane says how many are alive.
    pub assumed_nodes: u32,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: String::new(),
            cluster: false,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            key_prefix: "mcpgw".into(),
            deadline: Duration::from_millis(10),
            assumed_nodes: 8,
        }
    }
}

impl Redis {
    /// Each of the URLs.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim).filter(|url| !url.is_empty())
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut problem = |key: &str, what: String| problems.push(format!("redis.{key}: {what}"));
        for url in self.urls() {
            if let Err(why) = self.check_url(url) {
                problem("url", why);
            }
        }
        if self.urls().count() > 1 && !self.cluster {
            problem("url", "several servers are only for a Cluster; set redis.cluster, or name one".into());
        }
        let set = self.cluster || self.username.is_some() || self.password.is_some() || self.password_file.is_some();
        if self.url.is_empty() && (set || self.ca_file.is_some()) {
            problem("url", "expected, because other settings of redis are there".into());
        }
        if self.password.is_some() && self.password_file.is_some() {
            problem("password", "set password or password_file, not both".into());
        }
        if self.ca_file.is_some() && self.urls().any(|url| url.starts_with("redis://")) {
            problem("ca_file", "of no use without TLS; write rediss:// in redis.url".into());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.chars().all(fits) {
            problem("key_prefix", format!("`{prefix}` is not 1 to {LONGEST_PREFIX} of a-z, A-Z, 0-9 and . : _ -"));
        }
        if self.deadline.is_zero() || self.deadline > LONGEST_DEADLINE {
            problem("deadline", "must be more than 0 and at most 1s".into());
        }
        if self.assumed_nodes == 0 {
            problem("assumed_nodes", "must be at least 1".into());
        }
    }

    fn check_url(&self, url: &str) -> Result<(), String> {
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("must start with redis:// or rediss://".into());
        }
        if url.contains('@') {
            return Err("must not carry credentials; use redis.username and redis.password or redis.password_file".into());
        }
        if url.contains(['#', '?']) {
            return Err(format!("`{url}` must be scheme, host, port and perhaps the number of a database"));
        }
        let info = url.into_connection_info().map_err(|error| format!("`{url}`: {error}"))?;
        if self.cluster && info.redis_settings().db() != 0 {
            return Err(format!("`{url}`: a Cluster has no numbered databases"));
        }
        Ok(())
    }
}
