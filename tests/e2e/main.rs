//! End-to-end tests against real parts. One binary, so that its parts are linked once; each module is one subject.
//! The foreign peers come from `tests/foreign/install`.

// A test that cannot go on says where by panicking; helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod architecture;
mod bad_input;
mod bench;
mod beside;
mod canaries;
mod capture;
mod children;
mod compatibility;
mod configs;
mod conformance;
mod conformance_client;
mod direct_matrix;
mod direct_peers;
mod discovery;
mod distribution;
mod documents;
mod eras;
mod follow;
mod history;
mod last_good;
mod limit_status;
mod operate;
mod outlives;
mod peers;
mod proof;
mod quarantine;
mod records;
mod rollout;
mod rotation;
mod scale;
mod shared_limits;
mod simulation;
mod status;
mod stock_xds;
mod streams;
mod three_nodes;
mod versions;
