use std::fs::File;
use std::time::{Duration, SystemTime};

use mcp_gateway::proto::config::v1::{EndpointState, EndpointStatus, Endpoints, Revocation, ServerEndpoints};
use prost::Message;

use super::*;
use crate::xds::testing::Publisher;

/// A state directory as a node leaves it behind that ran version 4, revoked `k1`, and whose certificate has expired since.
fn left_behind() -> tempfile::TempDir {
    let (dir, publisher) = (tempfile::tempdir().unwrap(), Publisher::new());
    publisher.ca.identity_for((-7200, -3600)).save(dir.path()).unwrap();
    let restored = restore(dir.path(), &Live::new().unwrap(), &Stats::default()).unwrap();
    assert!(restored.received.is_none() && restored.revocation.is_none(), "nothing is there yet");
    restored.last_good.save(&publisher.received(4)).unwrap();
    let revocation = Revocation { api_keys: vec!["k1".into()], ..Revocation::default() };
    store::save(&restored.vault, dir.path(), store::REVOCATIONS, &revocation.encode_to_vec()).unwrap();
    let endpoint = EndpointStatus { url: "http://a.test/".into(), state: EndpointState::Drained.into() };
    let endpoints = Endpoints { servers: vec![ServerEndpoints { server_id: "s1".into(), endpoints: vec![endpoint] }] };
    store::save(&restored.vault, dir.path(), store::ENDPOINTS, &endpoints.encode_to_vec()).unwrap();
    dir
}

#[test]
fn a_node_with_an_expired_certificate_serves_what_is_on_disk_and_says_how_old_it_is() {
    let dir = left_behind();
    let file = std::fs::read_dir(dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let long_ago = SystemTime::now() - Duration::from_secs(500);
    File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    let (live, stats) = (Live::new().unwrap(), Stats::default());
    let restored = restore(dir.path(), &live, &stats).unwrap();
    assert_eq!(live.snapshot().unwrap().version().version, 4);
    assert!(live.revocations().key_revoked("k1"));
    assert!(live.drained().has("s1", &"http://a.test/".parse().unwrap()) && restored.endpoints.is_some());
    assert!(restored.received.is_some() && restored.revocation.is_some());
    assert!(stats.stale_seconds() >= 500 && !stats.is_confirmed());
    restored.last_good.confirm(&restored.received.unwrap().manifest).unwrap();
    let stats = Stats::default();
    restore(dir.path(), &live, &stats).unwrap();
    assert!(stats.stale_seconds() < 500, "it was confirmed since");
}

#[test]
fn nothing_is_served_while_nobody_can_say_what_was_revoked() {
    let dir = left_behind();
    std::fs::write(dir.path().join("revocations"), b"torn").unwrap();
    for _ in 0..2 {
        let live = Live::new().unwrap();
        let restored = restore(dir.path(), &live, &Stats::default()).unwrap();
        assert!(live.snapshot().is_none(), "and the next restart knows no better");
        assert!(restored.received.is_none() && restored.revocation.is_none());
    }
}

#[test]
fn states_of_endpoints_that_cannot_be_read_stop_nothing() {
    let dir = left_behind();
    std::fs::write(dir.path().join("endpoints"), b"torn").unwrap();
    let live = Live::new().unwrap();
    let restored = restore(dir.path(), &live, &Stats::default()).unwrap();
    assert!(live.snapshot().is_some() && restored.received.is_some() && restored.revocation.is_some());
    assert!(live.drained().is_empty() && restored.endpoints.is_none());
}

#[test]
fn a_lost_key_costs_what_was_on_disk_and_nothing_else() {
    let dir = left_behind();
    std::fs::write(dir.path().join("disk.key"), b"short").unwrap();
    std::fs::remove_file(dir.path().join("revocations")).unwrap();
    let live = Live::new().unwrap();
    let restored = restore(dir.path(), &live, &Stats::default()).unwrap();
    assert!(live.snapshot().is_none() && restored.received.is_none());
    restored.last_good.save(&Publisher::new().received(5)).unwrap();
}
