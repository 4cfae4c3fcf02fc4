//! The pipeline against real sockets: exact status and code of every refusal, and that the server saw nothing.

mod calls;
mod drained;
mod evasion;
mod faults;
mod limits;
mod lists;
mod questions;
mod reclaim;
mod refusals;
mod relayed;
mod scope;
mod sessions;
mod silence;
mod streams;
mod tokens;
mod wire;
mod world;
