//! A client that knows only the official protobuf stubs subscribes to our discovery stream.

use std::fs;

use mcp_gateway::type_url;
use mcpgw_tests::fleet::Fleet;
use mcpgw_tests::peers::StockXds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_subscribes_and_receives_a_manifest() {
    let fleet = Fleet::start().await.unwrap();
    // The stock client borrows the identity of a node that enrolled itself.
    let identity = fleet.node.identity().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let client = StockXds {
        address: fleet.control.addresses().node.to_string(),
        ca: write("ca.pem", &identity.ca_pem),
        cert: write("node.pem", &identity.certificate_pem),
        key: write("node.key", &identity.key_pem),
        server_name: "localhost".to_owned(),
        node_id: identity.node_id.clone(),
        type_url: type_url::MANIFEST.to_owned(),
    };
    fleet.node.stop().await.unwrap();
    let first = client.first_response().await.unwrap();
    assert_eq!(first.type_url, type_url::MANIFEST);
    assert_eq!(first.resources.len(), 1, "{first:?}");
    assert_eq!(first.resources[0].name, "manifest/default");
    assert!(!first.nonce.is_empty() && first.resources[0].version.len() == 64, "{first:?}");
}
