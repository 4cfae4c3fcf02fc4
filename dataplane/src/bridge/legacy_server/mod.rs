//! A legacy server as modern clients see it (2026-07-28): what their requests are in its words, and its answers in theirs. Pure functions
//! on bytes: a message is changed where the eras differ, and passes byte for byte everywhere else. Who waits for what, and in which session,
//! is [`crate::owned`]'s to know; [`crate::relay::sessions`] brings the two together.

pub mod codes;
pub mod discover;
pub mod notice;
pub mod persona;
pub mod request;
pub mod result;

pub use discover::Greeting;
pub use persona::{Level, Persona};

/// How deep a message may nest.
const MAX_DEPTH: usize = 128;
/// What `_meta` keys of the protocol itself begin with.
const RESERVED: &str = "io.modelcontextprotocol/";
