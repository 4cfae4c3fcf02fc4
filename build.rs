//! Compiles `proto/` with protox (nothing to install) and leaves the descriptor set for gRPC reflection and the CLI.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: &[&str] = &[
    "envoy/service/discovery/v3/discovery.proto",
    "mcpgw/config/v1/config.proto",
    "mcpgw/node/v1/node.proto",
    "mcpgw/admin/v1/api_keys.proto",
    "mcpgw/admin/v1/auth.proto",
    "mcpgw/admin/v1/config_diff.proto",
    "mcpgw/admin/v1/config_status.proto",
    "mcpgw/admin/v1/config_versions.proto",
    "mcpgw/admin/v1/custody.proto",
    "mcpgw/admin/v1/documents.proto",
    "mcpgw/admin/v1/evidence.proto",
    "mcpgw/admin/v1/join_tokens.proto",
    "mcpgw/admin/v1/logs.proto",
    "mcpgw/admin/v1/memberships.proto",
    "mcpgw/admin/v1/nodes.proto",
    "mcpgw/admin/v1/organizations.proto",
    "mcpgw/admin/v1/policies.proto",
    "mcpgw/admin/v1/rate_limits.proto",
    "mcpgw/admin/v1/rollouts.proto",
    "mcpgw/admin/v1/servers.proto",
    "mcpgw/admin/v1/stats.proto",
    "mcpgw/admin/v1/users.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;

    let out = PathBuf::from(output_directory()?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = prost_build::Config::new();
    config.enable_type_names().btree_map(["."]).bytes([".mcpgw.config.v1", ".mcpgw.node.v1", ".envoy"]);
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

#[allow(clippy::disallowed_methods)] // cargo passes the output directory to build scripts by environment only
fn output_directory() -> Result<String, env::VarError> {
    env::var("OUT_DIR")
}
