//! Programs that the build put beside this one, for tests that need a process of its own: one that can be killed, or measured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;

/// Where a program of the workspace is: beside this one, or, for a test, one directory up.
pub fn beside(program: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(program)).find(|program| program.exists());
    found.with_context(|| format!("no {program} beside {}: run `make build`", own.display()))
}

/// Loopback addresses that were free a moment ago, all different: for processes that keep theirs when they are started again.
pub fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().ok().context("as many as were bound")
}
