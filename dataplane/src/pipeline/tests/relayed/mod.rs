//! Owned sessions against real sockets: every client transport to every kind of server, the same conversation.

mod across;
mod client;
mod conversation;
mod exchanged;
mod faults;
mod frames;
mod modern;
mod modern_server;
mod operators;
mod rpc;
mod server;
