//! Rows to bundles to a signed manifest, per pool, encoded once.

pub mod scope;
