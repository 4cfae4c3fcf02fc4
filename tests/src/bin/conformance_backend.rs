//! `mcpgw-conformance-backend`: the MCP server that the conformance suite and the end-to-end tests put
//! behind the gateway. Prints `{"listening":URL}` and serves until it is told to stop.

use std::net::SocketAddr;

use clap::Parser;

/// An MCP server of both eras with every fixture of the official conformance suite.
#[derive(Parser)]
struct Options {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    mcpgw_tests::backend::Backend::start(options.listen).await?.into_served().announce_and_run().await
}
