//! Documents across the planes: what a fleet exported, a lone node serves; it follows edits under traffic and survives bad ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use mcp_gateway::document::written;
use mcp_gateway::proto::admin::v1::document_service_client::DocumentServiceClient;
use mcp_gateway::proto::admin::v1::{ApplyOrganizationRequest, ExportOrganizationRequest, OrganizationDocument};
use mcpgw_dataplane::app::{Addresses, App};
use mcpgw_dataplane::config::{Config, Listen};
use mcpgw_dataplane::live::Live;
use mcpgw_tests::fleet::{Answer, Call, Fleet, Http, ORG, Rule, SERVER};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const RULE: Rule<'static> = Rule {
    name: "tester",
    server: SERVER,
    roles: &["tester"],
    anonymous: false,
    tools: &["tool_0"],
    prompts: &[],
    resources: &[],
};

/// A node that knows nothing but a file.
struct Lone {
    addresses: Addresses,
    live: Arc<Live>,
    file: PathBuf,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Lone {
    async fn start(document: &OrganizationDocument) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("org.yaml");
        write(&file, document);
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            listen: vec![Listen { address: local, certificates: Vec::new() }],
            admin_listen: local,
            state_dir: dir.path().join("state"),
            static_files: vec![file.clone()],
            ..Config::default()
        };
        let app = App::build(config).await.unwrap();
        let (addresses, live, stop) = (app.addresses().clone(), app.live().clone(), CancellationToken::new());
        let running = app.run(stop.clone());
        #[allow(clippy::disallowed_methods)] // lives as long as the test
        tokio::spawn(async move { running.await.unwrap() });
        Self { addresses, live, file, stop, _dir: dir }
    }

    async fn call(&self, key: &str) -> Answer {
        let url = format!("http://{}/o/{ORG}/servers/{SERVER}/mcp", self.addresses.listen[0]);
        Http::default().send(Call::tool(&url, key, "tool_0", &json!({}))).await.unwrap()
    }

    /// Calls, again and again, until `done` happens; every call is answered as a good one.
    async fn call_until(&self, key: &str, done: impl Future<Output = ()>) {
        let calling = async {
            loop {
                let answer = self.call(key).await;
                assert!(answer.text().is_some(), "{answer:?}");
            }
        };
        tokio::select! {
            biased;
            done = tokio::time::timeout(PATIENCE, done) => done.unwrap(),
            () = calling => {}
        }
    }

    /// Returns once the page has this line. There is no watch, so this asks again and again.
    async fn metric(&self, line: &str) {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            let url = format!("http://{}/metrics", self.addresses.admin);
            let page = Call { url, method: Method::GET, headers: Vec::new(), body: Vec::new().into() };
            let page = Http::default().send(page).await.unwrap();
            assert_eq!(page.status, StatusCode::OK);
            if String::from_utf8_lossy(&page.body).lines().any(|it| it == line) {
                return;
            }
        }
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Replaces the file whole, by renaming.
fn write(file: &Path, document: &OrganizationDocument) {
    let text = serde_saphyr::to_string(&written(document).unwrap()).unwrap();
    replace(file, &text);
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

async fn export(fleet: &Fleet) -> OrganizationDocument {
    let mut documents = DocumentServiceClient::new(fleet.admin.channel.clone());
    let request = fleet.admin.request(ExportOrganizationRequest { name: format!("organizations/{ORG}") });
    documents.export_organization(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_serves_what_a_fleet_exported_follows_edits_under_traffic_and_survives_bad_ones() {
    let fleet = Fleet::start().await.unwrap();
    let key = fleet.key(&["tester"]).await.unwrap();
    fleet.allow(RULE).await.unwrap();
    let exported = export(&fleet).await;
    let lone = Lone::start(&exported).await;
    let there = Http::default().send(Call::tool(&fleet.url(SERVER), &key, "tool_0", &json!({}))).await.unwrap();
    let here = lone.call(&key).await;
    assert_eq!((here.status, here.text()), (there.status, there.text()));
    assert!(here.text().is_some());

    // A bad edit, while calls go on: counted, and nothing else.
    let mut changed = lone.live.changed();
    replace(&lone.file, "organization: acme\nservers: { backend: { endpoints: [] } }\n");
    lone.call_until(&key, lone.metric("mcpgw_dataplane_static_loads_total{outcome=\"refused\"} 1")).await;
    assert!(!changed.has_changed().unwrap());

    // A good one that changes nothing for the caller, then one that does.
    let mut edited = exported.clone();
    edited.display_name = "Edited".into();
    write(&lone.file, &edited);
    lone.call_until(&key, async { changed.changed().await.unwrap() }).await;
    edited.policies.clear();
    write(&lone.file, &edited);
    tokio::time::timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    let denied = lone.call(&key).await;
    assert!(denied.text().is_none() && denied.message()["error"].is_object(), "{denied:?}");
    lone.metric("mcpgw_dataplane_static_loads_total{outcome=\"applied\"} 3").await;

    // What the fleet exported is what it is; what was edited is one version more for it.
    let mut documents = DocumentServiceClient::new(fleet.admin.channel.clone());
    let mut apply = async |document: OrganizationDocument| {
        let request = ApplyOrganizationRequest { document: Some(document), ..ApplyOrganizationRequest::default() };
        documents.apply_organization(fleet.admin.request(request)).await.unwrap().into_inner().config_version
    };
    assert_eq!(apply(exported).await, 0);
    let version = apply(edited).await;
    fleet.admin.wait(version).await.unwrap();
    let denied = Http::default().send(Call::tool(&fleet.url(SERVER), &key, "tool_0", &json!({}))).await.unwrap();
    assert!(denied.text().is_none(), "{denied:?}");
}
