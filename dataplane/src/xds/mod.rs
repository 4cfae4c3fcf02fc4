//! The node's end of configuration distribution: [`machine`] decides, [`stream`] does.
//! What is in force is kept on disk ([`last_good`]), and comes back from there at a start ([`restore()`]).
//! Puts snapshots, revocations and peers in force in [`crate::live::Live`]; never says what a configuration means.

mod keeper;
mod last_good;
pub mod machine;
mod metrics;
mod restore;
pub mod revocations;
pub mod stats;
mod store;
pub mod stream;
#[cfg(test)]
mod testing;
mod vault;

pub use restore::{Restored, restore};
pub use stats::Stats;
pub use stream::Client;
