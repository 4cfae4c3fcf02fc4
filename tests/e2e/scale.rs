//! The scale rig at a size that fits a test: it works, and what it counts is what distribution promises. Times are not judged here.

use mcpgw_tests::scale::{self, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_organisation_is_one_bundle_and_a_manifest_and_an_unchanged_reconnect_is_small() {
    let options = Options {
        streams: 10,
        organizations: 5,
        servers: 20,
        policies: 100,
        keys: 10,
        changes: 3,
        control_plane: None,
        patience: 60,
        quiet: true,
    };
    let report = scale::run(options).await.unwrap();
    assert_eq!(report.refused, 0, "every node found what its manifests say");
    assert!(report.resources > 7, "{} resources", report.resources);
    assert_eq!((report.propagation.len(), report.changes.len()), (30, 30));
    for change in &report.changes {
        let counted = (change.bundles, change.manifests, change.others, change.responses);
        assert_eq!(counted, (1, 1, 0, 2), "a change of one organisation on one stream: {change:?}");
    }
    for (what, traffic) in [("reconnect", &report.reconnect_traffic), ("restart", &report.restart_traffic)] {
        let messages = traffic.messages_received + traffic.messages_sent;
        assert!(messages > 0 && messages <= 2000, "{what}: {traffic:?}");
    }
    assert_eq!(report.compilations.len(), 4, "one node compiled the whole, then each change");
    assert!(report.table().lines().count() > 10 && report.json()["memory_per_stream"].is_u64());
}
