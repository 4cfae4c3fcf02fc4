//! Real counterparts for the end-to-end tests: MCP servers to put behind the gateway, foreign clients to
//! put in front of it, and the official conformance suite to judge it. Owns no gateway code; used by
//! `tests/e2e` and by the binaries of this crate.

// Sampling, roots and logging are deprecated in 2026-07-28, yet a gateway has to carry them.
#![allow(deprecated)]

pub mod backend;
pub mod bench;
pub mod cli;
pub mod conformance;
pub mod demo;
pub mod fleet;
pub mod foreign;
pub mod frames;
pub mod peers;
pub mod program;
pub mod reference;
pub mod scale;
pub mod serve;
pub mod strace;
