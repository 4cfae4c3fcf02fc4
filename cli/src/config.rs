//! Where the command line keeps its files. The only module that reads the environment itself (flags with an
//! environment variable of their own are read by clap). Never creates anything.

#![allow(clippy::disallowed_methods)] // this is the config.rs that the lint points to

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A variable that somebody else named.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `$MCPGW_CONFIG_DIR`, else `mcpgw` in the XDG configuration directory.
pub fn config_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = variable("MCPGW_CONFIG_DIR") {
        return Ok(dir.into());
    }
    xdg("XDG_CONFIG_HOME", ".config")
        .context("set MCPGW_CONFIG_DIR, XDG_CONFIG_HOME or HOME: there is no place for the saved login")
}

/// Where standalone keeps its data: `mcpgw` in the XDG state directory. For root `/var/lib/mcpgw`, because
/// Postgres runs as another user there and has to reach it.
pub fn state_dir() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/mcpgw".into());
    }
    xdg("XDG_STATE_HOME", ".local/state").context("set --data-dir, XDG_STATE_HOME or HOME: there is no place for the data")
}

/// A per-user directory for sockets, if the system has one.
pub fn runtime_dir() -> Option<PathBuf> {
    variable("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// The directories of `PATH`.
pub fn path() -> Vec<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// Which log lines to show, as a `tracing` filter. Not `MCPGW_LOG`, which is a setting of the planes.
pub fn log_filter() -> String {
    variable("MCPGW_CLI_LOG").and_then(|it| it.into_string().ok()).unwrap_or_else(|| "warn,mcpgw=info".to_owned())
}

fn xdg(name: &str, below_home: &str) -> Option<PathBuf> {
    let base = variable(name)
        .map(PathBuf::from)
        // The XDG specification: relative paths are to be ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(below_home)))?;
    Some(base.join("mcpgw"))
}
