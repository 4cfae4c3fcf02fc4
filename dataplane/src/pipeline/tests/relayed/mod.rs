//! Owned sessions against real sockets: every client transport to every kind of server, the same conversation.

mod client;
mod conversation;
mod faults;
mod modern;
mod operators;
mod rpc;
mod server;
