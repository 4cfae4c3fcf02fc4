//! Both planes in one process.

pub mod home;
pub mod postgres;
