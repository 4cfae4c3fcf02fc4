//! Bounds of the MCP servers that this node runs itself. Which ones it runs is in the snapshot.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// Servers that talk over stdin and stdout.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Children {
    /// Whether any may be run.
    pub enabled: bool,
    /// The programs that may be run, absolute, compared as written; empty: whatever an administrator registered.
    pub allow: Vec<PathBuf>,
    /// Most that run at once.
    pub max: usize,
    /// Most of one organisation.
    pub max_per_organization: usize,
    /// Most bytes that are kept of what the children of one server write to stderr.
    #[serde(with = "units::bytes")]
    pub stderr_bytes: u64,
    /// Longest message that a child may send.
    #[serde(with = "units::bytes")]
    pub line_bytes: u64,
    /// How long a child may leave a message unread.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// Files that a child may have open.
    pub nofile: u64,
    /// Processes that the user this node runs as may have before a child can start no more; 0: as the machine says.
    pub nproc: u64,
    /// Address space that each process of a child may have; 0: as the machine says.
    #[serde(with = "units::bytes")]
    pub memory_bytes: u64,
}

impl Default for Children {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: Vec::new(),
            max: 256,
            max_per_organization: 64,
            stderr_bytes: 256 << 10,
            line_bytes: 8 << 20,
            write_timeout: Duration::from_secs(10),
            nofile: 1024,
            nproc: 0,
            memory_bytes: 0,
        }
    }
}

impl Children {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let at_least = [
            ("max", self.max as u64, 1),
            ("max_per_organization", self.max_per_organization as u64, 1),
            ("stderr_bytes", self.stderr_bytes, 4 << 10),
            ("line_bytes", self.line_bytes, 1 << 10),
            ("nofile", self.nofile, 16),
        ];
        for (key, value, least) in at_least {
            if value < least {
                problems.push(format!("children.{key}: {value} is less than {least}"));
            }
        }
        if self.memory_bytes != 0 && self.memory_bytes < 16 << 20 {
            problems.push("children.memory_bytes: less than 16MiB, in which hardly a program starts; 0 sets no limit".into());
        }
        if self.write_timeout.is_zero() {
            problems.push("children.write_timeout: must be more than 0".into());
        }
        for program in self.allow.iter().filter(|program| !program.is_absolute()) {
            problems.push(format!("children.allow: `{}` is not an absolute path", program.display()));
        }
    }
}
