//! Delta discovery towards the nodes: a pure machine per stream and the server that feeds it.
//! Never decides what a configuration is (that is [`crate::publish`]); never touches the database.

pub mod machine;
pub mod metrics;
pub mod server;
mod subscription;
#[cfg(test)]
mod tests;
