//! The data plane: takes MCP requests, decides them under one configuration snapshot, relays them, and records both.
//!
//! A request reads top to bottom in [`pipeline`]; a configuration change in [`xds`] and [`live`]. No globals: two
//! planes can live in one process.

pub mod admin;
pub mod app;
pub mod audit;
pub mod bridge;
pub mod capture;
pub mod children;
pub mod config;
pub mod files;
pub mod limits;
pub mod listener;
pub mod lists;
pub mod live;
pub mod metrics;
pub mod node;
pub mod operate;
pub mod origin;
pub mod owned;
pub mod peers;
pub mod pipeline;
pub mod relay;
pub mod session;
pub mod sse;
pub mod target;
pub mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
pub mod upstream;
pub mod xds;
