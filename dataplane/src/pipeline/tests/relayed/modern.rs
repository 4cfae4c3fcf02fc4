//! Modern clients of legacy servers, and of modern ones over a connection that lasts: every request by itself.

mod calls;
mod client;
mod faults;
mod listen;
mod questions;
mod untouched;
