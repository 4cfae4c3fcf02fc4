//! Child processes that cannot outlive us: each runs under a small helper, this binary again as `supervise`.
//! The helper lives only while a pipe from us is open, so even our SIGKILL ends the child and all its descendants.
//! Never speaks MCP and never decides who may use a child.

pub mod helper;
mod recipe;
mod supervised;

pub use recipe::{Program, Recipe};
pub use supervised::{Error as SupervisedError, Supervised};
