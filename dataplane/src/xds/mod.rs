//! The node's end of configuration distribution: [`machine`] decides, [`stream`] does.
//! Puts snapshots, revocations and peers in force in [`crate::live::Live`]; never says what a configuration means.

pub mod machine;
pub mod stats;
mod store;
pub mod stream;

pub use stats::Stats;
pub use stream::Client;
