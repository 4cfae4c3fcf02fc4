//! The delta discovery service on real streams: feeds each stream's [`Machine`] and carries out what it says.
//!
//! Knows sockets, deadlines and certificates; what to send is the machine's to decide. Served on the node listener.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use mcp_gateway::{
    proto::envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, aggregated_discovery_service_server::AggregatedDiscoveryService,
        },
    },
    snapshot::Version,
};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    machine::{self, Action, Event, Fault, Machine, Parties, Refusal},
    metrics::{Ended, Metrics, Refused, Type},
};
use crate::{
    app::Core,
    domain::rules::is_host_port,
    nodes::{
        enrol::busy,
        fleet::{Fleet, Seat},
        identity::Identity,
        pace::Pace,
        peer,
    },
    publish::Published,
    tasks::OnExit,
};

/// Streams that may begin per second. A fleet that comes back all at once is spread over time.
const PER_SECOND: u32 = 100;
/// Responses that wait for the transport; a response is encoded only when there is room.
const ROOM: usize = 2;
/// A node that reads nothing for this long is not there.
const SLOW: Duration = Duration::from_secs(300);
/// Streams end after about this long, so that a fleet spreads over the replicas again and certificates are looked at anew.
const AGE: Duration = Duration::from_secs(30 * 60);
/// Versions on their way to a node whose journey is timed.
const MAX_OFFERED: usize = 256;
/// Lines of a refusal that are kept.
const MAX_PROBLEMS: usize = 32;
/// Bytes of such a line.
const MAX_PROBLEM: usize = 500;

/// AggregatedDiscoveryService.
#[derive(Debug)]
pub struct Discovery {
    core: Core,
    fleet: Fleet,
    pace: Pace,
    metrics: Metrics,
}

/// One open stream.
struct Stream {
    core: Core,
    identity: Identity,
    metrics: Metrics,
    machine: Machine,
    seat: Seat,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    published: watch::Receiver<Option<Arc<Published>>>,
    /// The newest version that the node said it runs.
    runs: Version,
    /// What is told of a node that runs something newer than the database holds.
    ahead: Option<String>,
    /// Until when something that waits for room must have found it.
    deadline: Option<tokio::time::Instant>,
    /// Versions that were committed since the stream began and are not applied yet, with the moment of the commit.
    offered: VecDeque<(Version, DateTime<Utc>)>,
    opened_at: DateTime<Utc>,
}

/// How a stream ends: for which reason, as its metric has it, and with which status. Without one: in good order, the node comes back.
struct End(&'static str, Option<Status>);

impl End {
    fn done(reason: &'static str) -> Self {
        Self(reason, None)
    }

    fn with(reason: &'static str, status: Status) -> Self {
        Self(reason, Some(status))
    }
}

impl Discovery {
    pub fn new(core: Core, fleet: Fleet) -> Self {
        let metrics = Metrics::register(&core.metrics);
        Self { core, fleet, pace: Pace::new(PER_SECOND, Instant::now()), metrics }
    }

    async fn open(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Response<Answers>, Status> {
        let identity = peer::identity(&self.core, &request)?;
        self.pace.admit(Instant::now()).map_err(|after| {
            self.metrics.turned_away.inc();
            busy("discovery streams", after)
        })?;
        let mut published = self.core.publications.watch();
        // Nothing loaded is no empty configuration: nobody is told anything yet.
        let now = published.borrow_and_update().clone();
        let now = now.ok_or_else(|| Status::unavailable("nothing is published yet: the configuration is being read"))?;
        peer::refuse_unknown(&self.core, &identity).await?;
        let (Some(scope), Some(beside)) = (now.scope(&identity.pool, identity.node_id), now.beside.get(&identity.pool)) else {
            self.core.publications.wake();
            // Held without anything older to send is no empty configuration either.
            let why = now.holds.get(&identity.pool).map_or("not published yet", |_| "held: rows vanished from the database");
            return Err(Status::unavailable(format!("pool {} is {why}", identity.pool)));
        };
        let parties = Parties {
            node_id: identity.node_id.to_string(),
            pool: identity.pool.clone(),
            replica: self.fleet.replica().to_owned(),
            stream: Uuid::now_v7().simple().to_string(),
        };
        let machine = Machine::new(parties, Arc::clone(scope), Arc::clone(beside));
        let (responses, answers) = mpsc::channel(ROOM);
        let stream = Stream {
            core: self.core.clone(),
            seat: self.fleet.seat(identity.node_id),
            identity,
            metrics: self.metrics.clone(),
            machine,
            requests: request.into_inner(),
            responses,
            published,
            runs: Version::default(),
            ahead: None,
            deadline: None,
            offered: VecDeque::new(),
            opened_at: Utc::now(),
        };
        self.core.tasks.spawn("discovery-stream", OnExit::Ignore, stream.run());
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

type Answers = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = Answers;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.open(request).await
    }
}

impl Stream {
    async fn run(mut self) {
        let node = self.identity.node_id;
        info!(node.id = %node, pool = self.identity.pool, "node {node} opened a discovery stream");
        self.metrics.streams.inc();
        self.metrics.opened.inc();
        let End(reason, status) = self.serve().await;
        self.metrics.streams.dec();
        self.metrics.ended.get_or_create(&Ended { reason }).inc();
        match status {
            None => info!(node.id = %node, reason, "the discovery stream of node {node} ended"),
            Some(status) => {
                warn!(node.id = %node, code = ?status.code(), "the discovery stream of node {node} ends: {}", status.message());
                // Without room the node does not read: it learns of the end by the end.
                let _ = self.responses.try_send(Err(status));
            }
        }
    }

    async fn serve(&mut self) -> End {
        let (stop, responses) = (self.core.tasks.stop_token().clone(), self.responses.clone());
        let age = tokio::time::sleep(AGE.mul_f64(rand::random_range(0.9..1.1)));
        tokio::pin!(age);
        loop {
            let waits = self.deadline;
            let late = async {
                match waits {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                request = self.requests.message() => self.heard(request),
                changed = self.published.changed() => match changed {
                    Ok(()) => self.news(),
                    Err(_) => Err(End::done("stopping")), // the publisher is gone: this process stops
                },
                permit = responses.reserve(), if waits.is_some() => match permit {
                    Ok(permit) => {
                        self.deadline = self.machine.next_response().map(|response| {
                            let of_type = Type::of(&response.type_url);
                            self.metrics.sent.get_or_create(&of_type).inc();
                            self.metrics.sent_bytes.get_or_create(&of_type).inc_by(response.encoded_len() as u64);
                            permit.send(Ok(response));
                            tokio::time::Instant::now() + SLOW
                        });
                        Ok(())
                    }
                    Err(_) => Err(End::done("left")), // the node is gone
                },
                () = late => {
                    self.metrics.slow.inc();
                    Err(End::with("slow", Status::deadline_exceeded("the node did not read what it was sent")))
                }
                () = self.seat.superseded() => Err(End::with("superseded", Status::aborted("the node opened another stream"))),
                () = &mut age => Err(End::done("age")),
                () = stop.cancelled() => Err(End::with("stopping", Status::unavailable("this replica is stopping: another one takes over"))),
                () = responses.closed() => Err(End::done("left")),
            };
            if let Err(end) = step {
                return end;
            }
            self.compare().await;
        }
    }

    fn heard(&mut self, request: Result<Option<DeltaDiscoveryRequest>, Status>) -> Result<(), End> {
        match request {
            Ok(Some(request)) => {
                let address = request.node.as_ref().map(advertised);
                self.step(Event::Request(Box::new(request)))?;
                address.into_iter().for_each(|address| self.seat.advertises(address));
            }
            Ok(None) => return Err(End::done("left")),
            Err(status) => {
                debug!(code = ?status.code(), "the node's side of the stream broke: {}", status.message());
                return Err(End::done("broken"));
            }
        }
        if self.machine.is_behind() {
            self.core.publications.wake();
        }
        Ok(())
    }

    /// Notices a node that runs something newer than the database holds: it refuses all that this database will say.
    async fn compare(&mut self) {
        self.runs = self.runs.max(self.machine.stated());
        let head = self.published.borrow().as_ref().map(|now| now.head.version).unwrap_or_default();
        if head >= self.runs {
            self.ahead = None;
            return;
        }
        if self.ahead.is_some() {
            return;
        }
        // Not what this replica has read: another one may only have been faster.
        let Ok(head) = self.core.store.head().await else { return };
        if head.version < self.runs {
            let (runs, head) = (self.runs, head.version);
            let text = format!("runs {runs}, newer than the store's {head}: was the store restored? `mcpgw config bump-epoch`");
            warn!(node.id = %self.identity.node_id, "node {} {text}", self.identity.node_id);
            self.seat.refused(head, vec![text.clone()]);
            self.ahead = Some(text);
        }
    }

    fn news(&mut self) -> Result<(), End> {
        let Some(now) = self.published.borrow_and_update().clone() else { return Ok(()) };
        if now.voids.nodes.contains(&self.identity.node_id) {
            return Err(End::with("removed", peer::removed_status(&self.identity)));
        }
        let Identity { node_id, pool } = &self.identity;
        let (Some(scope), Some(beside)) = (now.scope(pool, *node_id), now.beside.get(pool)) else {
            return Ok(()); // the pool is gone, and this node with it, as the next look at the database will show
        };
        if self.offered.back().is_none_or(|(newest, _)| *newest < scope.version)
            && let Some(committed) = scope.manifest().and_then(|m| DateTime::from_timestamp_millis(m.created_at_ms))
            && committed >= self.opened_at
        {
            self.offered.truncate(MAX_OFFERED - 1); // of a node that answers nothing for so long, the first ones say enough
            self.offered.push_back((scope.version, committed));
        }
        self.step(Event::Published(Arc::clone(scope)))?;
        self.step(Event::Beside(Arc::clone(beside)))
    }

    fn step(&mut self, event: Event) -> Result<(), End> {
        let resynced = self.machine.is_resynced();
        let actions = self.machine.step(event);
        if self.machine.is_resynced() && !resynced {
            self.metrics.resyncs.inc();
        }
        for action in actions {
            match action {
                Action::Applied { version } => {
                    self.arrived(version);
                    debug!(node.id = %self.identity.node_id, %version, "node {} runs version {version}", self.identity.node_id);
                    self.runs = self.runs.max(version);
                    self.seat.applied(version, Vec::new());
                }
                Action::Refused(refusal) => self.refused(&refusal),
                Action::Close(fault) => return Err(End::with("protocol", status(&fault))),
            }
        }
        // Whatever happened, there may be something to say.
        self.deadline.get_or_insert_with(|| tokio::time::Instant::now() + SLOW);
        Ok(())
    }

    /// How long it took, for every version that this one brings. What a node that comes back has missed is another matter.
    fn arrived(&mut self, version: Version) {
        self.metrics.applied.inc();
        let now = Utc::now();
        while let Some((_, committed)) = self.offered.pop_front_if(|(offered, _)| *offered <= version) {
            self.metrics.commit_to_applied.observe((now - committed).to_std().unwrap_or_default().as_secs_f64());
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        let Refusal { type_url, version, names, code, .. } = refusal;
        let problems = problems(&refusal.message);
        let node = self.identity.node_id;
        if *code == 0 && type_url == mcp_gateway::type_url::MANIFEST {
            self.arrived(*version);
            self.metrics.applied_in_part.inc();
            warn!(node.id = %node, %version, "node {node} runs version {version} except for what did not compile: {problems:?}");
            return self.seat.applied(*version, problems);
        }
        self.metrics.refused.get_or_create(&Refused::of(type_url, *code)).inc();
        warn!(node.id = %node, %version, code, ?names, "node {node} refused {type_url} of version {version}: {problems:?}");
        self.seat.refused(*version, self.ahead.iter().cloned().chain(problems).collect());
    }
}

/// Where a node says that others reach it; empty: nowhere, or nothing that is an address.
fn advertised(node: &Node) -> String {
    let said = machine::stated(node, "advertise").filter(|address| is_host_port(address));
    said.unwrap_or_default().to_owned()
}

/// What a node says is wrong, line by line, fit to be stored and shown.
fn problems(message: &str) -> Vec<String> {
    let clean = |line: &str| {
        let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.truncate(line.floor_char_boundary(MAX_PROBLEM));
        line
    };
    let lines: Vec<String> = message.lines().filter(|line| !line.trim().is_empty()).take(MAX_PROBLEMS).map(clean).collect();
    if lines.is_empty() { vec!["refused without a reason".into()] } else { lines }
}

fn status(fault: &Fault) -> Status {
    let text = fault.to_string();
    match fault {
        Fault::NoNode | Fault::NoType | Fault::NodeChanged { .. } => Status::invalid_argument(text),
        Fault::OtherNode { .. } | Fault::OtherPool { .. } => Status::permission_denied(text),
        Fault::UnknownDigest => Status::failed_precondition(text),
        Fault::Excessive { .. } => Status::resource_exhausted(text),
    }
}
