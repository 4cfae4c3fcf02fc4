//! Real Redis servers of a test's own: each on a free port.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

/// A server that keeps nothing on disk: killed, it forgets everything.
pub struct Server {
    pub port: u16,
    child: Child,
    _dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let all = ["--save", "", "--bind", "127.0.0.1", "--dir", &path].map(str::to_owned);
        // Another process may take a port that was free a moment ago.
        let attempt = |_| {
            let port = free_port();
            Some((port, launch(port, &all)?))
        };
        let (port, child) = (0..50).find_map(attempt).expect("a server that starts");
        Self { port, child, _dir: dir }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        // However busy the machine is.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the ports that outgoing connections get.
fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 8_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| [*port, *port + 10_000].iter().all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()))
        .expect("a free port")
}

/// A server that accepts connections; none if it ended, as it does where the port is taken.
fn launch(port: u16, arguments: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string()]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("redis-server is installed: scripts/ensure-redis");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
    if !ready {
        child.wait().unwrap();
        return None;
    }
    // Somebody has to read what it says later, or it would wait for that.
    std::thread::spawn(move || lines.for_each(drop));
    Some(child)
}
