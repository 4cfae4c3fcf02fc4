//! Proof that the logs are what was recorded: seals over what each batch brought, a chain of administrative records, signed checkpoints
//! over both, and [`verify`], which recomputes all of it.
//!
//! Owns what is hashed and how; everything but [`checkpoint`] and [`verify`] is pure. Never holds a key that is in the database. Called
//! by `store` where rows are written, by `app` and by `api`.

pub mod canon;
pub mod checkpoint;
pub mod half;
pub mod purge;
pub mod record;
pub mod seal;
pub mod signer;
pub mod verify;

pub use canon::Hash;
pub use signer::Signer;
