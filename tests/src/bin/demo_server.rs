//! `mcpgw-demo-server`: a small friendly MCP server to try the gateway with. Prints `{"listening":URL}` and
//! serves until it is told to stop.

use std::net::SocketAddr;

use clap::Parser;

/// A small MCP server of both eras: tools add, echo and now, a resource and a prompt.
#[derive(Parser)]
struct Options {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    mcpgw_tests::demo::start(options.listen).await?.announce_and_run().await
}
