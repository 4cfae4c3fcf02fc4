//! The transport matrix: foreign clients and servers of every transport, one fixture, the same checks for every pair.
//! Owns who they are, how they are run and how a report reads; starts no gateway. Used by `tests/e2e`.

mod clients;
mod compatibility;
mod exceptions;
mod report;
mod servers;

pub use clients::{Client, Endpoint};
pub use compatibility::{Pair, committed_page, markdown, pairs};
pub use exceptions::{Exception, Exceptions};
pub use report::{Check, Finding, Report, Verdict};
pub use servers::{Running, Server};
