//! The way to the control plane: one shared connection over mutual TLS, to whichever replica answers.
//! Owns dialling and whom to trust. What is said over the connection is for discovery, shipping, renewal and status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::identity::Identity;
use super::pin::PinVerifier;

/// Until a replica must have answered the handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How often a silent connection is tried, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// What a whole response may need in flight without waiting for the window (a response has about 1 MiB).
const WINDOW: u32 = 4 << 20;

/// Where the control plane is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replicas {
    /// `https://host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// The name that the server's certificate must carry; `None`: the endpoint's host.
    pub server_name: Option<String>,
}

/// Why the control plane was not reached.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error("no control plane endpoint is configured; set control_plane.endpoints")]
    NoEndpoint,
    #[error("control plane endpoint {endpoint:?} is not an https URL")]
    Endpoint { endpoint: String },
    #[error("no control plane could be reached: {}", failures.join("; "))]
    Unreachable { failures: Vec<String> },
}

/// A connection that several users share.
#[derive(Debug, Clone)]
pub struct Link {
    pub channel: Channel,
    number: u64,
}

/// Dials with the identity that is current at that moment.
pub struct Uplink {
    replicas: Replicas,
    identity: watch::Receiver<Arc<Identity>>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    link: Option<(Link, Arc<Identity>)>,
    /// Which replica to try first.
    turn: usize,
    dialled: u64,
}

impl Uplink {
    /// `first` is the replica to begin with (any number): a fleet should not begin with the same one.
    pub fn new(replicas: Replicas, identity: watch::Receiver<Arc<Identity>>, first: usize) -> Self {
        Self { replicas, identity, shared: Mutex::new(Shared { turn: first, ..Shared::default() }) }
    }

    /// Where the control plane is.
    #[must_use]
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// The identity in use and its changes.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.clone()
    }

    /// The shared connection. Dials if there is none, or only one that was made with an older identity; each replica once.
    pub async fn link(&self) -> Result<Link, UplinkError> {
        let mut shared = self.shared.lock().await;
        let identity = Arc::clone(&self.identity.borrow());
        if let Some((link, made_with)) = &shared.link
            && Arc::ptr_eq(made_with, &identity)
        {
            return Ok(link.clone());
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&identity.ca_pem))
            .identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, identity.private_key_pem()));
        let turn = shared.turn;
        let (channel, replica) =
            dial(&self.replicas, turn, |endpoint, name| endpoint.tls_config(named(tls.clone(), name))).await?;
        shared.turn = replica;
        shared.dialled += 1;
        let link = Link { channel, number: shared.dialled };
        shared.link = Some((link.clone(), identity));
        Ok(link)
    }

    /// Says that a connection does not work: the next [`Uplink::link`] dials, beginning with the next replica.
    pub async fn discard(&self, broken: &Link) {
        let mut shared = self.shared.lock().await;
        if shared.link.as_ref().is_some_and(|(link, _)| link.number == broken.number) {
            shared.link = None;
            shared.turn = shared.turn.wrapping_add(1);
        }
    }
}

/// Dials a control plane that only a join token's pin vouches for.
pub(super) async fn dial_pinned(replicas: &Replicas, pin: [u8; 32]) -> Result<Channel, UplinkError> {
    let verifier = Arc::new(PinVerifier::new(pin));
    let secure = |endpoint: Endpoint, name: Option<&str>| {
        endpoint.tls_config_with_verifier(named(ClientTlsConfig::new(), name), Arc::clone(&verifier) as _)
    };
    dial(replicas, 0, secure).await.map(|(channel, _)| channel)
}

/// Dials a control plane that a known authority vouches for, without showing a certificate.
pub(super) async fn dial_known(replicas: &Replicas, ca_pem: &str) -> Result<Channel, UplinkError> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
    let turn = usize::from(rand::random::<u16>()); // a fleet that comes back should not come to one replica
    dial(replicas, turn, |endpoint, name| endpoint.tls_config(named(tls.clone(), name))).await.map(|(channel, _)| channel)
}

fn named(tls: ClientTlsConfig, name: Option<&str>) -> ClientTlsConfig {
    match name {
        Some(name) => tls.domain_name(name),
        None => tls,
    }
}

/// The first replica that answers, and which one it was.
async fn dial(
    replicas: &Replicas,
    turn: usize,
    secure: impl Fn(Endpoint, Option<&str>) -> Result<Endpoint, tonic::transport::Error>,
) -> Result<(Channel, usize), UplinkError> {
    let count = replicas.endpoints.len();
    if count == 0 {
        return Err(UplinkError::NoEndpoint);
    }
    let mut failures = Vec::new();
    for replica in (0..count).map(|step| turn.wrapping_add(step) % count) {
        let text = &replicas.endpoints[replica];
        let invalid = |_: tonic::transport::Error| UplinkError::Endpoint { endpoint: text.clone() };
        let endpoint = Endpoint::from_shared(text.clone()).map_err(invalid)?;
        if endpoint.uri().scheme_str() != Some("https") {
            return Err(UplinkError::Endpoint { endpoint: text.clone() });
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let endpoint = secure(endpoint, replicas.server_name.as_deref());
        let connected = match endpoint {
            // The handshake counts too, not only the connection.
            Ok(endpoint) => tokio::time::timeout(CONNECT_DEADLINE, endpoint.connect()).await,
            Err(error) => Ok(Err(error)),
        };
        match connected {
            Ok(Ok(channel)) => return Ok((channel, replica)),
            Ok(Err(error)) => failures.push(format!("{text}: {}", whole(&error))),
            Err(_) => failures.push(format!("{text}: no answer within {} s", CONNECT_DEADLINE.as_secs())),
        }
    }
    Err(UplinkError::Unreachable { failures })
}

/// An error with its causes: tonic alone only says "transport error".
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}
