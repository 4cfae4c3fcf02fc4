//! The client-facing codecs: from bytes and headers to a decided message, and nothing about upstreams.
//! Pure: no I/O, no clock, no configuration beyond limits. Called by the pipeline's decode stage.

pub mod scan;
