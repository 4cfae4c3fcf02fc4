//! All simulated nodes: enrolled through the real RPC, each with a stream of its own, and watched together.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mcpgw_dataplane::node::uplink::Replicas;
use mcpgw_dataplane::node::{Enrolment, join};
use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::ENROLMENTS_PER_SECOND;
use super::held::Names;
use super::node::{Common, Node, Progress};
use super::process::ControlPlane;
use super::report::{Change, Traffic};
use crate::fleet::Admin;

/// See the module. Dropped, every node ends.
pub(super) struct Fleet {
    common: Arc<Common>,
    progress: Vec<Arc<Mutex<Progress>>>,
    running: JoinSet<()>,
    state: Option<tempfile::TempDir>,
}

impl Fleet {
    pub(super) fn new(address: SocketAddr) -> Self {
        let (open, cuts) = (watch::Sender::new(false), watch::Sender::new(0));
        let common = Common { address, names: Names::default(), open, cuts, moved: Notify::new() };
        Self { common: Arc::new(common), progress: Vec::new(), running: JoinSet::new(), state: None }
    }

    /// Makes `count` nodes that wait until [`Fleet::open`].
    pub(super) async fn enrol(&mut self, admin: &Admin, control: &ControlPlane, count: usize) -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let replicas =
            Replicas { endpoints: vec![format!("https://{}", control.nodes())], server_name: Some("localhost".into()) };
        let mut pace = tokio::time::interval(Duration::from_millis(1000 / ENROLMENTS_PER_SECOND));
        let mut joining = JoinSet::new();
        for number in 0..count {
            let directory = state.path().join(number.to_string());
            std::fs::create_dir(&directory)?;
            let token = Some(SecretString::from(admin.join_token().await?));
            let enrolment = Enrolment { replicas: replicas.clone(), token, display_name: format!("scale-{number}") };
            pace.tick().await;
            joining.spawn(async move { join(&directory, &enrolment).await.map(|_| directory) });
        }
        while let Some(joined) = joining.join_next().await {
            let (directory, progress) = (joined??, Arc::default());
            let mut node = Node::load(&directory, Arc::clone(&self.common), Arc::clone(&progress))?;
            if self.progress.is_empty() {
                node.keep_contents(&directory)?;
            }
            self.progress.push(progress);
            self.running.spawn(node.run());
        }
        self.state = Some(state);
        Ok(())
    }

    /// Lets every node connect.
    pub(super) fn open(&self) {
        self.common.open.send_replace(true);
    }

    /// Every node loses its connection.
    pub(super) fn cut(&self) {
        self.common.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Returns when every node had its configuration confirmed on at least `streams` streams.
    pub(super) async fn confirmed(&self, streams: u64, patience: Duration) -> anyhow::Result<()> {
        self.until(patience, |node| node.confirmed >= streams).await.with_context(|| format!("stream {streams} of every node"))
    }

    /// Returns when every node runs `version`: the milliseconds from its commit, node by node.
    pub(super) async fn applied(&self, version: u64, patience: Duration) -> anyhow::Result<Vec<f64>> {
        self.until(patience, |node| node.version >= version).await.with_context(|| format!("version {version}"))?;
        Ok(self.nodes().map(|node| node.milliseconds).collect())
    }

    async fn until(&self, patience: Duration, holds: impl Fn(&Progress) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let moved = self.common.moved.notified();
            let missing = self.nodes().filter(|node| !holds(node)).count();
            if missing == 0 {
                return Ok(());
            }
            let late = || format!("{missing} of {} nodes are not there after {} s", self.progress.len(), patience.as_secs());
            timeout_at(end, moved).await.with_context(late)?;
        }
    }

    /// What passed on the streams in use up to their confirmation.
    pub(super) fn sessions(&self) -> Vec<Traffic> {
        self.nodes().map(|node| node.session.clone()).collect()
    }

    pub(super) fn counts(&self) -> Vec<Change> {
        self.nodes().map(|node| node.counts.clone()).collect()
    }

    /// Covered resources of a node.
    pub(super) fn resources(&self) -> usize {
        self.nodes().map(|node| node.resources).max().unwrap_or_default()
    }

    /// Milliseconds of each compilation of the one node that compiles.
    pub(super) fn compiled(&self) -> Vec<f64> {
        self.nodes().find(|node| !node.compiled.is_empty()).map(|node| node.compiled.clone()).unwrap_or_default()
    }

    pub(super) fn refused(&self) -> u64 {
        self.nodes().map(|node| node.refused).sum()
    }

    fn nodes(&self) -> impl Iterator<Item = MutexGuard<'_, Progress>> {
        self.progress.iter().map(|node| node.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
