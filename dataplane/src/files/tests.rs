use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::{Files, LoadError, check};
use crate::config::Config;
use crate::live::Live;
use crate::metrics::Metrics;

const ORG: &str = "\
organization: acme
servers:
  time:
    endpoints: [{ url: 'http://127.0.0.1:9/mcp' }]
    upstreamCredential: { header: authorization, value_file: token }
";

struct Node {
    dir: tempfile::TempDir,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap(), live: Arc::new(Live::new().unwrap()), metrics: Arc::default() };
        node.write("token", "Bearer one\n");
        node.write("org.yaml", ORG);
        node
    }

    /// Replaces a file whole, by renaming, as editors do: another inode is another file whatever the clock says.
    fn write(&self, name: &str, text: &str) {
        replace(&self.dir.path().join(name), text);
    }

    async fn load(&self) -> Result<Files, LoadError> {
        self.load_all(&["org.yaml"]).await
    }

    async fn load_all(&self, names: &[&str]) -> Result<Files, LoadError> {
        let config = Config {
            static_files: names.iter().map(|name| self.dir.path().join(name)).collect(),
            state_dir: self.dir.path().join("state"),
            ..Config::default()
        };
        Files::load(&config, &self.live, &self.metrics, &Handle::current()).await
    }

    fn credential(&self) -> String {
        let snapshot = self.live.snapshot().unwrap();
        let (_, server) = snapshot.server_by_slug("acme", "time").unwrap();
        snapshot.upstream_credential(server.credential_id.as_deref().unwrap()).unwrap().value.clone()
    }

    fn servers(&self) -> usize {
        self.live.snapshot().unwrap().orgs().map(|org| org.servers().count()).sum()
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn an_edit_is_followed_and_one_that_does_not_fit_changes_nothing() {
    let node = Node::new();
    let mut files = node.load().await.unwrap();
    let first = node.live.snapshot().unwrap();
    assert_eq!(node.credential(), "Bearer one");
    node.write("org.yaml", "organization: acme\nservers: { time: { endpoints: [] } }");
    files.look().await;
    assert_eq!(node.servers(), 1);
    assert_eq!(node.live.snapshot().unwrap().version(), first.version(), "what was good stays");
    assert!(!node.metrics.discovery.is_confirmed());
    let more = ORG.replace("servers:", "servers:\n  more: { endpoints: [{ url: 'http://127.0.0.1:9/' }] }");
    node.write("org.yaml", &more);
    files.look().await;
    assert_eq!(node.servers(), 2);
    assert!(node.live.snapshot().unwrap().version() > first.version());
    assert!(node.metrics.discovery.is_confirmed());
}

#[tokio::test]
async fn a_file_that_does_not_fit_holds_up_no_other() {
    let node = Node::new();
    let other = "organization: other\nservers: { a: { endpoints: [{ url: 'http://127.0.0.1:9/' }] } }\n";
    node.write("other.yaml", other);
    let mut files = node.load_all(&["org.yaml", "other.yaml"]).await.unwrap();
    node.write("org.yaml", "organization: acme\nservers: [");
    node.write("other.yaml", &other.replace("{ a:", "{ b:"));
    files.look().await;
    let snapshot = node.live.snapshot().unwrap();
    assert!(snapshot.server_by_slug("acme", "time").is_some(), "as it was");
    assert!(snapshot.server_by_slug("other", "b").is_some() && snapshot.server_by_slug("other", "a").is_none());
    node.write("org.yaml", other);
    files.look().await;
    assert!(node.live.snapshot().unwrap().server_by_slug("acme", "time").is_some(), "two files cannot be of one organisation");
    assert!(!node.metrics.discovery.is_confirmed());
}

#[tokio::test]
async fn a_credential_in_a_file_of_its_own_is_watched_too() {
    let node = Node::new();
    let mut files = node.load().await.unwrap();
    node.write("token", "Bearer two\n");
    files.look().await;
    assert_eq!(node.credential(), "Bearer two");
    let version = node.live.snapshot().unwrap().version();
    node.write("org.yaml", ORG);
    files.look().await;
    assert_eq!(node.live.snapshot().unwrap().version(), version, "nothing has changed but the file's date");
}

#[tokio::test]
async fn a_restart_seals_sessions_with_the_same_key() {
    let node = Node::new();
    let key = |node: &Node| node.live.snapshot().unwrap().session_keys().current().unwrap().key.clone();
    node.load().await.unwrap();
    let first = key(&node);
    let again = Node { live: Arc::new(Live::new().unwrap()), ..node };
    again.load().await.unwrap();
    assert_eq!(key(&again), first);
}

#[tokio::test]
async fn a_start_with_files_that_do_not_fit_says_all_that_is_wrong() {
    let node = Node::new();
    node.write("org.yaml", &ORG.replace("time:", "Time:").replace("token", "none"));
    let paths = [node.dir.path().join("org.yaml"), node.dir.path().join("missing.yaml")];
    let told = check(&paths).unwrap_err().to_string();
    let file = paths[0].display();
    assert!(told.contains(&format!("{file}: servers.Time.upstreamCredential.value_file: ")), "{told}");
    assert!(told.contains("missing.yaml: cannot be read"), "{told}");
    node.write("org.yaml", &ORG.replace("time:", "Time:"));
    let Err(error) = node.load().await else { panic!("it does not fit") };
    assert!(error.to_string().contains("servers.Time: "), "{error}");
    assert!(node.live.snapshot().is_none());
}
