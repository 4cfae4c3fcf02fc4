//! Renewal against a control plane with real certificates.

use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinSet;

use super::*;
use crate::node::testing::{Ca, Desk, NODE, POOL};

/// Runs renewal of an identity that holds from `life.0` to `life.1` seconds from now, until it is a new one.
async fn renewed(life: (i64, i64), ask: bool) -> Arc<Identity> {
    let ca = Arc::new(Ca::new());
    let desk = Desk::new(&ca);
    let control = desk.open().await;
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::generate().unwrap();
    desk.hpke.send_replace(keys.hpke_public().to_vec());
    let credentials = ca.credentials(&keys.certificate_request().unwrap(), keys.hpke_public(), life);
    let renewal = Renewal::new(dir.path().to_owned(), keys.into_identity(NODE, POOL, credentials).unwrap());
    let mut identity = renewal.identity();
    let uplink = Arc::new(Uplink::new(control.replicas.clone(), renewal.identity(), 0));
    if ask {
        renewal.asked().notify_one();
    }
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(renewal.run(Arc::clone(&uplink), stop.clone()));
    tokio::time::timeout(Duration::from_secs(30), identity.changed()).await.expect("it is renewed").unwrap();
    let fresh = Arc::clone(&identity.borrow());
    assert_eq!(Identity::load(dir.path()).unwrap().unwrap().certificate_pem, fresh.certificate_pem, "on disk too");
    uplink.link().await.expect("the new certificate is good for a connection");
    let recovered = u32::from(life.1 <= 0);
    assert_eq!((desk.renewals.load(Relaxed), desk.recoveries.load(Relaxed)), (1 - recovered, recovered));
    stop.cancel();
    tasks.join_all().await;
    fresh
}

#[tokio::test]
async fn a_certificate_is_renewed_past_the_middle_of_its_life() {
    // Three quarters through: past the middle however the moment is spread.
    let fresh = renewed((-3600, 1200), false).await;
    assert!(fresh.not_after > now() + 3600);
    assert_eq!(fresh.node_id, NODE);
}

#[tokio::test]
async fn a_node_whose_certificate_expired_comes_back_by_itself() {
    let fresh = renewed((-7200, -3600), false).await;
    assert!(fresh.not_after > now() + 3600);
    assert_eq!(fresh.node_id, NODE);
}

#[tokio::test]
async fn credentials_are_renewed_when_somebody_needs_newer_keys() {
    renewed((-60, 36_000), true).await;
}
