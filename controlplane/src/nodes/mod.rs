//! The fleet: who a node is, how it joins, what it runs, and the listener that all of it is served on.
//!
//! Never decides what a configuration is, nor what of it is sent. Called by `app`; the machine of a stream is in [`crate::xds`].

#[cfg(any(test, feature = "testing"))]
pub mod client;
pub mod enrol;
pub mod fleet;
pub mod identity;
pub mod listener;
pub mod pace;
pub mod peer;
pub mod recover;
pub mod service;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mcp_gateway::proto::{
    envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    node::v1::{enrollment_service_server::EnrollmentServiceServer, node_service_server::NodeServiceServer},
};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tracing::error;

use crate::{app::Core, ingest::Ingest, tasks::OnExit, xds::server::Discovery};
use enrol::Enrolment;
use fleet::Fleet;

/// A node that is silent for this long is asked, and given this long to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams and calls that one node may have open at once.
const STREAMS_PER_NODE: u32 = 64;
/// The largest request for enrolment: a certificate request and two keys.
const MAX_ENROLMENT: usize = 64 * 1024;
/// The largest run of frames, with room for what is around it.
const MAX_SHIPMENT: usize = 2 * 1024 * 1024;

/// Serves nodes until the app stops. Database and keys have been reached.
pub fn spawn(core: &Core, listener: TcpListener) -> Result<(), crate::app::Error> {
    let failed = |error: listener::Error| crate::app::Error::Start(error.to_string());
    let keys = core.custody.keys()?;
    let incoming = listener::accept(core, &keys, listener).map_err(failed)?;
    let fleet = Fleet::new(core.overview.replica().to_owned());
    core.tasks.spawn("fleet-status", OnExit::Stop, fleet.clone().write(core.store.clone(), core.tasks.clone()));
    let service = service::Service { core: core.clone(), ingest: Ingest::new(core) };
    let discovery = Discovery::new(core.clone(), fleet);
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_PER_NODE)
        .add_service(EnrollmentServiceServer::new(Enrolment::new(core.clone())).max_decoding_message_size(MAX_ENROLMENT))
        .add_service(NodeServiceServer::new(service).max_decoding_message_size(MAX_SHIPMENT))
        .add_service(AggregatedDiscoveryServiceServer::new(discovery));
    let stop = core.tasks.stop_token().clone();
    core.tasks.spawn("node-listener", OnExit::Stop, async move {
        if let Err(cause) = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            error!(%cause, "the node listener failed");
        }
    });
    Ok(())
}
