//! Modern clients of legacy servers, through real sockets: every request by itself, over any transport of the server's.

mod calls;
mod client;
