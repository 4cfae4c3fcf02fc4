//! The contract of MCP Gateway: what the control plane, the nodes and the command line agree on.
//!
//! Generated protobuf types, resource type URLs, [`snapshot`], the one place that says what a configuration means, and [`document`], the
//! written form of a whole organisation.
//! No I/O and no async runtime: both planes link this crate, so what one accepts the other accepts.

pub mod bundle;
pub mod document;
pub mod proto;
pub mod seal;
pub mod secret;
pub mod snapshot;
pub mod type_url;
