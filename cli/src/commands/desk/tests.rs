use http::StatusCode;
use serde_json::json;

use super::*;
use crate::failure::{describe, exit_code};

#[test]
fn nothing_of_a_value_becomes_part_of_the_query() {
    assert_eq!(escaped("time-2"), "time-2");
    assert_eq!(escaped("a&follow=1 ü"), "a%26follow%3D1%20%C3%BC");
    let order = Order::get("/stdio/logs").with("server", "a&b").with("org", "acme");
    assert_eq!(order.target(), "/stdio/logs?server=a%26b&org=acme");
}

#[test]
fn a_login_is_for_one_organisation() {
    let (acme, other) = ("organizations/acme", Some("other"));
    assert!(of_login(acme, None).is_ok());
    assert!(of_login(acme, Some("acme")).is_ok());
    assert!(of_login(acme, Some("organizations/acme")).is_ok());
    for (saved, meant, said) in [
        (acme, other, "the saved login is for organizations/acme, not for organizations/other: run `mcpgw login --org other`"),
        ("", other, "the saved login is for no organisation: run `mcpgw login --org other`"),
        ("", None, "the saved login is for no organisation: run `mcpgw login --org SLUG`"),
    ] {
        let failure = of_login(saved, meant).unwrap_err();
        assert!(matches!(&failure, Failure::Refused(words) if words == said), "{failure}");
    }
}

fn rpc(status: StatusCode, data: Value) -> Error {
    Error::Rpc { status, code: -31_000, message: "so it is".into(), data, request_id: None }
}

#[test]
fn refusals_have_the_documented_exit_codes_and_name_silent_nodes() {
    for (status, code) in [(400, 2), (401, 4), (403, 4), (404, 3), (413, 2), (500, 1), (503, 6), (504, 6)] {
        let error = refused(rpc(StatusCode::from_u16(status).unwrap(), Value::Null));
        assert_eq!(exit_code(&error), code, "{status}: {error}");
    }
    let data = json!({"unreachable": [{"node": "n1", "why": "away"}, {"node": "n2", "why": "slow"}]});
    let error = refused(rpc(StatusCode::SERVICE_UNAVAILABLE, data));
    assert_eq!(describe(&error), "error: so it is\n  node n1: away\n  node n2: slow");
}

#[test]
fn what_was_done_on_some_nodes_only_is_not_done() {
    let text = r#"{"reached": 1, "unreachable": [{"node": "n1", "why": "away"}]}"#;
    let mut answer: Answer<Done> = serde_json::from_str(text).unwrap();
    assert!(matches!(answer.complete(), Err(Failure::Unreachable(words)) if words.ends_with("\n  node n1: away")));
    // A node that is silent twice is one node.
    answer.miss(vec![Unreachable { node: "n1".into(), why: "again".into() }]);
    assert_eq!(answer.unreachable.len(), 1);
    assert_eq!(
        serde_json::to_value(&answer).unwrap(),
        json!({"reached": 1, "found": false, "unreachable": [{"node": "n1", "why": "away"}]})
    );
    answer.unreachable.clear();
    assert!(answer.complete().is_ok());
}
