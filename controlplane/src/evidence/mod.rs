//! Proof that the logs are what was recorded: seals over what each batch brought, a chain of administrative records, signed checkpoints
//! over both.
//!
//! Owns what is hashed and how; everything but [`checkpoint`] is pure. Never holds a key that is in the database. Called
//! by `store` where rows are written, and by `app`.

pub mod canon;
pub mod checkpoint;
pub mod half;
pub mod purge;
pub mod record;
pub mod seal;
pub mod signer;

pub use canon::Hash;
pub use signer::Signer;
