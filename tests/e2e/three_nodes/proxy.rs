//! nginx before the nodes, round robin per request.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use mcpgw_tests::program::own_addresses;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A running proxy.
pub struct Proxy {
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Proxy {
    pub async fn before(nodes: &[SocketAddr]) -> anyhow::Result<Self> {
        let [address] = own_addresses();
        let directory = tempfile::tempdir()?;
        let place = directory.path().display();
        let upstreams: String = nodes.iter().map(|node| format!("server {node} max_fails=0;\n")).collect();
        let text = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n access_log off; client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};\n\
             uwsgi_temp_path {place}; scgi_temp_path {place};\n\
             upstream nodes {{ {upstreams} keepalive 64; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_buffering off;\n\
             proxy_request_buffering off; proxy_read_timeout 600s; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;\n\
             proxy_next_upstream error; }} }}\n}}\n"
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, text)?;
        let known = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/opt/homebrew/bin/nginx", "/usr/bin/nginx"];
        let program =
            known.into_iter().find(|place| Path::new(place).exists()).context("no nginx: scripts/ensure-nginx installs it")?;
        let mut command = Command::new(program);
        command.arg("-e").arg(directory.path().join("start.log")).arg("-c").arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn()?;
        let listening = async {
            let mut turn = tokio::time::interval(std::time::Duration::from_millis(10));
            while tokio::net::TcpStream::connect(address).await.is_err() {
                turn.tick().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), listening).await.context("nginx does not listen")?;
        Ok(Self { address, child, _directory: directory })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Killed, the master would leave its worker behind.
        if let Some(id) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }
}
