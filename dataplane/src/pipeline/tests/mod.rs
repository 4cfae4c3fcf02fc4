//! The pipeline against real sockets: exact status and code of every refusal, and that the server saw nothing.

mod calls;
mod lists;
mod refusals;
mod scope;
mod sessions;
mod world;
