//! Modern clients of legacy servers, and of modern ones over a connection that lasts: every request by itself.

mod calls;
pub mod client;
mod faults;
mod listen;
mod questions;
mod single;
pub mod untouched;
