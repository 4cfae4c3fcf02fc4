//! End-to-end tests against real parts. One binary, so that its parts are linked once; each module is one subject.
//! The foreign peers come from `tests/foreign/install`.

mod direct_peers;
