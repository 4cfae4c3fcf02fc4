//! Carries out what the machine says over one delta discovery stream at a time: sends, compiles on another thread, swaps, has it kept
//! on disk, reconnects.
//! Decides nothing itself. One task per node, on the control runtime, so that requests never wait for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_gateway::proto::config::v1::{Manifest, Revocation};
use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mcp_gateway::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mcp_gateway::seal::PoolKey;
use mcp_gateway::snapshot::{Problem, Snapshot, Staged, compile};
use mcp_gateway::type_url;
use prost::Message;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::keeper::Keeper;
use super::last_good::Received;
use super::machine::{About, Action, Backoff, Event, Lost, Machine};
use super::revocations::onto;
use super::{Restored, Stats, store};
use crate::live::Live;
use crate::node::uplink::{Uplink, whole};
use crate::node::{BUILD, Identity};

/// Until the control plane must have accepted a stream, or taken what is said on it.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long work in progress may hold up a stop.
const LAST: Duration = Duration::from_secs(5);
/// Most bytes of a response. The control plane stays far below, and never splits a resource of 256 kB.
const MAX_RESPONSE: usize = 16 << 20;
/// Messages that may wait for the connection: the eight first requests, and an answer per response.
const OUTBOUND: usize = 64;

/// Keeps `live` up to date.
pub struct Client {
    pub uplink: Arc<Uplink>,
    pub live: Arc<Live>,
    pub stats: Arc<Stats>,
    /// Where other nodes reach this one, `host:port`; empty: nowhere.
    pub advertise: String,
    /// Where acknowledged revocations lie.
    pub state_dir: PathBuf,
    /// What is in force already.
    pub restored: Restored,
    /// Notified when the node needs keys that it does not hold.
    pub renewal: Arc<Notify>,
}

/// What another thread has done.
enum Done {
    Compiled { ticket: u64, result: Result<Ready, Vec<Problem>>, took: Duration },
    Stored { ticket: u64, result: Result<(), String> },
}

/// A snapshot, and what it was compiled from.
struct Ready {
    snapshot: Arc<Snapshot>,
    received: Received,
}

struct Driver {
    client: Client,
    machine: Machine,
    work: JoinSet<Done>,
    /// Compiled, and waiting for the machine's word.
    ready: Option<(u64, Ready)>,
    /// For the keeper.
    in_force: watch::Sender<Option<Received>>,
    /// For the keeper too.
    endpoints: watch::Sender<Vec<u8>>,
    /// The revocations in force.
    revocation: Option<Revocation>,
    /// The ticket of the newest revocations on disk; held while some are written.
    revoked: Arc<Mutex<u64>>,
}

/// Where requests go; nowhere between two streams.
type Outbound<'a> = Option<&'a mpsc::Sender<DeltaDiscoveryRequest>>;

impl Client {
    /// Runs until `stop`. What was in force stays in force, and is on disk when this returns.
    pub async fn run(self, stop: CancellationToken) {
        let in_force = watch::Sender::new(self.restored.received.clone());
        let (last_good, stats) = (Arc::clone(&self.restored.last_good), Arc::clone(&self.stats));
        let endpoints = watch::Sender::new(Vec::new());
        let keeper = Keeper {
            last_good,
            stats,
            in_force: in_force.subscribe(),
            endpoints: endpoints.subscribe(),
            vault: Arc::clone(&self.restored.vault),
            state_dir: self.state_dir.clone(),
        };
        let mut driver = Driver::new(self, in_force, endpoints);
        let following = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver.run() => {}
            }
            driver.finish().await;
        };
        // The keeper ends when the driver, which tells it what is in force, is gone.
        tokio::join!(following, keeper.run());
    }
}

impl Driver {
    fn new(mut client: Client, in_force: watch::Sender<Option<Received>>, endpoints: watch::Sender<Vec<u8>>) -> Self {
        let identity = Arc::clone(&client.uplink.identity().borrow());
        let (node_id, pool) = (identity.node_id.clone(), identity.pool.clone());
        let about = About { node_id, pool, build: BUILD.to_owned(), advertise: client.advertise.clone() };
        let mut machine = Machine::new(about, Backoff::new(rand::random::<f64>));
        let revocation = client.restored.revocation.take().map(|(revocation, version)| {
            machine.holds_revocation(version);
            revocation
        });
        if let Some(version) = &client.restored.endpoints {
            machine.holds_endpoints(version.clone());
        }
        if let Some(Received { manifest, staged, fallbacks: _ }) = client.restored.received.take() {
            let report = client.live.snapshot().map(|snapshot| snapshot.report()).unwrap_or_default();
            machine.holds(&manifest, staged, report);
        }
        Self { client, machine, work: JoinSet::new(), ready: None, in_force, endpoints, revocation, revoked: Arc::default() }
    }

    async fn run(&mut self) {
        loop {
            let lost = self.session().await;
            self.client.stats.lost();
            let after = self.step(Event::Lost(lost), None).await.unwrap_or_default();
            tracing::debug!("the next discovery stream is opened in {after:?}");
            let due = tokio::time::sleep(after);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    Some(done) = self.work.join_next() => drop(self.done(done, None).await),
                }
            }
        }
    }

    /// What is being written to disk gets there.
    async fn finish(&mut self) {
        let rest = async { while self.work.join_next().await.is_some() {} };
        if timeout(LAST, rest).await.is_err() {
            tracing::warn!("what was being compiled or written did not end within {} s", LAST.as_secs());
        }
    }

    /// One stream, from dialling to its end.
    async fn session(&mut self) -> Lost {
        let uplink = Arc::clone(&self.client.uplink);
        let link = match uplink.link().await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!("no configuration updates: {error}");
                return Lost::Failed;
            }
        };
        let lost = self.converse(AggregatedDiscoveryServiceClient::new(link.channel.clone())).await;
        if lost != Lost::Renewed {
            uplink.discard(&link).await;
        }
        lost
    }

    async fn converse(&mut self, client: AggregatedDiscoveryServiceClient<tonic::transport::Channel>) -> Lost {
        let mut identity = self.client.uplink.identity();
        let manifest_keys = identity.borrow_and_update().manifest_keys.clone();
        let (outbound, requests) = mpsc::channel(OUTBOUND);
        // Said before the call: a server may want to know who asks before it answers at all.
        if self.step(Event::Connected { manifest_keys }, Some(&outbound)).await.is_err() {
            return Lost::Failed;
        }
        let mut client = client.max_decoding_message_size(MAX_RESPONSE);
        let mut responses = match timeout(DEADLINE, client.delta_aggregated_resources(ReceiverStream::new(requests))).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return ended(&status),
            Err(_) => {
                tracing::warn!("the control plane did not accept a discovery stream within {} s", DEADLINE.as_secs());
                return Lost::Failed;
            }
        };
        self.client.stats.opened();
        tracing::info!("discovery stream open");
        loop {
            let carried_out = tokio::select! {
                message = responses.message() => match message {
                    Ok(Some(response)) => self.step(Event::Received(response), Some(&outbound)).await.map(drop),
                    Ok(None) => {
                        tracing::info!("the control plane closed the discovery stream");
                        return Lost::Closed;
                    }
                    Err(status) => return ended(&status),
                },
                Some(done) = self.work.join_next() => self.done(done, Some(&outbound)).await,
                changed = identity.changed() => match changed {
                    Ok(()) => return Lost::Renewed,
                    Err(_) => std::future::pending().await, // nobody renews; the process is about to stop
                },
            };
            if carried_out.is_err() {
                return Lost::Failed;
            }
        }
    }

    /// Feeds the machine and carries out its actions in order. Says when to reconnect, if the machine does.
    async fn step(&mut self, event: Event, outbound: Outbound<'_>) -> Result<Duration, ()> {
        let mut reconnect = Duration::ZERO;
        for action in self.machine.step(event) {
            match action {
                Action::Send(request) => self.send(request, outbound).await?,
                Action::Compile { ticket, manifest, staged } => self.compile(ticket, manifest, staged),
                Action::Swap { ticket } => self.swap(ticket),
                Action::Revoke { ticket, revocation } => self.revoke(ticket, revocation),
                Action::SetEndpoints { endpoints, body } => {
                    self.client.live.set_endpoints(&endpoints);
                    self.endpoints.send_replace(body);
                }
                Action::SetPeers(peers) => self.client.live.set_peers(peers),
                Action::RenewCredentials => self.client.renewal.notify_one(),
                Action::Reconnect { after } => reconnect = after,
            }
        }
        Ok(reconnect)
    }

    async fn done(&mut self, done: Result<Done, JoinError>, outbound: Outbound<'_>) -> Result<(), ()> {
        let event = match done.expect("compiling catches panics, storing has none, and nobody aborts them") {
            Done::Compiled { ticket, result, took } => {
                self.client.stats.compile_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
                let result = result.map(|ready| {
                    let report = ready.snapshot.report();
                    self.ready = Some((ticket, ready));
                    report
                });
                Event::Compiled { ticket, result }
            }
            Done::Stored { ticket, result } => Event::Stored { ticket, result },
        };
        self.step(event, outbound).await.map(drop)
    }

    /// Fails when the connection takes nothing any more.
    async fn send(&mut self, request: DeltaDiscoveryRequest, outbound: Outbound<'_>) -> Result<(), ()> {
        // OK: in force, except for what the swap has told.
        let refused = request.error_detail.as_ref().filter(|status| status.code != 0);
        let is_refused = refused.is_some();
        if let Some(refused) = refused {
            self.client.stats.nacks.fetch_add(1, Relaxed);
            tracing::error!(
                xds.type_url = %request.type_url, xds.nonce = %request.response_nonce, xds.code = refused.code,
                "refused configuration, the last good one stays in force: {}", refused.message
            );
        }
        let Some(outbound) = outbound else { return Ok(()) };
        if request.type_url == type_url::MANIFEST && !request.response_nonce.is_empty() {
            let stats = &self.client.stats;
            if is_refused { stats.unconfirmed() } else { stats.confirmed() }
        }
        timeout(DEADLINE, outbound.send(request)).await.map_err(drop)?.map_err(drop)
    }

    fn compile(&mut self, ticket: u64, manifest: Box<Manifest>, staged: Arc<Staged>) {
        let identity: Arc<Identity> = Arc::clone(&self.client.uplink.identity().borrow());
        let previous = self.client.live.snapshot();
        self.work.spawn_blocking(move || {
            let start = Instant::now();
            let pool_keys: &BTreeMap<String, PoolKey> = &identity.pool_keys;
            // A panic is a defect of ours, and must leave the node where it is: serving, and able to take the next version.
            let result = catch_unwind(AssertUnwindSafe(|| compile(&manifest, &staged, pool_keys, previous.as_deref())));
            let result = result.unwrap_or_else(|_| Err(Vec::new()));
            let result = result.map(|snapshot| {
                let received = Received { manifest: *manifest, staged, fallbacks: snapshot.fallbacks() };
                Ready { snapshot: Arc::new(snapshot), received }
            });
            Done::Compiled { ticket, result, took: start.elapsed() }
        });
    }

    fn swap(&mut self, ticket: u64) {
        let Some((_, Ready { snapshot, received })) = self.ready.take_if(|(ready, _)| *ready == ticket) else {
            return tracing::error!("swap {ticket} was asked for, but nothing is ready");
        };
        let (version, report) = (snapshot.version(), snapshot.report());
        self.client.live.swap(snapshot);
        self.client.stats.swapped(version);
        self.in_force.send_replace(Some(received));
        tracing::info!(config.epoch = version.epoch, config.version = version.version, "configuration {version} is in force");
        for problem in report {
            tracing::error!(config.epoch = version.epoch, config.version = version.version, "not in force of it: {problem}");
        }
    }

    /// In force first, on disk second: the second may be slow.
    fn revoke(&mut self, ticket: u64, received: Revocation) {
        let revocation = onto(self.revocation.as_ref(), received);
        self.client.live.revoke(&revocation);
        let body = revocation.encode_to_vec();
        self.revocation = Some(revocation);
        let (vault, dir) = (Arc::clone(&self.client.restored.vault), self.client.state_dir.clone());
        let revoked = Arc::clone(&self.revoked);
        self.work.spawn_blocking(move || {
            let mut newest = revoked.lock().unwrap_or_else(PoisonError::into_inner);
            // Threads may come in any order, and an older set must not replace a newer one.
            let result = if ticket < *newest { Ok(()) } else { store::save(&vault, &dir, store::REVOCATIONS, &body) };
            *newest = if result.is_ok() { ticket.max(*newest) } else { *newest };
            drop(newest);
            let result = result.map_err(|error| error.to_string());
            Done::Stored { ticket, result }
        });
    }
}

#[cfg(test)]
mod tests;

fn ended(status: &Status) -> Lost {
    if status.code() == Code::FailedPrecondition {
        tracing::info!("the control plane wants to know all that is held: {}", status.message());
        return Lost::Unknown;
    }
    if status.code() != Code::ResourceExhausted {
        tracing::warn!("the discovery stream failed: {}", whole(status));
        return Lost::Failed;
    }
    tracing::info!("the control plane is busy: {}", status.message());
    Lost::Busy { retry_after: status.get_details_retry_info().and_then(|retry| retry.retry_delay) }
}
