//! The admin API over gRPC: one noun per file. What every call meets first is here and in `roles`.

use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use tracing::error;

use crate::{
    app::{Core, Error},
    tasks::OnExit,
};

/// Serves until the app stops.
pub fn spawn(core: &Core, listener: TcpListener) -> Result<(), Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(mcp_gateway::proto::DESCRIPTORS)
        .build_v1()
        .map_err(|e| Error::Start(format!("the descriptor set: {e}")))?;
    let router = Server::builder().add_service(reflection);
    let stop = core.tasks.stop_token().clone();
    core.tasks.spawn("admin", OnExit::Stop, async move {
        if let Err(cause) = router.serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.cancelled_owned()).await {
            error!(%cause, "the admin listener failed");
        }
    });
    Ok(())
}
