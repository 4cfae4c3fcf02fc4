//! Nonces that answer nothing, in requests that count all the same.

use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mcp_gateway::type_url::{MANIFEST, ORG_BUNDLE};
use mcpgw_controlplane::nodes::client::{add_org, all, answer, hello, manifest, published, row_where};
use tonic::Code;

use super::{bundle, chain, counted, names, settled};

#[tokio::test]
async fn nonce_reset_on_reconnect() {
    let (running, joined, mut stream) = settled().await;
    let version = add_org(&running, 1).await;
    stream.ack().await;
    let unanswered = stream.next().await;
    assert_eq!(manifest(&unanswered).version, version);
    drop(stream);
    row_where(&running, joined.id(), |row| !row.connected).await;

    // The node comes back, is sent the manifest under another nonce, and answers with the one it remembers.
    let mut stream = joined.discover(hello(&joined, &[])).await.unwrap();
    let resent = loop {
        let response = stream.next().await;
        if response.type_url == MANIFEST {
            break response;
        }
        stream.say(answer(&response)).await;
    };
    assert_ne!(resent.nonce, unanswered.nonce);
    stream.say(answer(&unanswered)).await;
    stream.nack(&unanswered, Code::InvalidArgument, "said on another stream").await;
    // Nothing follows from it: the chain still waits for its answer, so that what is newer is held back.
    let newer = add_org(&running, 2).await;
    published(&running).await;
    stream.quiet().await;
    assert_eq!(counted(&running, "applied_total"), 1, "the first version, on the first stream");
    assert_eq!(counted(&running, "refused_total{type=\"Manifest\"}"), 0);

    stream.say(answer(&resent)).await;
    let next = chain(&mut stream).await;
    assert_eq!(names(&next[0]), [bundle(2)]);
    assert_eq!(manifest(&next[1]).version, newer);
    row_where(&running, joined.id(), |row| row.applied.version == newer).await;
}

#[tokio::test]
async fn stale_nonce_unsubscribe_is_honoured() {
    let (running, _joined, mut stream) = settled().await;
    add_org(&running, 1).await;
    let first = chain(&mut stream).await;
    let stale = |request: DeltaDiscoveryRequest| DeltaDiscoveryRequest { response_nonce: first[0].nonce.clone(), ..request };
    // The nonce was answered long ago; the request gives everything of the type up.
    let unsubscribe =
        DeltaDiscoveryRequest { type_url: ORG_BUNDLE.into(), resource_names_unsubscribe: vec!["*".into()], ..Default::default() };
    stream.say(stale(unsubscribe)).await;
    let version = add_org(&running, 2).await;
    let next = stream.next().await;
    assert_eq!(next.type_url, MANIFEST, "no bundle any more: {next:?}");
    assert_eq!(manifest(&next).version, version);
    // Stale nonces, also those of another stream or of nobody, subscribe as well, and none of them answers the manifest.
    stream.say(stale(DeltaDiscoveryRequest { resource_names_subscribe: vec![bundle(2)], ..all(ORG_BUNDLE) })).await;
    let by_name = stream.next().await;
    assert_eq!(names(&by_name), [bundle(2)]);
    let foreign = |nonce: &str| DeltaDiscoveryRequest { response_nonce: nonce.into(), ..all(ORG_BUNDLE) };
    for nonce in ["another-1", "rubbish", &first[1].nonce] {
        stream.say(foreign(nonce)).await;
        assert_eq!(names(&stream.next().await), [bundle(1), bundle(2)], "{nonce}");
    }
    stream.quiet().await;
    assert_eq!(counted(&running, "applied_total"), 2, "the manifest was not answered");
}
