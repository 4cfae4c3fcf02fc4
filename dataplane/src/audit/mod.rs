//! The audit trail's way out of the process: [`spool`] puts frames on disk before an answer leaves, [`ship`] brings them to the control plane.
//! Owns the files below the spool directory. Never decides what a record says: the pipeline's trail does, and calls [`Spool::append_decided`] and [`Spool::append_ended`].

pub mod frame;
pub mod ship;
pub mod spool;
pub mod text;

pub use spool::{Backlog, Class, Limits, OpenError, Recorded, Spool, SpoolError, Ticket};
