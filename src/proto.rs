//! Types generated from `proto/`. Edit the `.proto` files, never these.
#![allow(clippy::all, clippy::wildcard_imports, clippy::too_many_lines, clippy::large_futures, missing_docs)] // generated code

/// Every message and service, as an encoded `google.protobuf.FileDescriptorSet` with comments; for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! generated {
    ($package:literal) => {
        tonic::include_proto!($package);
    };
}

pub mod config {
    pub mod v1 {
        generated!("mcpgw.config.v1");
    }
}

pub mod node {
    pub mod v1 {
        generated!("mcpgw.node.v1");
    }
}

pub mod admin {
    pub mod v1 {
        generated!("mcpgw.admin.v1");
    }
}

pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                generated!("envoy.config.core.v3");
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                generated!("envoy.service.discovery.v3");
            }
        }
    }
}

pub mod google {
    pub mod rpc {
        generated!("google.rpc");
    }
}
