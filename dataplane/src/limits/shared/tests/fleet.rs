//! Eight limiters over one Redis, at five times the limit: never more than the limit in any window, whatever happens to Redis.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::*;

const NODES: u32 = 8;

/// When a call was made and when it was decided; what was admitted was counted in between.
type Admitted = (Instant, Instant);

/// What eight nodes do.
struct Fleet {
    nodes: Vec<Node>,
    limit: Limit,
    asked: AtomicUsize,
    admitted: watch::Sender<usize>,
    over: AtomicBool,
}

impl Fleet {
    async fn start(server: &RedisServer, limit: Limit) -> Self {
        let nodes = join_all((0..NODES).map(|_| Node::start(server, NODES))).await;
        Self { nodes, limit, asked: AtomicUsize::new(0), admitted: watch::Sender::new(0), over: AtomicBool::new(false) }
    }

    /// Every node at five times its part, until `script` is over.
    async fn overload(&self, script: impl Future<Output = ()>) -> Vec<Admitted> {
        let window = self.limit.windows[0];
        let pause = window.length * NODES / u32::try_from(window.limit * 5).unwrap();
        let loads = join_all(self.nodes.iter().map(|node| self.load(node, pause)));
        let until = async {
            script.await;
            self.over.store(true, Relaxed);
        };
        let (loads, ()) = tokio::join!(loads, until);
        loads.into_iter().flatten().collect()
    }

    async fn load(&self, node: &Node, pause: Duration) -> Vec<Admitted> {
        let mut turn = tokio::time::interval(pause);
        let mut admitted = Vec::new();
        while !self.over.load(Relaxed) {
            turn.tick().await;
            let asked = Instant::now();
            self.asked.fetch_add(1, Relaxed);
            match node.ask(&[demand(&self.limit)]).await {
                Ok(_) => {
                    admitted.push((asked, Instant::now()));
                    self.admitted.send_modify(|admitted| *admitted += 1);
                }
                Err(refusal) => assert!(matches!(refusal.why, Why::Window { .. }), "{refusal:?}"),
            }
        }
        admitted
    }

    /// Returns when as much as `limits` times the limit was admitted from now on.
    async fn admits(&self, limits: f64) {
        let mut admitted = self.admitted.subscribe();
        let goal = *admitted.borrow_and_update() + (limits * self.limit.windows[0].limit as f64) as usize;
        admitted.wait_for(|admitted| *admitted >= goal).await.unwrap();
    }

    fn decisions(&self, how: How) -> u64 {
        self.nodes.iter().map(|node| node.stats.decisions(how, true)).sum()
    }

    /// The most that was admitted in any period of the window's length.
    fn worst(&self, admitted: &[Admitted]) -> usize {
        let length = self.limit.windows[0].length;
        let within =
            |start: Instant| admitted.iter().filter(|(asked, decided)| *asked >= start && *decided < start + length).count();
        admitted.iter().map(|(asked, _)| within(*asked)).max().unwrap_or(0)
    }

    /// What was admitted, of what could have been in the time that it took.
    fn yielded(&self, admitted: &[Admitted]) -> f64 {
        let window = self.limit.windows[0];
        let first = admitted.iter().map(|(asked, _)| *asked).min().unwrap();
        let last = admitted.iter().map(|(_, decided)| *decided).max().unwrap();
        let windows = (last - first).as_secs_f64() / window.length.as_secs_f64();
        // The first window's is admitted at once, so that there is one more of them than have passed.
        admitted.len() as f64 / (window.limit as f64 * (windows + 1.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_limiters_at_five_times_the_limit_admit_the_limit_and_never_more() {
    let server = RedisServer::start();
    // Too small to be leased by eight.
    let fleet = Fleet::start(&server, limit(&[(60, 1)], LimitAway::Share)).await;
    let admitted = fleet.overload(fleet.admits(4.0)).await;
    println!("worst window: {} of 60; {:.2} of what could be", fleet.worst(&admitted), fleet.yielded(&admitted));
    assert_eq!(fleet.decisions(How::Lease), 0);
    assert_eq!(fleet.decisions(How::Redis), admitted.len() as u64, "nothing was decided without Redis");
    assert_eq!(fleet.worst(&admitted), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_leases_they_admit_no_more_and_hardly_less() {
    let server = RedisServer::start();
    let fleet = Fleet::start(&server, limit(&[(1000, 2)], LimitAway::Share)).await;
    let admitted = fleet.overload(fleet.admits(5.0)).await;
    let (worst, yielded, leased) = (fleet.worst(&admitted), fleet.yielded(&admitted), fleet.decisions(How::Lease));
    let (asked, admitted) = (fleet.asked.load(Relaxed), admitted.len());
    println!(
        "worst window: {worst} of 1000; {yielded:.2} of what could be; {asked} asked, {admitted} admitted, {leased} by leases"
    );
    assert!(worst <= 1000, "{worst}");
    // How much of every window is used is up to how busy the machine is: tokens that nobody gets to spend are lost. Of one it can be told.
    assert!(worst >= 875, "all nodes together hold an eighth at most: {worst}");
    assert!(leased > 100, "{leased}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_started_again_empty_costs_no_error_and_hardly_a_call_too_many() {
    for (most, leases) in [(60, false), (2000, true)] {
        let mut server = RedisServer::start();
        let fleet = Fleet::start(&server, limit(&[(most, 2)], LimitAway::Share)).await;
        let script = async {
            fleet.admits(2.5).await;
            server.kill();
            fleet.admits(1.5).await;
            server.restart();
            for node in &fleet.nodes {
                node.until_away(false).await;
            }
            fleet.admits(3.0).await;
        };
        let admitted = fleet.overload(script).await;
        let (worst, alone, leased) = (fleet.worst(&admitted), fleet.decisions(How::Share), fleet.decisions(How::Lease));
        println!("worst window: {worst} of {most}; {alone} of {} without Redis, {leased} by leases", admitted.len());
        assert!(alone as f64 > most as f64, "it was away: {alone}");
        assert_eq!(leased > 0, leases, "{leased}");
        assert!(worst as f64 <= most as f64 * 1.1, "{worst} of {most}");
    }
}
