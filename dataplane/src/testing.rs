//! For tests: Redis servers of a test's own, each on a port of its own, and what fuzzers do with their input.
//!
//! Compiled for tests and under the feature `testing`; never part of a release.
#![allow(clippy::unwrap_used)] // a test may panic

pub mod fuzz;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// One that keeps nothing on disk: killed, it forgets everything.
pub struct RedisServer {
    pub port: u16,
    arguments: Vec<String>,
    child: Child,
    _dir: TempDir,
}

impl RedisServer {
    #[must_use]
    pub fn start() -> Self {
        Self::with(|_| Vec::new())
    }

    /// With arguments of the test's own; they may depend on the port.
    pub fn with(arguments: impl Fn(u16) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let common = ["--save", "", "--bind", "127.0.0.1", "--dir", &path].map(str::to_owned);
        let port = own_port();
        let port_flag = ["--port".to_owned(), port.to_string()];
        let arguments: Vec<_> = port_flag.into_iter().chain(common).chain(arguments(port)).collect();
        let child = launch(&arguments);
        Self { port, arguments, child, _dir: dir }
    }

    /// A Cluster of one, which has all slots.
    pub async fn cluster() -> Self {
        let server = Self::with(|_| vec!["--cluster-enabled".into(), "yes".into()]);
        let mut connection = server.connect().await;
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("ADDSLOTSRANGE").arg(0).arg(16383).exec_async(&mut connection).await.unwrap();
        loop {
            let state: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.unwrap();
            if state.contains("cluster_state:ok") {
                return server;
            }
            tokio::task::yield_now().await;
        }
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL, while others look on; [`RedisServer::restart`] waits for its end.
    pub fn strike(&self) {
        self.signal(Signal::KILL);
    }

    /// Starts it again at the same port.
    pub fn restart(&mut self) {
        self.child.wait().unwrap();
        self.child = launch(&self.arguments);
    }

    /// SIGSTOP: it answers nobody, and its connections stay.
    pub fn stall(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        // However busy the machine is.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }

    /// How many scripts it has run.
    pub async fn scripts(&self) -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.connect().await).await.unwrap();
        let calls = |line: &str| {
            let rest = ["cmdstat_eval:calls=", "cmdstat_evalsha:calls="].iter().find_map(|name| line.strip_prefix(name))?;
            rest.split(',').next()?.parse::<u64>().ok()
        };
        stats.lines().filter_map(calls).sum()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this process's until it ends: whoever listens there may go and come back. No outgoing connection gets it, and others who ask
/// here, in whatever process, get other ones.
#[must_use]
pub fn own_port() -> u16 {
    /// The nodes of a Redis Cluster talk over a port that is so much higher.
    const BUS: u16 = 10_000;
    const COUNT: u16 = 8_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = first_of_outgoing_connections() - BUS - COUNT;
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..COUNT)
        .map(|_| first + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| hold(*port) && is_free(*port) && is_free(*port + BUS))
        .expect("a free port")
}

/// Whether nobody else holds the port. What holds it is a name that goes with the process.
fn hold(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("mcpgw-test-port-{port}")).unwrap();
    UnixListener::bind_addr(&name).map(std::mem::forget).is_ok()
}

fn first_of_outgoing_connections() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    range.split_whitespace().next().unwrap().parse().unwrap()
}

/// A server that accepts connections.
fn launch(arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("redis-server is installed: scripts/ensure-redis");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.contains("Ready to accept connections")) {
        said.push(lines.next().unwrap_or_else(|| panic!("Redis ended:\n{}", said.join("\n"))));
    }
    // Somebody has to read what it says later, or it would wait for that.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
