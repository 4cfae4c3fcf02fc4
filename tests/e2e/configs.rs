//! Every file that we ship as an example is one that the programs take.

use std::path::{Path, PathBuf};

use figment::value::Dict;
use mcpgw_controlplane::config::Config as ControlPlane;
use mcpgw_dataplane::config::{Overrides, load};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a member of the workspace");
    let mut found: Vec<PathBuf> = root.join("configs").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    found
}

#[test]
fn both_planes_take_every_shipped_configuration() {
    for path in shipped() {
        load(Some(&path), Overrides::default()).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        // Files that point to a secret which only exists in production are read with one given.
        let key = "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU=";
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("master_key");
        std::fs::write(&secret, key).unwrap();
        let flags = Dict::from([("master_key_file".to_owned(), secret.display().to_string().into())]);
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
