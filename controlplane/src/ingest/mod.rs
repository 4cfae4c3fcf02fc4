//! Audit frames of the nodes into `request_logs`, each exactly once.

pub mod lane;
pub mod record;
