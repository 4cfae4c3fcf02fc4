//! The fleet: who a node is, how it joins, what it runs, and the listener that all of it is served on.

pub mod identity;
