//! The loop that keeps every pool's scope current: woken by NOTIFY, and once a second by itself; the version numbers carry the truth.
//!
//! Reads one moment of the database, rebuilds the organisations that changed, and hands the result to every stream at once. While
//! the database is away, what was published last stays published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_gateway::{
    proto::config::v1::{ApiKey, UpstreamCredential},
    snapshot::Version,
};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{
    Published, Trial,
    build::{self, Content, Ingredients, Orgs, Settings},
    candidates::{self, Candidate},
    guard::{self, Guard},
    metrics::Metrics,
    scope::{Beside, Scope},
    settle::Settled,
};
use crate::{
    app::Core,
    domain::bundle::{OrgRows, credential_context},
    keys::{self, Keys},
    store::{
        self, orgs,
        publish::{Head, Voids, canary_key},
    },
};

/// How often the head is looked at when nobody calls, give or take a fifth.
const POLL: Duration = Duration::from_secs(1);
/// Organisations that are read and encoded at a time: a first load does not hold all rows at once.
const BATCH: usize = 50;
/// How often an overtaken reading is repeated before the next wake-up.
const REPEATS: usize = 5;

/// Why nothing could be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("pool {pool}: version {found} was overtaken by {newer} while it was read")]
    Overtaken { pool: String, found: Version, newer: Version },
    #[error("encoding was cut off")]
    CutOff,
}

/// See the module.
pub struct Publisher {
    core: Core,
    metrics: Metrics,
    out: watch::Sender<Option<Arc<Published>>>,
    /// Of every pool.
    parts: Orgs,
    /// Of the same moment as `parts`.
    keys: Option<Arc<Keys>>,
    /// The version that `parts` are of.
    read: Option<Version>,
    /// The candidates of running rollouts, of the same moment, by pool.
    candidates: BTreeMap<String, Candidate>,
    /// What manifests carry at least, by scope, of the same moment.
    floors: BTreeMap<String, Version>,
    /// What was published last, by scope, and what it was made of: the next version costs what changed.
    pools: BTreeMap<String, Arc<Pool>>,
    guard: Guard,
    /// Where nodes are, by pool.
    peers: Settled,
    failing: bool,
}

/// A published scope: a pool, or its canaries.
struct Pool {
    made_of: Ingredients,
    content: Content,
    scope: Arc<Scope>,
}

/// What the nodes of each pool get, as of one version.
struct Read {
    head: Head,
    scopes: BTreeMap<String, Arc<Scope>>,
    trials: BTreeMap<String, Arc<Trial>>,
}

impl Publisher {
    pub fn new(core: Core, metrics: Metrics, out: watch::Sender<Option<Arc<Published>>>) -> Self {
        let (parts, candidates, floors, pools) = (Orgs::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (guard, peers) = (Guard::new(core.store.clone()), Settled::default());
        let (keys, read, failing) = (None, None, false);
        Self { core, metrics, out, parts, keys, read, candidates, floors, pools, guard, peers, failing }
    }

    /// Publishes until the app stops.
    pub async fn run(mut self, wake: Arc<Notify>) {
        let stop = self.core.tasks.stop_token().clone();
        loop {
            self.round().await;
            let pause = POLL.mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = wake.notified() => debug!("woken"),
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(&mut self) {
        for _ in 0..REPEATS {
            match self.refresh().await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        info!("publishing again");
                    }
                    return;
                }
                Err(error @ Error::Overtaken { .. }) => debug!(%error, "reading again"),
                Err(error) => {
                    self.metrics.failures.inc();
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(error = %crate::open::chain(&error), "cannot publish; what was published stays");
                    }
                    return;
                }
            }
        }
    }

    /// Publishes what holds now, if it is not what was published last.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        let store = &self.core.store;
        let mut voids = store.voids(self.core.config.access_token_lifetime()).await?;
        let head = store.head().await?;
        let last = self.out.borrow().clone();
        let look = self.guard.must_look().await?;
        if look {
            self.read = None;
        }
        let current = last.as_ref().filter(|last| last.head == head && !look && guard::tells_of(last, &voids.pools));
        let of = |last: &Published| Read { head: last.head, scopes: last.scopes.clone(), trials: last.trials.clone() };
        let rebuilt = match current {
            Some(last) => Ok(of(last)),
            None => self.rebuild(&voids.pools).await,
        };
        // What is void is told whatever happens to the rest.
        let (Read { head, scopes, trials }, failure) = match (rebuilt, &last) {
            (Ok(rebuilt), _) => (rebuilt, None),
            (Err(error), Some(last)) => (of(last), Some(error)),
            (Err(error), None) => return Err(error),
        };
        self.peers.settle(&mut voids, Instant::now());
        let beside = besides(&voids, last.as_deref());
        let news = Published { head, scopes, trials, beside, voids: Arc::new(voids), holds: self.guard.tell(&self.metrics) };
        if last.as_deref() != Some(&news) {
            self.metrics.published(head.version);
            self.out.send_replace(Some(Arc::new(news)));
        }
        failure.map_or(Ok(()), Err)
    }

    async fn rebuild(&mut self, pools: &BTreeSet<String>) -> Result<Read, Error> {
        let started = Instant::now();
        let head = self.read().await?;
        let mut orgs: BTreeMap<String, Orgs> = BTreeMap::new();
        for (id, part) in &self.parts {
            orgs.entry(part.pool.clone()).or_default().insert(*id, Arc::clone(part));
        }
        let (mut scopes, mut trials) = (BTreeMap::new(), BTreeMap::new());
        let tried: BTreeSet<String> = self.candidates.keys().map(|pool| canary_key(pool)).collect();
        self.pools.retain(|scope, _| pools.contains(scope) || tried.contains(scope));
        self.guard.keep(pools);
        for pool in pools {
            let orgs = orgs.remove(pool).unwrap_or_default();
            let counts = guard::counts(&orgs);
            if self.guard.holds(pool, &counts, &self.parts, head.version).await? {
                let last = self.out.borrow().clone();
                scopes.extend(last.iter().filter_map(|last| last.scopes.get_key_value(pool)).map(owned));
                trials.extend(last.iter().filter_map(|last| last.trials.get_key_value(pool)).map(owned));
                continue;
            }
            scopes.insert(pool.clone(), self.scope(pool, pool, orgs.clone(), head).await?);
            if let Some(trial) = self.trial(pool, orgs, head).await? {
                trials.insert(pool.clone(), Arc::new(trial));
            }
            self.guard.published(pool, head.version, counts);
        }
        self.metrics.build_seconds.observe(started.elapsed().as_secs_f64());
        debug!(version = %head.version, "read version {} in {:?}", head.version, started.elapsed());
        Ok(Read { head, scopes, trials })
    }

    /// What the canaries of a pool get: everything as for the others, but for one organisation.
    async fn trial(&mut self, pool: &str, mut orgs: Orgs, head: Head) -> Result<Option<Trial>, Error> {
        let Some(candidate) = self.candidates.get(pool) else { return Ok(None) };
        orgs.insert(candidate.rollout.org_id, Arc::clone(&candidate.part));
        let (rollout, canaries) = (candidate.rollout.id, candidate.rollout.canaries.iter().copied().collect());
        let scope = self.scope(&canary_key(pool), pool, orgs, head).await?;
        Ok(Some(Trial { rollout, canaries, scope }))
    }

    /// Brings `parts` to the newest version: the organisations that changed, or all of them where the log does not tell.
    async fn read(&mut self) -> Result<Head, Error> {
        let mut tx = self.core.store.one_moment().await?;
        let head = store::publish::head(&mut tx).await?;
        let custody = self.core.custody.read(&mut tx, head.version).await?;
        let changed = match self.read {
            Some(read) => store::publish::changed_orgs(&mut tx, read, head.version).await?,
            None => None,
        };
        let (mut parts, ids) = match changed {
            Some(ids) => (self.parts.clone(), ids),
            None => {
                self.pools.clear(); // another history: nothing published before says anything about it
                (Orgs::new(), store::publish::all_orgs(&mut tx).await?)
            }
        };
        let ids: Vec<Uuid> = ids.into_iter().collect();
        for ids in ids.chunks(BATCH) {
            let (rows, unreadable) = orgs::readable_of(&mut tx, ids).await?;
            let keys = store::publish::api_keys_of(&mut tx, ids).await?;
            let mut fresh = encode_orgs(Arc::clone(&custody), rows, keys).await?;
            build::withhold(&mut fresh, &unreadable);
            for id in ids {
                match fresh.remove(id) {
                    Some(part) => parts.insert(*id, part),
                    None => parts.remove(id),
                };
            }
        }
        let candidates = candidates::read(&mut tx, &self.candidates, &parts, &custody).await?;
        let floors = store::publish::floors(&mut tx).await?;
        tx.commit().await.map_err(store::Error::from)?;
        (self.parts, self.keys) = (parts, Some(custody));
        (self.candidates, self.floors) = (candidates, floors);
        self.read = Some(head.version);
        Ok(head)
    }

    /// A scope of a pool: the pool's own, or that of its canaries.
    async fn scope(&mut self, name: &str, pool: &str, orgs: Orgs, head: Head) -> Result<Arc<Scope>, Error> {
        let made_of = Ingredients { orgs, keys: self.keys_with(pool, head).await? };
        let floor = self.floors.get(name).copied().unwrap_or_default();
        let before = self.pools.get(name).or_else(|| self.pools.get(pool)).cloned();
        let own = self.pools.get(name).filter(|own| own.made_of.are(&made_of) && own.scope.version >= floor);
        if let Some(same) = own {
            return Ok(Arc::clone(&same.scope));
        }
        let (made_of, content) = self.encode(pool, made_of, before).await?;
        let row = self.core.store.settle_scope(name, head, (&content.digest, &guard::counts(&made_of.orgs))).await?;
        if row.digest != content.digest {
            if row.version > head.version {
                return Err(Error::Overtaken { pool: name.into(), found: head.version, newer: row.version });
            }
            // The same version with another content: another build of the control plane encodes differently, or keys were changed
            // without a version. Nodes that hold the other content keep it until the next version.
            warn!(scope = name, version = %row.version, "{name}: version {} has another content on another replica", row.version);
        }
        let row = store::publish::ScopeRow { digest: content.digest, ..row };
        let scope = Arc::new(build::scope(pool, &content, &row, made_of.keys.manifest.current()));
        self.pools.insert(name.to_owned(), Arc::new(Pool { made_of, content, scope: Arc::clone(&scope) }));
        Ok(scope)
    }

    /// The keys of the moment that was read, or newer ones if it was the first to need keys of this pool.
    async fn keys_with(&self, pool: &str, head: Head) -> Result<Arc<Keys>, Error> {
        if let Some(keys) = self.keys.as_ref().filter(|keys| keys.pools.contains_key(pool)) {
            return Ok(Arc::clone(keys));
        }
        let keys = self.core.custody.with_pool(pool).await?;
        if keys.as_of > head.version {
            return Err(Error::Overtaken { pool: pool.into(), found: head.version, newer: keys.as_of });
        }
        Ok(keys)
    }

    /// Off the runtime's threads: a large pool is megabytes to encode and hash at first.
    async fn encode(&self, pool: &str, now: Ingredients, before: Option<Arc<Pool>>) -> Result<(Ingredients, Content), Error> {
        let config = &self.core.config;
        let settings = Settings {
            issuer: config.issuer.clone(),
            gateway_public_url: config.gateway_public_url.clone(),
            allowed_origins: config.allowed_origins.clone(),
        };
        let pool = pool.to_owned();
        let encoded = tokio::task::spawn_blocking(move || {
            let before = before.as_ref().map(|before| (&before.made_of, &before.content));
            let content = build::content(&pool, &now, &settings, before)?;
            Some((now, content))
        });
        encoded.await.ok().flatten().ok_or(Error::CutOff)
    }
}

fn owned<T>((pool, shared): (&String, &Arc<T>)) -> (String, Arc<T>) {
    (pool.clone(), Arc::clone(shared))
}

/// Encodes organisations, off the runtime's threads.
pub(super) async fn encode_orgs(
    keys: Arc<Keys>,
    rows: Vec<OrgRows>,
    mut api_keys: BTreeMap<Uuid, Vec<ApiKey>>,
) -> Result<Orgs, Error> {
    let encoded = tokio::task::spawn_blocking(move || {
        let mut parts = Orgs::new();
        for mut rows in rows {
            let id = rows.organization.id;
            let credentials = credentials(&keys, &mut rows)?;
            parts.insert(id, Arc::new(build::org_part(&rows, credentials, api_keys.remove(&id).unwrap_or_default())));
        }
        Ok(parts)
    });
    encoded.await.unwrap_or(Err(Error::CutOff))
}

/// The credentials of an organisation's servers. A server whose credential no key opens is switched off: it must not stop the others.
fn credentials(keys: &Keys, rows: &mut OrgRows) -> Result<Vec<UpstreamCredential>, Error> {
    let mut credentials = Vec::new();
    for server in &mut rows.servers {
        let Some(credential) = &server.credential else { continue };
        let id = server.id.to_string();
        let value = match keys.open(&credential_context(&id), &credential.wrapped) {
            Ok(value) => String::from_utf8(value.to_vec()).ok(), // the error would show the value
            Err(keys::Error::Unreadable) => None,
            Err(error) => return Err(error.into()),
        };
        match value {
            Some(value) => credentials.push(UpstreamCredential { id, header: credential.header.clone(), value }),
            None => {
                error!(server.id = id, "server {id} is switched off: no key opens its credential; set it again");
                (server.credential, server.disabled) = (None, true);
            }
        }
    }
    Ok(credentials)
}

/// What travels beside, per pool; the same allocation where nothing changed, so that streams see that.
fn besides(voids: &Voids, last: Option<&Published>) -> BTreeMap<String, Arc<Beside>> {
    let one = |pool: &String| {
        let beside = build::beside(pool, voids);
        let same = last.and_then(|last| last.beside.get(pool)).filter(|last| ***last == beside);
        (pool.clone(), same.cloned().unwrap_or_else(|| Arc::new(beside)))
    };
    voids.pools.iter().map(one).collect()
}

/// Wakes the publisher whenever somebody calls. Ends when the connection does; the supervisor starts it again.
pub async fn listen(core: Core, wake: Arc<Notify>) {
    let stop = core.tasks.stop_token().clone();
    let mut listener = match core.store.listen().await {
        Ok(listener) => listener,
        Err(error) => return debug!(%error, "cannot listen for new versions; polling goes on"),
    };
    // What was committed between the last look and this LISTEN.
    wake.notify_one();
    loop {
        tokio::select! {
            heard = listener.try_recv() => match heard {
                Ok(_) => wake.notify_one(),
                Err(error) => return debug!(%error, "cannot listen for new versions; polling goes on"),
            },
            () = stop.cancelled() => return,
        }
    }
}
