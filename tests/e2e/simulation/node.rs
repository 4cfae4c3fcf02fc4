//! One node of the simulation: its real machine, real compilations, a disk that may lag behind, and checks of what comes in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_gateway::proto::config::v1::Manifest;
use mcp_gateway::snapshot::{ContentHash, Digest, Fallbacks, Snapshot, Staged, Version, compile, restore};
use mcp_gateway::type_url::REVOCATION;
use mcpgw_dataplane::xds::machine::{About, Action, Backoff, Event, Lost, Machine};
use mcpgw_dataplane::xds::revocations::onto;
use prost::Message;

use super::content::{self, POOL, Release};
use super::link::{DATA_LOSS, Link};
use super::world::History;

/// See the module.
pub struct Node {
    pub name: String,
    machine: Machine,
    pub link: Option<Link>,
    pub streams: u64,
    /// Manifest keys that it was told of, and whether it asked for more.
    known_keys: usize,
    pub wants_keys: bool,
    live: Option<Arc<Snapshot>>,
    in_force: Option<Received>,
    /// Revision and servers of each organisation in force.
    serves: BTreeMap<u8, (u32, u32)>,
    /// The number of the set of revocations in force.
    pub revoked: u32,
    disk: Disk,
    pub jobs: Vec<Job>,
}

/// A manifest and what it covers, and what is served in the place of some of it.
#[derive(Clone)]
struct Received {
    manifest: Manifest,
    staged: Arc<Staged>,
    fallbacks: Fallbacks,
}

/// What a restart finds.
#[derive(Clone, Default)]
struct Disk {
    kept: Option<Received>,
    /// What was served from it when it was written: for the check only.
    serves: BTreeMap<u8, (u32, u32)>,
    revocation: Option<Stored>,
    /// The ticket of the newest revocations.
    ticket: u64,
}

/// A set of revocations on its way to the disk, or there.
#[derive(Clone)]
pub struct Stored {
    number: u32,
    version: String,
}

/// Work of other threads, which ends in any order.
pub enum Job {
    Compile { ticket: u64, received: Box<(Manifest, Arc<Staged>)>, previous: Option<Arc<Snapshot>> },
    Store { ticket: u64, stored: Stored },
}

impl Node {
    pub fn new(name: String) -> Self {
        let machine = machine(&name);
        Self {
            name,
            machine,
            link: None,
            streams: 0,
            known_keys: 1,
            wants_keys: false,
            live: None,
            in_force: None,
            serves: BTreeMap::new(),
            revoked: 0,
            disk: Disk::default(),
            jobs: Vec::new(),
        }
    }

    /// What is in force.
    pub fn version(&self) -> Version {
        self.live.as_ref().map(|live| live.version()).unwrap_or_default()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.live.as_ref().map(|live| *live.digest())
    }

    /// The stream is open.
    pub fn connected(&mut self, link: Link, history: &History) {
        self.link = Some(link);
        self.wants_keys = false;
        let manifest_keys = content::manifest_keys(self.known_keys);
        self.feed(Event::Connected { manifest_keys }, history);
    }

    /// The node hears the next response; false: there is none.
    pub fn hear(&mut self, history: &History) -> bool {
        let Some(response) = self.link.as_mut().and_then(|link| link.down.pop_front()) else { return false };
        let revokes = response.type_url == REVOCATION && !response.resources.is_empty();
        let revoked = self.feed(Event::Received(response), history);
        assert!(!revokes || revoked, "revocations were told and are not in force");
        true
    }

    /// The stream is gone for the node, too.
    pub fn lose(&mut self, history: &History) {
        if let Some(link) = self.link.take() {
            let lost = match (self.wants_keys, link.unknown) {
                (true, _) => Lost::Renewed,
                (false, true) => Lost::Unknown,
                (false, false) => Lost::Failed,
            };
            self.feed(Event::Lost(lost), history);
        }
    }

    /// Fresh credentials arrive, which ends the stream.
    pub fn renew(&mut self, history: &History) {
        self.known_keys = content::KEYS.len();
        self.lose(history);
        self.wants_keys = false;
    }

    /// What is in force reaches the disk.
    pub fn keep(&mut self) {
        self.disk.kept.clone_from(&self.in_force);
        self.disk.serves.clone_from(&self.serves);
    }

    /// Another thread has ended; `works`: as it should.
    pub fn finish(&mut self, job: usize, works: bool, history: &History) {
        match self.jobs.remove(job) {
            Job::Compile { ticket, received, previous } => {
                let (manifest, staged) = *received;
                let compiled = compile(&manifest, &staged, &content::pool_keys(), previous.as_deref());
                let compiled = if works { compiled } else { Err(Vec::new()) };
                let (result, ready) = match compiled {
                    Ok(snapshot) => {
                        let (report, fallbacks) = (snapshot.report(), snapshot.fallbacks());
                        (Ok(report), Some((Arc::new(snapshot), Received { manifest, staged, fallbacks })))
                    }
                    Err(problems) => (Err(problems), None),
                };
                let actions = self.machine.step(Event::Compiled { ticket, result });
                self.act(actions, ready, history);
            }
            Job::Store { ticket, stored } => {
                // Threads may come in any order, and an older set never replaces a newer one.
                if works && ticket >= self.disk.ticket {
                    self.disk.ticket = ticket;
                    self.disk.revocation = Some(stored);
                }
                let result = if works { Ok(()) } else { Err("no space left".to_owned()) };
                self.feed(Event::Stored { ticket, result }, history);
            }
        }
    }

    /// The process ends at any moment, and another one begins from the disk.
    pub fn restart(&mut self) {
        let (name, streams, known_keys, disk) =
            (self.name.clone(), self.streams, self.known_keys, std::mem::take(&mut self.disk));
        *self = Self { streams, known_keys, ..Self::new(name) };
        if let Some(stored) = &disk.revocation {
            self.revoked = stored.number;
            self.machine.holds_revocation(stored.version.clone());
        }
        if let Some(kept) = disk.kept.clone() {
            let compiled = restore(&kept.manifest, &kept.staged, &content::pool_keys(), &kept.fallbacks);
            let snapshot = compiled.expect("what was in force compiles");
            self.machine.holds(&kept.manifest, kept.staged.clone(), snapshot.report());
            self.serves = content::served(&snapshot);
            assert_eq!(self.serves, disk.serves, "a restart serves what was kept");
            (self.live, self.in_force) = (Some(Arc::new(snapshot)), Some(kept));
        }
        self.disk = Disk { ticket: 0, ..disk };
    }

    /// Steps the machine and does what it says; whether it put revocations in force.
    fn feed(&mut self, event: Event, history: &History) -> bool {
        let actions = self.machine.step(event);
        self.act(actions, None, history)
    }

    fn act(&mut self, actions: Vec<Action>, mut ready: Option<(Arc<Snapshot>, Received)>, history: &History) -> bool {
        let mut revoked = false;
        for action in actions {
            match action {
                Action::Send(request) => {
                    let Some(link) = &mut self.link else { continue };
                    if let Some(status) = request.error_detail.as_ref().filter(|status| status.code == DATA_LOSS) {
                        let meant = history.with_digest(link.digest(&request));
                        assert!(meant.is_none_or(|release| release.damage.is_some()), "whole, yet not whole: {}", status.message);
                    }
                    if request.type_url == REVOCATION && request.error_detail.is_none() {
                        let stored = self.disk.revocation.as_ref().map_or(0, |stored| stored.number);
                        assert!(stored >= link.revocation(&request), "acknowledged and not on disk");
                    }
                    link.up.push_back(request);
                }
                Action::Compile { ticket, manifest, staged } => {
                    let compiling = self.jobs.iter().any(|job| matches!(job, Job::Compile { .. }));
                    assert!(!compiling, "two compilations at a time");
                    let previous = self.live.clone();
                    self.jobs.push(Job::Compile { ticket, received: Box::new((*manifest, staged)), previous });
                }
                Action::Swap { .. } => {
                    let (snapshot, received) = ready.take().expect("compiled");
                    self.swap(snapshot, received, history);
                }
                Action::Revoke { ticket, revocation } => {
                    revoked = true;
                    let revocation = onto(Some(&content::revocation(self.revoked)), revocation);
                    let number = content::number(&revocation);
                    assert!(number >= self.revoked, "a replica that lags behind took a revocation back");
                    self.revoked = number;
                    let version = ContentHash::of(&revocation.encode_to_vec()).to_string();
                    self.jobs.push(Job::Store { ticket, stored: Stored { number, version } });
                }
                Action::RenewCredentials => self.wants_keys = true,
                Action::SetEndpoints { .. } | Action::SetPeers(_) | Action::Reconnect { .. } => {}
            }
        }
        revoked
    }

    /// Something comes in force: newer than what was, one version's and whole, organisation by organisation.
    fn swap(&mut self, snapshot: Arc<Snapshot>, received: Received, history: &History) {
        let (before, now) = (self.version(), snapshot.version());
        assert!(now > before, "{} went from {before} to {now}", self.name);
        let release = history.release(now);
        let odd = *snapshot.digest() == release.odd.digest;
        assert!(odd || *snapshot.digest() == release.scope.digest, "{now} with content that nobody published");
        let serves = content::served(&snapshot);
        for (number, org) in &release.orgs {
            let found = serves.get(number);
            if org.poisoned {
                // In quarantine: as it was when it was good, or denied; nobody else notices.
                assert_eq!(found, self.serves.get(number), "{number} is poisoned in {now}");
            } else {
                assert_eq!(found, Some(&(org.revision, org.chunks)), "{number} in {now}");
            }
        }
        assert!(serves.keys().all(|number| release.orgs.contains_key(number)), "{now} serves what was removed: {serves:?}");
        (self.live, self.in_force, self.serves) = (Some(snapshot), Some(received), serves);
    }

    /// Everything arrived.
    pub fn check_whole(&self, release: &Release, revocation: u32) {
        let name = &self.name;
        assert_eq!((self.version(), self.digest()), (release.version(), Some(release.scope.digest)), "{name} runs the head");
        assert_eq!(self.revoked, revocation, "{name} knows what is void");
        let link = self.link.as_ref().expect("connected");
        assert_eq!(link.applied, Some(release.version()), "{name}: the control plane knows");
        assert!(self.jobs.is_empty() && link.up.is_empty() && link.down.is_empty());
    }
}

fn machine(name: &str) -> Machine {
    let about = About { node_id: name.to_owned(), pool: POOL.to_owned(), build: "1.0.0".to_owned(), advertise: String::new() };
    Machine::new(about, Backoff::new(|| 0.5))
}
