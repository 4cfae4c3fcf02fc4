//! Programs that the build put beside this one, for tests that need a process of its own: one that can be killed, or measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use mcpgw_dataplane::testing::own_port;

/// Where a program of the workspace is: beside this one, or, for a test, one directory up.
pub fn beside(program: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(program)).find(|program| program.exists());
    found.with_context(|| format!("no {program} beside {}: run `make build`", own.display()))
}

/// Loopback addresses, all different, of this process's until it ends: for processes that keep theirs when they are started again.
#[must_use]
pub fn own_addresses<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| (Ipv4Addr::LOCALHOST, own_port()).into())
}
