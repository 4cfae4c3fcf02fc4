//! The control plane of MCP Gateway: what administrators change, and how nodes learn of it.
//!
//! A change meets, in this order: `api` (who asks, what for), `store::change` (one transaction), `publish`, `xds`.

pub mod api;
pub mod app;
mod bootstrap;
pub mod config;
pub mod domain;
pub mod evidence;
pub mod follow;
mod http;
pub mod ingest;
pub mod keys;
mod maintenance;
pub mod metrics;
pub mod nodes;
mod open;
pub mod publish;
pub mod rollouts;
pub mod status;
pub mod store;
pub mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
pub mod xds;
