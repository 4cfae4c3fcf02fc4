//! One request, from head to end of answer. The order of the stages is written once, in [`Pipeline::run`].
//!
//! Each stage consumes the proof of the one before and is the only maker of its own: what has not been authorized
//! cannot be routed, what has not been routed cannot be sent.

pub mod authenticate;
pub mod authorize;
pub mod decode;
pub mod denial;
mod failures;
pub mod limit;
pub(crate) mod reply;
pub mod route;
mod status;
pub mod target;
#[cfg(test)]
mod tests;
pub mod trail;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use mcp_gateway::proto::config::v1::Transport;
use mcp_gateway::snapshot::Snapshot;
use uuid::Uuid;

use crate::bridge::legacy_client::Known;
use crate::bridge::{self, Plan};
use crate::children::Children;
use crate::config::Config;
use crate::limits::Limits;
use crate::listener::Handler;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::operate;
use crate::owned::{self, Sessions};
use crate::peers::{Forward, Peers};
use crate::relay::{self, Body};
use crate::transport::scan;
use crate::upstream::link::{Found, Hubs, Reach};
use crate::upstream::{Findings, Upstreams};

use authenticate::ticket::{self, Tickets};
use authenticate::{Authenticated, Principal, Tokens, Verifier};
use decode::Decoded;
use denial::{AuthenticateDenial, Denial, LimitDenial, RouteDenial, TargetDenial};
use failures::Failures;
use limit::Limiter;
use target::{Doors, Place, Upgrade};
use trail::{Recorder, Stage, Trail};

pub use reply::{Answer, Reply};

/// Everything that requests share.
pub struct Pipeline {
    live: Arc<Live>,
    doors: Doors,
    verifier: Verifier,
    failures: Failures,
    limiter: Limiter,
    upstreams: Upstreams,
    relay: relay::Settings,
    sessions: Arc<Sessions>,
    peers: Peers,
    recorder: Recorder,
    config: Arc<Config>,
}

impl Pipeline {
    pub fn new(
        config: Arc<Config>,
        live: Arc<Live>,
        recorder: Recorder,
        (upstreams, peers): (Upstreams, Peers),
        around: relay::Surroundings,
    ) -> Self {
        let limits = Arc::new(Limits::open(&config, recorder.metrics.limits.clone()));
        let sessions = Sessions::new(owned::Surroundings {
            live: live.clone(),
            metrics: recorder.metrics.clone(),
            reach: Reach {
                hubs: Hubs::default(),
                mirrors: Known::default(),
                eras: Found::default(),
                upstreams: upstreams.clone(),
                tasks: around.tasks.clone(),
                children: around.children.clone(),
            },
            draining: around.draining.clone(),
            timeouts: config.timeouts.clone(),
            limits: config.limits.clone(),
            sessions: config.sessions.clone(),
            transports: config.transports.clone(),
        });
        let tokens = Tokens::new(config.limits.verified_tokens, config.public_url.clone());
        Self {
            doors: Doors::new(&config),
            verifier: Verifier::new(tokens, recorder.metrics.clone()),
            failures: Failures::new(config.limits.failures_per_address),
            limiter: Limiter::new(&config.limits, limits, recorder.metrics.clone()),
            relay: relay::Settings::new(&config, live.clone(), recorder.metrics.clone(), upstreams.clone(), around),
            sessions,
            peers,
            recorder,
            live,
            upstreams,
            config,
        }
    }

    /// The stages, in order. What fails says why; what succeeds is an answer that may still be flowing.
    async fn run(self: &Arc<Self>, request: Request<Incoming>, trail: &mut Trail) -> Result<Reply, Denial> {
        let config = self.live.snapshot().ok_or(TargetDenial::NotReady)?;
        let revocations = self.live.revocations();
        let mut call = target::resolve(request, &config, &self.doors, trail)?;
        self.admit_credential(call.headers(), trail)?;
        trail.mark(Stage::Target);
        let mut upgrade = call.take_upgrade();
        let call = decode::read(call, &self.config.limits, &self.config.timeouts, trail).await?;
        trail.mark(Stage::Decode);
        if let Some(reply) = self.elsewhere(&call, &mut upgrade, trail).await? {
            return Ok(reply);
        }
        let call = authenticate::verify(call, &self.verifier, &config, &revocations)?;
        trail.principal(call.principal());
        trail.mark(Stage::Authenticate);
        self.carry(call, upgrade, &config, trail).await
    }

    /// The stages after authentication.
    pub(crate) async fn carry(
        self: &Arc<Self>,
        call: Authenticated,
        upgrade: Option<Upgrade>,
        config: &Snapshot,
        trail: &mut Trail,
    ) -> Result<Reply, Denial> {
        match self.way_across(&call, config).await? {
            Plan::Forward => {}
            Plan::Relay => return Box::pin(relay::sessions::run(self, call, upgrade, config, trail)).await,
            Plan::Exchange => return Box::pin(relay::sessions::modern::run(self, call, config, trail)).await,
        }
        if call.call().is_batch() {
            return relay::batch::run(self, call, config, trail).await;
        }
        let call = authorize::judge(call, trail)?;
        trail.mark(Stage::Authorize);
        let call = limit::admit(call, &self.limiter, trail).await?;
        trail.mark(Stage::Limit);
        let call = route::resolve(call, config, &self.live.drained())?;
        trail.mark(Stage::Route);
        trail.decided(&call).await?;
        let reply = self.upstreams.send(&call, trail).await?;
        relay::answer(call, reply, config, &self.relay, trail).await
    }

    /// A socket whose ticket another node keeps is that node's to open: everything passes through to there.
    async fn elsewhere(&self, call: &Decoded, upgrade: &mut Option<Upgrade>, trail: &mut Trail) -> Result<Option<Reply>, Denial> {
        let keeper = call.ticket().and_then(ticket::keeper).filter(|node| **node != **self.live.node());
        let (Some(node), Some(ticket)) = (keeper, call.ticket()) else { return Ok(None) };
        let Place::Server { server, .. } = call.place() else { return Ok(None) };
        let upgrade = upgrade.take().ok_or(AuthenticateDenial::Ticket)?;
        let request = Forward {
            method: call.http_method().clone(),
            path: format!("/servers/{}/ws?ticket={ticket}", server.id),
            headers: call.headers().clone(),
            body: Bytes::new(),
            address: trail.address(),
            request_id: trail.id(),
        };
        let opened = self.peers.forward(node, request).await.map_err(|error| {
            tracing::info!(%error, "the node that keeps a ticket cannot be reached");
            AuthenticateDenial::Ticket
        })?;
        trail.forget();
        Ok(Some(relay::sessions::pass_through(opened, upgrade, self.relay.tasks())))
    }

    /// How the call gets across to its server.
    async fn way_across(&self, call: &Authenticated, config: &Snapshot) -> Result<Plan, RouteDenial> {
        let (server, client) = (call.server(), call.call().era());
        let (transport, eras) = match (self.upstreams.known_transport(server), self.upstreams.known_eras(server)) {
            (Some(transport), Some(eras)) => (transport, Some(eras)),
            (Some(transport), None) if !matches!(transport, Transport::StreamableHttp | Transport::JsonRpc) => (transport, None),
            (Some(_) | None, _) => {
                let place = route::place(server, config, &self.live.drained())?;
                self.upstreams.found_out(server, &place.url, place.credential.as_ref()).await
            }
        };
        // A server that cannot be asked is spoken to as the client speaks, and says itself what is wrong.
        Ok(bridge::plan(call.call(), transport, eras.map_or(client, |eras| eras.to(client))))
    }

    /// Whether a request may offer what it offers: after too many failures of its address nothing new is looked at.
    fn admit_credential(&self, headers: &HeaderMap, trail: &Trail) -> Result<(), LimitDenial> {
        self.failures.admit(trail.address(), || self.verifier.has_proved(headers))
    }

    /// Refusals, as they count against whoever caused them.
    pub(crate) fn counted(&self, denial: Denial, trail: &Trail) -> Denial {
        self.failures.count(denial, trail)
    }

    /// The page of `/metrics`.
    pub fn metrics_page(&self) -> String {
        self.recorder.metrics.page(&self.live, &self.recorder.spool, self.verifier.remembered())
    }

    /// Where records are written.
    pub(crate) fn spool(&self) -> Arc<crate::audit::Spool> {
        self.recorder.spool.clone()
    }

    /// What is counted against limits.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        self.limiter.limits()
    }

    /// Who asks for something that is about no server.
    pub(crate) fn recognise<B>(&self, request: &Request<B>, config: &Snapshot, trail: &Trail) -> Result<Arc<Principal>, Denial> {
        self.doors.check(request.uri(), request.headers(), config)?;
        self.admit_credential(request.headers(), trail)?;
        let principal = self.verifier.recognise(request.headers(), None, config, &self.live.revocations())?;
        Ok(principal.ok_or(AuthenticateDenial::Missing)?)
    }

    /// Answers a question of another node's.
    pub(crate) async fn answer_node(self: &Arc<Self>, path: &str, request: Request<Incoming>) -> Response<Body> {
        let mut response = Response::new(Body::whole(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let body = Limited::new(request.into_body(), 8 << 20).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        match operate::between_nodes(self, path, &body).await {
            Ok(Some(told)) => *response.body_mut() = told,
            Ok(None) => return response,
            Err(error) => {
                tracing::warn!(%error, "another node asks what this one does not understand");
                return response;
            }
        }
        *response.status_mut() = StatusCode::OK;
        response
    }

    /// What lets sockets in without headers.
    pub(crate) fn tickets(&self) -> &Tickets {
        self.verifier.tickets()
    }

    /// What was found out about servers.
    pub(crate) fn findings(&self) -> Findings {
        Findings::new(self.upstreams.clone(), self.sessions.reach().eras.clone())
    }

    /// Sessions that live in this node.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Servers that are processes of this node.
    pub(crate) fn children(&self) -> &Children {
        self.relay.children()
    }

    /// The other nodes of the pool.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        self.recorder.metrics.clone()
    }

    /// What one message to this place may have.
    pub(crate) fn scan_limits(&self, place: &Place) -> scan::Limits {
        let limits = &self.config.limits;
        scan::Limits { bytes: place.max_body_bytes(limits), depth: limits.json_depth, batch: limits.batch_messages }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    pub(crate) fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    pub(crate) fn relay(&self) -> &relay::Settings {
        &self.relay
    }
}

impl Handler for Pipeline {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let address = self.doors.client_address(request.headers(), peer.ip());
        self.forwarded(request, address, Uuid::now_v7()).await
    }
}

impl Pipeline {
    /// Answers a request from `address`, whoever took it from there.
    pub(crate) async fn forwarded(
        self: Arc<Self>,
        request: Request<Incoming>,
        address: IpAddr,
        request_id: Uuid,
    ) -> Response<Body> {
        let origin = self.doors.allowed_origin(&request, self.live.snapshot().as_deref());
        // A question of the browser, not a call: answered without a record.
        if let Some(preflight) = self.doors.preflight(&request, origin.as_ref()) {
            return reply::named(preflight, request_id);
        }
        let mut trail = Trail::open(self.recorder.clone(), request_id, address);
        let work = async {
            if let Some(order) = operate::Order::of(request.uri().path(), request.method()) {
                let order = order.map_err(|allow| TargetDenial::Method { allow })?;
                return Box::pin(operate::run(&self, order, request, &mut trail)).await;
            }
            if let Some(answer) = status::answer(&self, &request, &mut trail).await {
                return answer;
            }
            self.run(request, &mut trail).await
        };
        let outcome = caught(work, &self.recorder.metrics, request_id).await;
        let outcome = outcome.map_err(|denial| self.counted(denial, &trail));
        reply::finish(outcome, trail, request_id, origin).await
    }
}

/// What `work` comes to; a panic in it is a refusal like any other. Boxed, so that the connection's future does not
/// carry the largest stage.
async fn caught(
    work: impl Future<Output = Result<Reply, Denial>> + Send,
    metrics: &Metrics,
    request_id: Uuid,
) -> Result<Reply, Denial> {
    AssertUnwindSafe(Box::pin(work)).catch_unwind().await.unwrap_or_else(|_panic| {
        metrics.panics.inc();
        tracing::error!(request_id = %request_id, "a request panicked");
        Err(Denial::Panicked)
    })
}
