//! Streams of changes: in the session of the caller's requests, telling what was asked for and can be told.

use mcp_gateway::proto::config::v1::Transport;
use serde_json::{Value, json};

use super::client::{Client, world};

const ID: &str = "io.modelcontextprotocol/subscriptionId";

#[tokio::test]
async fn a_stream_says_what_it_tells_then_tells_that_until_its_client_leaves() {
    for kind in [Transport::HttpSse, Transport::Websocket] {
        let (gateway, server) = world(kind).await;
        let client = Client::of(&gateway);
        let filter = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["repo://acme/a"]});
        let mut stream = client.send(json!("l"), "subscriptions/listen", json!({"notifications": filter})).await;
        let acknowledged = stream.next().await.unwrap();
        assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{kind:?}: {acknowledged}");
        let agreed = json!({"toolsListChanged": true, "resourceSubscriptions": ["repo://acme/a"]});
        assert_eq!(acknowledged["params"], json!({"notifications": agreed, "_meta": {ID: "l"}}), "{kind:?}");
        assert_eq!(server.heard("resources/subscribe")[0]["params"], json!({"uri": "repo://acme/a"}));
        let tell = |method: &str, params| server.tell(json!({"jsonrpc": "2.0", "method": method, "params": params}));
        tell("notifications/prompts/list_changed", json!({}));
        tell("notifications/resources/updated", json!({"uri": "repo://acme/b"}));
        tell("notifications/message", json!({"level": "error", "data": 1}));
        tell("notifications/resources/updated", json!({"uri": "repo://acme/a"}));
        tell("notifications/tools/list_changed", json!({}));
        let updated = stream.next().await.unwrap();
        assert_eq!(updated["params"], json!({"uri": "repo://acme/a", "_meta": {ID: "l"}}), "{kind:?}");
        let changed = stream.next().await.unwrap();
        assert_eq!(changed["method"], "notifications/tools/list_changed", "{kind:?}");
        let about_the_same = json!({"notifications": {"resourceSubscriptions": ["repo://acme/a"]}});
        let mut other = client.send(json!("m"), "subscriptions/listen", about_the_same).await;
        assert_eq!(other.next().await.unwrap()["params"]["_meta"], json!({ID: "m"}), "{kind:?}");
        assert_eq!(gateway.sessions().await, 1, "what a request does is told in the session in which it was made");
        drop(stream);
        // Whoever is left is told as before.
        tell("notifications/resources/updated", json!({"uri": "repo://acme/a"}));
        assert_eq!(other.next().await.unwrap()["params"]["_meta"], json!({ID: "m"}), "{kind:?}");
        assert_eq!(server.heard("resources/unsubscribe"), Vec::<Value>::new(), "{kind:?}");
        drop(other);
        let last = server.hears(|message| message["method"] == "resources/unsubscribe").await;
        assert_eq!(last["params"], json!({"uri": "repo://acme/a"}));
    }
}

#[tokio::test]
async fn resources_that_policy_keeps_from_the_caller_are_not_listened_for() {
    let (gateway, server) = world(Transport::Websocket).await;
    let filter = json!({"resourceSubscriptions": ["secret://x"]});
    let refused = Client::of(&gateway).send(json!(1), "subscriptions/listen", json!({"notifications": filter})).await;
    assert_ne!(refused.all().await[0]["error"]["code"], json!(null));
    assert!(server.seen().is_empty());
    let nothing = Client::of(&gateway).send(json!(2), "subscriptions/listen", json!({})).await;
    let status = nothing.status;
    assert_eq!((status, &nothing.all().await[0]["error"]["code"]), (400, &json!(-32602)));
}
