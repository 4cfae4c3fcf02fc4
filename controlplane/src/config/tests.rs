use std::io::Write;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn flags(pairs: &[(&str, &str)]) -> Dict {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let file = file(&format!("database_url: postgres://file\nmaster_key: {KEY}\ntrust_domain: file.example\n"));
    let config = Config::load(Some(file.path()), flags(&[("trust_domain", "flag.example")])).unwrap();
    assert_eq!(config.trust_domain, "flag.example");
    assert_eq!(config.database_url.expose_secret(), "postgres://file");
    assert_eq!(config.access_token_seconds, 900);
}

#[test]
fn a_file_may_hold_the_settings_of_both_planes() {
    let file = file(&format!("controlplane:\n  database_url: postgres://x\n  master_key: {KEY}\ndataplane:\n  a: 1\n"));
    assert!(Config::load(Some(file.path()), Dict::new()).is_ok());
}

#[test]
fn all_problems_are_reported_at_once_with_the_nearest_known_setting() {
    let file = file("databse_url: postgres://x\nmigrate: 7\nadmin_listen: nowhere\naccess_token_seconds: 1\n");
    let Error(problems) = Config::load(Some(file.path()), flags(&[("adminlisten", "x")])).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    for key in ["databse_url", "adminlisten", "migrate", "admin_listen", "database_url", "master_key", "access_token_seconds"] {
        assert!(keys.contains(&key), "{key} is missing in {problems:?}");
    }
    assert!(problems[0].message.contains("`database_url`"), "{problems:?}");
}

#[test]
fn secrets_are_not_printed() {
    let file = file(&format!("database_url: postgres://u:canary@x\nmaster_key: {KEY}\n"));
    let config = Config::load(Some(file.path()), Dict::new()).unwrap();
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("canary") && !shown.contains(KEY), "{shown}");
}

#[test]
fn a_list_may_be_text_with_commas() {
    let file = file(&format!("database_url: postgres://x\nmaster_key: {KEY}\n"));
    let config = Config::load(Some(file.path()), flags(&[("node_server_names", "a.example, 10.0.0.1")])).unwrap();
    assert_eq!(config.node_server_names, ["a.example", "10.0.0.1"]);
}
