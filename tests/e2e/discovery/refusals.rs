//! What a node refused: not sent again, not forgotten over GOAWAY and a new stream, and never in the way of a revocation.

use mcp_gateway::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use mcp_gateway::type_url::{MANIFEST, ORG_BUNDLE, REVOCATION};
use mcpgw_controlplane::nodes::client::{Discovering, add_org, answer, hello, manifest, published, row_where};
use mcpgw_controlplane::testing::Running;
use mcpgw_tests::frames::{self, Credentials, Frame};
use tonic::Code;

use super::{bodies, bundle, chain, holding, names, sent, settled, versions};

#[tokio::test]
async fn nack_is_not_resent_forever() {
    let (running, joined, mut stream) = settled().await;
    add_org(&running, 1).await;
    let refused = stream.next().await;
    assert_eq!((refused.type_url.as_str(), names(&refused)), (ORG_BUNDLE, vec![bundle(1).as_str()]));
    stream.nack(&refused, Code::InvalidArgument, "no").await;
    let marker = stream.next().await;
    assert_eq!(marker.type_url, MANIFEST);
    stream.nack(&marker, Code::InvalidArgument, "no").await;
    stream.quiet().await;
    // Saying no again, in whatever way, changes nothing.
    stream.nack(&marker, Code::InvalidArgument, "no").await;
    stream.nack(&refused, Code::Internal, "no").await;
    stream.quiet().await;

    // Other content goes on, without what was refused.
    let version = add_org(&running, 2).await;
    let next = chain(&mut stream).await;
    assert_eq!(names(&next[0]), [bundle(2)], "{next:?}");
    assert_eq!((next.len(), manifest(&next[1]).version), (2, version));
    stream.quiet().await;
    assert_eq!((sent(&running, "OrgBundle"), sent(&running, "Manifest")), (3, 3), "the first stream, the refused, the next");

    // A new stream gets it once more: the node may be another build by now. That is all, again.
    let mut held = versions(&next);
    held.retain(|(type_url, _), _| type_url == ORG_BUNDLE);
    drop(stream);
    let mut stream = joined.discover(holding(&joined, &held)).await.unwrap();
    let again = loop {
        let response = stream.next().await;
        if response.type_url == ORG_BUNDLE {
            break response;
        }
        stream.say(answer(&response)).await;
    };
    assert_eq!(names(&again), [bundle(1)]);
    stream.nack(&again, Code::InvalidArgument, "no").await;
    let marker = chain(&mut stream).await;
    assert_eq!(marker.last().unwrap().type_url, MANIFEST);
    stream.quiet().await;
    assert_eq!((sent(&running, "OrgBundle"), sent(&running, "Manifest")), (4, 4));
}

#[tokio::test]
async fn nack_then_goaway_then_fix_recovers() {
    let (running, joined, stream) = settled().await;
    drop(stream);
    let credentials = Credentials {
        ca: &joined.client.ca,
        certificate: &joined.response.credentials.as_ref().unwrap().certificate_pem,
        key: &joined.client.key.serialize_pem(),
    };
    let (channel, wire) = frames::connect(running.addresses.node.port(), &credentials).await.unwrap();
    let mut stream = Discovering::on(channel, hello(&joined, &[])).await.unwrap();
    let good = chain(&mut stream).await;
    let good_version = manifest(good.last().unwrap()).version;
    add_org(&running, 1).await;
    let bundle_of_1 = stream.ack().await;
    let refused = stream.next().await;
    stream.nack(&refused, Code::InvalidArgument, "org 1: no").await;
    row_where(&running, joined.id(), |row| row.problems == ["org 1: no"]).await;

    // The control plane stops in good order: it ends the call with a status, and says GOAWAY, not just a closed socket.
    let config = (*running.core.config).clone();
    let (ended, stopped) = tokio::join!(stream.end(), running.stop());
    stopped.unwrap();
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    drop(stream);
    let wire = wire.until_closed().await;
    let goaway = wire.iter().position(|frame| matches!(frame, Frame::GoAway { .. })).expect("GOAWAY");
    let status = wire.iter().position(|frame| *frame == Frame::Headers { stream: 1, end: true }).expect("a status");
    // First "no new streams", then the end of the one there is; RST_STREAM without an error only says that requests are not read
    // any more.
    assert_eq!(wire[goaway], Frame::GoAway { last: u32::MAX >> 1, error: 0 });
    assert!(goaway < status && !wire[goaway..].contains(&Frame::Data { stream: 1 }), "{wire:?}");
    assert!(wire[status + 1..].iter().all(|frame| *frame == Frame::Reset { stream: 1, error: 0 }), "{wire:?}");
    assert!(!wire[..status].iter().any(|frame| matches!(frame, Frame::Reset { .. })), "{wire:?}");

    // The next one is asked for every type again, and tells what the node does not run, once.
    let running = Running::with(config).await;
    published(&running).await;
    let joined = joined.at(running.addresses.node);
    let held = versions(&good[1..good.len() - 1]);
    let mut stream = joined.discover(holding(&joined, &held)).await.unwrap();
    let mut again = Vec::new();
    while again.last().is_none_or(|last: &DeltaDiscoveryResponse| last.type_url != MANIFEST) {
        again.push(stream.next().await);
        let last = again.last().expect("just pushed");
        match last.type_url.as_str() {
            MANIFEST => stream.nack(last, Code::InvalidArgument, "org 1: no").await,
            _ => stream.say(answer(last)).await,
        }
    }
    let told: Vec<_> = again.iter().filter(|response| response.type_url == ORG_BUNDLE).flat_map(names).collect();
    assert_eq!(told, [bundle(1)]);
    assert_eq!(bodies(&again)[&(ORG_BUNDLE.into(), bundle(1))], bundle_of_1.resources[0], "the same bytes");
    stream.quiet().await;
    let row = row_where(&running, joined.id(), |row| row.connected).await;
    assert_eq!(row.applied.version, good_version);

    // And the repair arrives on that very stream.
    let version = add_org(&running, 2).await;
    let fixed = chain(&mut stream).await;
    assert_eq!(manifest(fixed.last().unwrap()).version, version);
    row_where(&running, joined.id(), |row| row.applied.version == version && row.problems.is_empty()).await;
}

#[tokio::test]
async fn a_stuck_chain_holds_no_revocation_up() {
    let (running, _joined, mut stream) = settled().await;
    add_org(&running, 1).await;
    // The bundle is never answered and neither is the manifest.
    assert_eq!(stream.next().await.type_url, ORG_BUNDLE);
    assert_eq!(stream.next().await.type_url, MANIFEST);
    let revoke = "WITH o AS (SELECT id FROM organizations WHERE slug = 'org1') \
        INSERT INTO api_keys (id, uid, org_id, secret_sha256, revoked_at) \
        SELECT 'aaaaaaaaaaaaaaaa', gen_random_uuid(), id, sha256('x'), now() FROM o";
    sqlx::query(revoke).execute(&mut running.sql().await).await.unwrap();
    running.core.publications.wake();
    let next = stream.next().await;
    assert_eq!(next.type_url, REVOCATION);
    // Newer versions wait, with one place for them all; the next revocation does not.
    for n in 2..=4 {
        add_org(&running, n).await;
    }
    published(&running).await;
    sqlx::query("UPDATE api_keys SET id = 'bbbbbbbbbbbbbbbb'").execute(&mut running.sql().await).await.unwrap();
    running.core.publications.wake();
    assert_eq!(stream.next().await.type_url, REVOCATION);
    stream.quiet().await;
}
