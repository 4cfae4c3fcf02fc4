//! Counts that the nodes of a fleet share, in Redis: one script decides for all counts of a call, on the clock of Redis.

mod script;
#[cfg(test)]
mod testing;

pub use script::{Answer, Ask, Broken, Script, answers};
