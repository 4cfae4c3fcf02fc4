//! Every file that we ship as an example is one that the programs take.

use std::path::{Path, PathBuf};

use figment::value::Dict;
use mcp_gateway::document::{Document, Lone, compile};
use mcp_gateway::proto::admin::v1::OrganizationDocument;
use mcp_gateway::proto::config::v1::SessionKey;
use mcp_gateway::snapshot::Version;
use mcpgw_controlplane::config::Config as ControlPlane;
use mcpgw_dataplane::config::{Overrides, load};

/// Every file in `configs/`: settings of processes, and documents of organisations.
fn shipped() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a member of the workspace");
    let mut found: Vec<PathBuf> = root.join("configs").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    let of_organization =
        |path: &PathBuf| std::fs::read_to_string(path).unwrap().lines().any(|it| it.starts_with("organization:"));
    found.into_iter().partition(|path| !of_organization(path))
}

#[test]
fn every_shipped_document_compiles_for_a_node() {
    let (_, documents) = shipped();
    assert!(documents.len() >= 2, "{documents:?}");
    for path in documents {
        let text = std::fs::read_to_string(&path).unwrap();
        let read = Document::<OrganizationDocument>::parse(&text, &mut |_| Ok("a secret that is elsewhere".into()));
        let document = read.unwrap_or_else(|faults| panic!("{}: {faults}", path.display())).resource;
        let session_key = SessionKey { key_id: "s".into(), key: vec![0; 32].into(), current: true };
        let with = Lone { session_key, version: Version { epoch: 1, version: 1 }, written_at_ms: 1 };
        let compiled = compile(&[(path.display().to_string(), document)], &with, None);
        let snapshot = compiled.unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(snapshot.orgs().count(), 1);
    }
}

#[test]
fn both_planes_take_every_shipped_configuration() {
    for path in shipped().0 {
        load(Some(&path), Overrides::default()).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        // Files that point to a secret which only exists in production are read with one given.
        let key = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU=";
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("master_key");
        std::fs::write(&secret, key).unwrap();
        let files = ["master_key_file", "audit_checkpoint_key_file"];
        let flags = Dict::from(files.map(|file| (file.to_owned(), secret.display().to_string().into())));
        ControlPlane::load(Some(&path), flags).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
    }
}

#[test]
fn the_compose_file_is_yaml_and_names_the_parts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let compose: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let services = compose["services"].as_object().unwrap();
    for part in ["postgres", "redis", "controlplane", "dataplane"] {
        assert!(services.contains_key(part), "{part}");
    }
}
