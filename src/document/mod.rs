//! The written form of resources, and of a whole organisation: YAML or JSON with the JSON names of the protos.
//!
//! Reads and writes texts, says what is wrong with them by path, and compiles them for a node without a control plane, through the same
//! [`crate::snapshot::compile`]. Never opens files or reads the environment itself: whoever reads a text brings a [`Source`] reader along.

mod check;
mod lone;
mod place;
mod principal;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

pub use check::{check, credential_header, credential_name, secret_sha256, transport_of};
pub use lone::{Lone, compile};
pub use place::fault;
pub use principal::{principal_roles, role_name};
pub use read::{Document, Source};
pub use write::{Written, written};

/// One thing wrong with a document. The texts are shown to people and logged; they never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, such as `servers.github.endpoints[0].url`; empty: the text as a whole.
    pub path: String,
    /// What is expected there.
    pub expected: String,
}

/// Everything that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Fault {
    pub fn new(path: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { path: path.into(), expected: expected.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.expected),
            path => write!(f, "{path}: {}", self.expected),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}
