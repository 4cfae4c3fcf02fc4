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

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    /// The path of every message, field, enum value, service and method of a file, as source locations name them.
    fn documented_paths(file: &prost_types::FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
        let mut paths = Vec::new();
        for (index, message) in (0..).zip(&file.message_type) {
            message_paths(vec![4, index], message, &mut paths);
        }
        for (index, item) in (0..).zip(&file.enum_type) {
            paths.push((vec![5, index], item.name().to_owned()));
            paths.extend((0..).zip(&item.value).map(|(value, it)| (vec![5, index, 2, value], it.name().to_owned())));
        }
        for (index, service) in (0..).zip(&file.service) {
            paths.push((vec![6, index], service.name().to_owned()));
            paths.extend((0..).zip(&service.method).map(|(method, it)| (vec![6, index, 2, method], it.name().to_owned())));
        }
        paths
    }

    fn message_paths(path: Vec<i32>, message: &DescriptorProto, paths: &mut Vec<(Vec<i32>, String)>) {
        let below = |kind: i32, index: i32| [path.as_slice(), &[kind, index]].concat();
        paths.extend(
            (0..).zip(&message.field).map(|(index, field)| (below(2, index), format!("{}.{}", message.name(), field.name()))),
        );
        for (index, nested) in (0..).zip(&message.nested_type) {
            if !nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
                message_paths(below(3, index), nested, paths);
            }
        }
        paths.push((path, message.name().to_owned()));
    }

    #[test]
    fn every_message_field_and_method_says_what_it_is() {
        let set = FileDescriptorSet::decode(super::DESCRIPTORS).expect("the build script wrote it");
        let ours = set.file.iter().filter(|file| !file.package().starts_with("google.protobuf"));
        let mut undocumented = Vec::new();
        for file in ours {
            let info = file.source_code_info.as_ref().expect("comments are included");
            for (path, name) in documented_paths(file) {
                let said = info.location.iter().any(|place| place.path == path && !place.leading_comments().trim().is_empty());
                if !said {
                    undocumented.push(format!("{}: {name}", file.name()));
                }
            }
        }
        assert!(undocumented.is_empty(), "without a comment: {undocumented:#?}");
    }
}
