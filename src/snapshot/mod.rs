//! The one place that says what a configuration means: decode, validate, compile to an immutable [`Snapshot`].
//!
//! The control plane uses it to refuse a bad write, a node to serve a good one: what one accepts the other accepts.
//! Never does I/O, never reads a clock, never spawns.

pub mod capture;
mod client;
mod compile;
mod fallback;
mod hash;
mod index;
pub mod limit;
mod manifest;
mod model;
mod org;
pub mod pattern;
pub mod policy;
mod problem;
mod quarantine;
mod server;
mod shard;
mod staged;
mod stdio;
mod validate;

pub use capture::Capture;
pub use client::{ClientSettings, ClientTransports};
pub use compile::{compile, restore};
pub use fallback::{Fallback, Fallbacks};
pub(crate) use hash::sha256;
pub use hash::{ContentHash, Digest, Version, digest};
pub use limit::{Applied, Away, Limit, Per, Traffic, Window};
pub use manifest::{ManifestError, sign_manifest, verify_manifest};
pub use model::{ApiKey, Endpoint, Issuer, Org, Server, SessionKey, SessionKeys, Snapshot, VerificationKey};
pub use policy::{Ask, Rule, Subject, Verdict};
pub use problem::Problem;
pub use quarantine::Quarantine;
pub use server::{check_server, is_websocket_url, parse_endpoint, parse_url};
pub use staged::Staged;
pub use stdio::{Stdio, variable_name, variable_value};
pub use validate::{MAX_PATTERN_BYTES, check_org, is_slug, is_uuid, shard_of};

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
