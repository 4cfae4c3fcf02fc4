//! The simulated installation: what is published, replicas that lag, nodes, and the faults between them. Every choice is the dice's.

use std::sync::Arc;

use mcp_gateway::snapshot::Version;
use mcpgw_controlplane::publish::scope::Scope;

use super::content::{Damage, KEYS, Org, Orgs, Release};
use super::dice::Dice;
use super::link::{self, Link};
use super::node::Node;

/// Rounds in which everything must arrive once nothing goes wrong any more.
const ROUNDS: usize = 200;

/// What a replica has read: how many versions, and which set of revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub release: usize,
    pub revocation: u32,
}

/// Everything that was ever published, oldest first.
#[derive(Default)]
pub struct History {
    releases: Vec<Release>,
}

struct Replica {
    /// None: it has just started and read nothing.
    has: Option<Published>,
    /// Of another build, which encodes differently.
    odd: bool,
}

/// See the module.
pub struct World {
    dice: Dice,
    history: History,
    head: Published,
    revision: u32,
    replicas: Vec<Replica>,
    nodes: Vec<Node>,
    /// What happened, if somebody wants to know.
    script: Option<Vec<String>>,
}

impl History {
    pub fn release(&self, version: Version) -> &Release {
        self.releases.iter().find(|release| release.version() == version).expect("only what was published is applied")
    }

    pub fn with_digest(&self, digest: &[u8]) -> Option<&Release> {
        self.releases.iter().find(|release| release.scope.digest.as_bytes() == digest || release.odd.digest.as_bytes() == digest)
    }

    fn scope(&self, release: usize, odd: bool) -> &Arc<Scope> {
        let release = &self.releases[release];
        if odd { &release.odd } else { &release.scope }
    }
}

impl World {
    pub fn new(seed: u64, keeps_script: bool) -> Self {
        let mut dice = Dice::new(seed);
        let replicas = 1 + dice.below(3);
        let odd = dice.one_in(8).then(|| dice.below(replicas));
        let nodes = (0..1 + dice.below(2)).map(|number| Node::new(format!("n{number}"))).collect();
        let mut world = Self {
            dice,
            history: History::default(),
            head: Published::default(),
            revision: 0,
            replicas: (0..replicas).map(|number| Replica { has: None, odd: odd == Some(number) }).collect(),
            nodes,
            script: keeps_script.then(Vec::new),
        };
        let version = Version { epoch: 1, version: 1 };
        let orgs = (1..=3).map(|number| (number, world.org(false))).collect();
        world.release(version, orgs, None);
        world
    }

    pub fn script(&self) -> &[String] {
        self.script.as_deref().unwrap_or_default()
    }

    /// A life full of faults, and the peace after it.
    pub fn live(&mut self) {
        for _ in 0..30 + self.dice.below(90) {
            self.happens();
        }
        self.recovers();
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(script) = &mut self.script {
            script.push(what());
        }
    }

    fn happens(&mut self) {
        let node = self.dice.below(self.nodes.len());
        let replica = self.dice.below(self.replicas.len());
        match self.dice.below(100) {
            0..10 => self.publish(),
            10..14 => self.revoke(),
            14..26 => self.catch_up(replica),
            26..29 => self.restart_replica(replica),
            29..34 => self.cut(node),
            34..37 => self.restart_node(node),
            37..42 => self.finish(node, false),
            42..54 => self.finish(node, true),
            54..57 => self.nodes[node].keep(),
            57..84 => self.converse(node),
            _ => {
                let works_end = self.dice.one_in(2);
                self.settle(node, 12, works_end);
            }
        }
    }

    fn publish(&mut self) {
        let head = &self.history.releases[self.head.release];
        let (mut version, mut orgs) = (head.version(), head.orgs.clone());
        if self.dice.one_in(10) {
            // Restored from a backup: an earlier content, and versions that were there before, in a new epoch.
            let restored = self.dice.below(self.history.releases.len());
            let restored = &self.history.releases[restored];
            version = Version { epoch: version.epoch + 1, version: restored.version().version };
            orgs = restored.orgs.clone();
        } else {
            version.version += 1 + self.dice.below(3) as u64; // versions of other pools lie between
            if self.dice.one_in(6) {
                let before = self.dice.below(self.history.releases.len());
                orgs = self.history.releases[before].orgs.clone();
            } else {
                self.change(&mut orgs);
            }
        }
        let damage = self.dice.one_in(8).then(|| [Damage::Digest, Damage::Global, Damage::Version][self.dice.below(3)]);
        if damage.is_none() && orgs == self.history.releases[self.head.release].orgs {
            return; // a scope's manifest changes only with its content
        }
        self.release(version, orgs, damage);
    }

    fn change(&mut self, orgs: &mut Orgs) {
        if self.dice.one_in(12) {
            return orgs.clear();
        }
        for _ in 0..1 + self.dice.below(2) {
            let number = u8::try_from(1 + self.dice.below(4)).expect("small");
            if self.dice.one_in(4) {
                orgs.remove(&number);
            } else {
                let poisoned = self.dice.one_in(5);
                orgs.insert(number, self.org(poisoned));
            }
        }
    }

    fn org(&mut self, poisoned: bool) -> Org {
        self.revision += 1;
        Org { revision: self.revision, chunks: 1 + u32::try_from(self.dice.below(2)).expect("small"), poisoned }
    }

    fn release(&mut self, version: Version, orgs: Orgs, damage: Option<Damage>) {
        // Once the manifest key has moved on, it stays so.
        let key = KEYS[usize::from(self.history.releases.len() >= 5)];
        let odd = self.replicas.iter().any(|replica| replica.odd);
        self.note(|| format!("publish {version} {damage:?} {orgs:?} key {key}"));
        self.history.releases.push(Release::new(version, orgs, damage, key, odd));
        self.head.release = self.history.releases.len() - 1;
    }

    fn revoke(&mut self) {
        self.head.revocation += 1;
        let number = self.head.revocation;
        self.note(|| format!("revoke {number}"));
    }

    /// The replica reads the database, and tells its streams.
    fn catch_up(&mut self, replica: usize) {
        let (head, odd) = (self.head, self.replicas[replica].odd);
        self.note(|| format!("replica {replica} has {head:?}"));
        self.replicas[replica].has = Some(head);
        for node in &mut self.nodes {
            if let Some(link) = node.link.as_mut().filter(|link| link.replica == replica && link.told != head) {
                link.news(head, Arc::clone(self.history.scope(head.release, odd)));
            }
        }
    }

    fn restart_replica(&mut self, replica: usize) {
        self.note(|| format!("replica {replica} starts again"));
        self.replicas[replica].has = None;
        for node in &mut self.nodes {
            if let Some(link) = node.link.as_mut().filter(|link| link.replica == replica) {
                link.cut = true;
            }
        }
    }

    fn cut(&mut self, node: usize) {
        let at_once = self.dice.one_in(2);
        self.note(|| format!("node {node} loses its stream{}", if at_once { "" } else { ", later" }));
        match &mut self.nodes[node].link {
            Some(link) if !at_once => link.cut = true,
            _ => self.nodes[node].lose(&self.history),
        }
    }

    fn restart_node(&mut self, node: usize) {
        let version = self.nodes[node].version();
        self.nodes[node].restart();
        let found = self.nodes[node].version();
        self.note(|| format!("node {node} at {version} starts again from {found}"));
    }

    fn finish(&mut self, node: usize, works: bool) {
        let jobs = self.nodes[node].jobs.len();
        if jobs > 0 {
            let job = self.dice.below(jobs);
            self.note(|| format!("node {node} ends job {job} of {jobs}, works: {works}"));
            self.nodes[node].finish(job, works, &self.history);
        }
    }

    /// A few messages pass, or the node looks for a replica.
    fn converse(&mut self, node: usize) {
        for _ in 0..1 + self.dice.below(8) {
            match self.dice.below(3) {
                0 => drop(self.hears(node)),
                1 => drop(self.serves(node)),
                _ => drop(self.speaks(node)),
            }
        }
        let gone = self.nodes[node].link.as_ref().is_some_and(|link| link.cut && link.down.is_empty());
        if gone || self.nodes[node].wants_keys {
            self.renews(node);
        }
        if self.nodes[node].link.is_none() {
            let replica = self.dice.below(self.replicas.len());
            self.opens(node, replica);
        }
    }

    fn renews(&mut self, node: usize) {
        if self.nodes[node].wants_keys {
            self.note(|| format!("node {node} gets keys"));
            self.nodes[node].renew(&self.history);
        } else {
            self.nodes[node].lose(&self.history);
        }
    }

    fn hears(&mut self, node: usize) -> bool {
        if let Some(next) = self.nodes[node].link.as_ref().and_then(|link| link.down.front()) {
            let next = link::told(next);
            self.note(|| format!("node {node} hears {next}"));
        }
        self.nodes[node].hear(&self.history)
    }

    fn serves(&mut self, node: usize) -> bool {
        let Some(link) = &mut self.nodes[node].link else { return false };
        let odd = self.replicas[link.replica].odd;
        let scope = Arc::clone(self.history.scope(link.told.release, odd));
        let next = link.up.front().map(link::asked);
        let heard = link.serve(&scope);
        if let Some(next) = next {
            self.note(|| format!("node {node} is heard: {next}"));
        }
        heard
    }

    fn speaks(&mut self, node: usize) -> bool {
        self.nodes[node].link.as_mut().is_some_and(Link::speak)
    }

    fn opens(&mut self, node: usize, replica: usize) -> bool {
        let Replica { has: Some(has), odd } = self.replicas[replica] else { return false };
        let scope = Arc::clone(self.history.scope(has.release, odd));
        let target = &mut self.nodes[node];
        target.streams += 1;
        let link = Link::open(replica, has, scope, &target.name, target.streams);
        let version = target.version();
        target.connected(link, &self.history);
        self.note(|| format!("node {node} at {version} opens a stream to {replica} with {has:?}"));
        true
    }

    /// Everything that is on its way arrives, for so many rounds, and with `works_end` other threads end; whether nothing is left to do.
    fn settle(&mut self, node: usize, rounds: usize, works_end: bool) -> bool {
        for _ in 0..rounds {
            let mut busy = self.hears(node);
            busy |= self.serves(node);
            busy |= self.speaks(node);
            if works_end && !self.nodes[node].jobs.is_empty() {
                self.nodes[node].finish(0, true, &self.history);
                busy = true;
            }
            if !busy {
                self.note(|| format!("node {node} is settled"));
                return true;
            }
        }
        false
    }

    /// Nothing goes wrong any more, and what is published is good: every node gets there.
    fn recovers(&mut self) {
        let odd = self.replicas.iter().any(|replica| replica.odd);
        for replica in 0..self.replicas.len() {
            if std::mem::take(&mut self.replicas[replica].odd) {
                self.restart_replica(replica);
            }
        }
        let head = &self.history.releases[self.head.release];
        if odd || head.damage.is_some() || self.dice.one_in(2) {
            // Organisations may stay poisoned: that is theirs alone. A repair is new content under a new version, and reaches streams as they are.
            let version = Version { version: head.version().version + 1, ..head.version() };
            let orgs = (1..=3).map(|number| (number, self.org(false))).collect();
            self.release(version, orgs, None);
        } else {
            for node in 0..self.nodes.len() {
                self.cut(node);
            }
        }
        self.all_arrive();
        // The database is restored to this very moment: the same content again, which every stream has to tell all the same.
        let head = &self.history.releases[self.head.release];
        let (epoch, orgs) = (head.version().epoch + 1, head.orgs.clone());
        self.release(Version { epoch, version: 1 }, orgs, None);
        self.all_arrive();
    }

    fn all_arrive(&mut self) {
        for replica in 0..self.replicas.len() {
            self.catch_up(replica);
        }
        for node in 0..self.nodes.len() {
            self.arrives(node);
            self.nodes[node].check_whole(&self.history.releases[self.head.release], self.head.revocation);
        }
    }

    fn arrives(&mut self, node: usize) {
        for _ in 0..ROUNDS {
            let settled = self.settle(node, ROUNDS, true);
            let target = &self.nodes[node];
            let gone = target.link.as_ref().is_some_and(|link| link.cut && link.down.is_empty());
            if gone || target.wants_keys {
                self.renews(node);
            } else if target.link.is_none() {
                let replica = self.dice.below(self.replicas.len());
                self.opens(node, replica);
            } else if settled {
                return;
            }
        }
        panic!("node {node} never comes to rest");
    }
}
