//! The client-facing codecs: from bytes and headers to a decided message, and nothing about upstreams.
//! Pure: no I/O, no clock, no configuration beyond limits. Called by the pipeline's decode stage.

pub mod header;
mod messages;
mod operation;
mod refusal;
pub mod scan;
pub mod server_message;
pub mod streamable_http;
mod version;

pub use messages::{Way, message, message_of_either_era, messages};
pub use operation::Operation;
pub use refusal::{Refusal, Wrong};
pub use version::{ClientTransport, Era, Version};
