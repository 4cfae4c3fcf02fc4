use futures_util::FutureExt as _;

use super::super::post::{Posted, post};
use super::*;

const URI: &str = "file:///a";

/// A hub with some sessions, named from 1 on.
struct World {
    hub: Hub,
    ends: Vec<Posted>,
}

impl World {
    fn new(sessions: usize) -> Self {
        let opening = Opening::of(r#"{"protocolVersion":"2025-11-25","capabilities":{"tasks":{},"tools":{}}}"#).unwrap();
        let mut hub = Hub::new("s".into(), opening);
        let join = |hub: &mut Hub| {
            let (post, posted) = post();
            hub.join(post);
            posted
        };
        let ends = (0..sessions).map(|_| join(&mut hub)).collect();
        Self { hub, ends }
    }

    fn ask(&mut self, session: u64, own: u64, text: &str) {
        self.hub.say(session, &ToServer::new(Bytes::copy_from_slice(text.as_bytes()), Kind::Request(own)));
    }

    /// A request with this number and method.
    fn request(&mut self, session: u64, own: u64, method: &str, params: &str) {
        self.ask(session, own, &format!(r#"{{"jsonrpc":"2.0","id":{own},"method":"{method}","params":{params}}}"#));
    }

    fn hear(&mut self, text: &str) {
        self.hub.hear(&Bytes::copy_from_slice(text.as_bytes()));
    }

    /// What is to be written to the process.
    fn written(&mut self) -> Vec<String> {
        self.hub.outbox.drain(..).map(|message| String::from_utf8(message.to_vec()).unwrap()).collect()
    }

    /// What a session has heard since it was last asked.
    fn heard(&mut self, session: u64) -> Vec<FromServer> {
        let end = &mut self.ends[usize::try_from(session).unwrap() - 1];
        std::iter::from_fn(|| end.next().now_or_never().flatten()).collect()
    }

    /// The same where it is messages.
    fn messages(&mut self, session: u64) -> Vec<String> {
        let text = |heard| match heard {
            FromServer::Message { message, .. } => String::from_utf8(message.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        self.heard(session).into_iter().map(text).collect()
    }

    fn subscribed(sessions: usize) -> Self {
        let mut world = Self::new(sessions);
        for session in 1..=sessions as u64 {
            world.request(session, 1, "resources/subscribe", &format!(r#"{{"uri":"{URI}"}}"#));
        }
        world.hear(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert_eq!(world.written().len(), 1, "once for all");
        for session in 1..=sessions as u64 {
            assert_eq!(world.messages(session), [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]);
        }
        world
    }
}

fn result(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

#[test]
fn everything_but_ids_and_tokens_stays_byte_for_byte() {
    let mut world = World::new(2);
    world.request(1, 40, "ping", "{}");
    world.written();
    world.ask(
        2,
        7,
        r#"{ "id":7,"params":{"n":123456789012345678901234567890 , "_meta":{"progressToken": 7},"z":1.10},"method":"x"} "#,
    );
    let sent = r#"{ "id":2,"params":{"n":123456789012345678901234567890 , "_meta":{"progressToken": 2},"z":1.10},"method":"x"} "#;
    assert_eq!(world.written(), [sent]);
    world
        .hear(r#" {"method":"notifications/progress","params":{"progress":0.10, "progressToken":2,"big":98765432109876543210}}"#);
    world.hear(r#"{"result" : {"n":98765432109876543210, "id":2},"id":"2"}"#);
    let heard = [
        r#" {"method":"notifications/progress","params":{"progress":0.10, "progressToken":7,"big":98765432109876543210}}"#,
        r#"{"result" : {"n":98765432109876543210, "id":2},"id":7}"#,
    ];
    assert_eq!(world.messages(2), heard);
    assert!(world.messages(1).is_empty());
}

#[test]
fn what_comes_late_or_was_not_asked_for_is_nobodys() {
    let mut world = World::new(2);
    world.request(1, 1, "tools/call", r#"{"_meta":{"progressToken":1}}"#);
    world.request(2, 1, "tools/call", "{}");
    let cancelled = ToServer::new(
        Bytes::from_static(br#"{"method":"notifications/cancelled","params":{"requestId":1,"reason":"r"}}"#),
        Kind::Cancelled(1),
    );
    world.hub.say(2, &cancelled);
    assert_eq!(world.written()[2], r#"{"method":"notifications/cancelled","params":{"requestId":2,"reason":"r"}}"#);
    for token in ["2", "3", "\"x\"", "{}"] {
        world.hear(&format!(r#"{{"method":"notifications/progress","params":{{"progressToken":{token}}}}}"#));
        world.hear(&format!(r#"{{"id":{token},"result":{{}}}}"#));
    }
    world.hear(&result(1));
    world.hear(&result(1));
    world.hear(r#"{"method":"notifications/progress","params":{"progressToken":1}}"#);
    assert_eq!((world.messages(1), world.messages(2).len()), (vec![result(1)], 0));
    assert!(world.hub.in_flight.is_empty());
}

#[test]
fn there_are_no_tasks() {
    let mut world = World::new(1);
    let message = Bytes::from_static(br#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#);
    world.hub.say(1, &ToServer::new(message, Kind::Initialize(1)));
    let opened = world.messages(1).remove(0);
    assert!(opened.contains(r#""capabilities":{"tools":{}}"#), "{opened}");
    for method in ["tasks/list", "tasks/get", "tasks/result", "tasks/cancel"] {
        world.request(1, 2, method, r#"{"taskId":"t"}"#);
        assert!(world.messages(1).remove(0).contains(r#""id":2,"error":{"code":-32601,"#), "{method}");
    }
    world.request(1, 3, "tools/call", r#"{"name":"a","task":{"ttl":1}}"#);
    assert_eq!(world.written(), [r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#]);
    world.hear(r#"{"method":"notifications/tasks/status","params":{"taskId":"t"}}"#);
    assert!(world.messages(1).is_empty());
}

#[test]
fn updates_go_to_those_whom_the_process_agreed_to_tell() {
    let mut world = World::subscribed(2);
    world.request(1, 2, "resources/unsubscribe", &format!(r#"{{"uri":"{URI}"}}"#));
    assert_eq!((world.written().len(), world.messages(1)), (0, vec![result(2)]));
    let updated = format!(r#"{{"method":"notifications/resources/updated","params":{{"uri":"{URI}/b"}}}}"#);
    world.hear(&updated);
    assert_eq!((world.messages(1).len(), world.messages(2)), (0, vec![updated]));
    // Refused: it does not count, and the refusal is the session's own.
    world.request(1, 3, "resources/subscribe", r#"{"uri":"file:///secret"}"#);
    world.written();
    world.hear(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32002,"message":"no"}}"#);
    assert_eq!(world.messages(1), [r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32002,"message":"no"}}"#]);
    world.hear(r#"{"method":"notifications/resources/updated","params":{"uri":"file:///secret"}}"#);
    assert!(world.messages(1).is_empty() && world.messages(2).is_empty());
}

#[test]
fn log_messages_go_to_those_that_want_them() {
    let mut world = World::new(3);
    world.request(1, 1, "logging/setLevel", r#"{"level":"error"}"#);
    world.request(2, 1, "logging/setLevel", r#"{"level":"debug"}"#);
    world.hear(&result(1));
    world.hear(&result(2));
    world.request(3, 1, "logging/setLevel", r#"{"level":"loud"}"#);
    world.request(3, 2, "logging/setLevel", "{}");
    let set: Vec<bool> = world
        .written()
        .iter()
        .zip(["error", "debug"])
        .map(|(said, level)| said.contains(&format!(r#""level":"{level}""#)))
        .collect();
    assert_eq!(set, [true, true], "what nobody knows is not passed on");
    let refused = world.messages(3);
    assert!(refused.len() == 2 && refused.iter().all(|refused| refused.contains(r#""code":-32602"#)), "{refused:?}");
    world.messages(1);
    world.messages(2);
    for (level, heard) in [("info", [0, 1, 0]), ("error", [1, 1, 0]), ("odd", [1, 1, 0])] {
        world.hear(&format!(r#"{{"method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#));
        assert_eq!([1, 2, 3].map(|session| world.messages(session).len()), heard, "{level}");
    }
    world.hub.leave(2);
    assert_eq!(world.written(), [r#"{"jsonrpc":"2.0","id":3,"method":"logging/setLevel","params":{"level":"error"}}"#]);
}

#[test]
fn every_message_of_a_batch_is_handled() {
    let mut world = World::new(2);
    world.request(1, 1, "a", "{}");
    world.request(2, 1, "b", "{}");
    world.written();
    let news = r#"{"method":"notifications/tools/list_changed"}"#;
    world.hear(&format!(r#"[{}, {news},{{"id":9,"method":"ping"}} ,{}]"#, result(2), result(1)));
    assert_eq!(world.messages(1), [news.to_owned(), result(1)]);
    assert_eq!(world.messages(2), [result(1), news.to_owned()]);
    assert_eq!(world.written(), [result(9)]);
}

#[test]
fn a_session_that_leaves_takes_along_what_it_asked_for() {
    let mut world = World::subscribed(1);
    world.request(1, 2, "tools/call", "{}");
    world.request(1, 3, "tools/call", "{}");
    world.written();
    world.hub.leave(1);
    let cancelled = |id| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    let unsubscribe = format!(r#"{{"jsonrpc":"2.0","id":4,"method":"resources/unsubscribe","params":{{"uri":"{URI}"}}}}"#);
    assert_eq!(world.written(), [cancelled(2), cancelled(3), unsubscribe]);
    world.hear(&result(4));
    assert!(world.hub.in_flight.is_empty() && world.hub.is_empty());
    world.request(1, 4, "tools/call", "{}");
    assert!(world.written().is_empty(), "what it said before it heard of its end goes nowhere");
}

#[test]
fn a_session_that_does_not_read_has_to_go_and_the_others_stay() {
    let mut world = World::subscribed(2);
    world.request(1, 2, "tools/call", r#"{"_meta":{"progressToken":2}}"#);
    world.request(2, 2, "tools/call", "{}");
    world.written();
    let padding = "x".repeat(1 << 20);
    for _ in 0..20 {
        world.hear(&format!(r#"{{"method":"notifications/progress","params":{{"progressToken":2,"message":"{padding}"}}}}"#));
    }
    assert_eq!(
        world.written(),
        [r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#],
        "and the other one is still subscribed"
    );
    world.hear(&result(3));
    assert_eq!(world.messages(2), [result(2)]);
    let heard = world.heard(1);
    assert!(matches!(heard.last(), Some(FromServer::Down { .. })) && heard.len() > 1);
}

#[test]
fn what_cannot_be_read_is_an_error_for_who_waits() {
    let mut world = World::new(1);
    world.ask(1, 5, r#"{"id":5,"id":6,"method":"x"}"#);
    assert!(matches!(world.heard(1)[..], [FromServer::Unanswered { request: 5, begun: false, .. }]));
    world.request(1, 6, "x", "{}");
    world.written();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    world.hear(&format!(r#"{{"id":1,"result":{deep}}}"#));
    assert!(matches!(world.heard(1)[..], [FromServer::Unanswered { request: 6, begun: true, .. }]));
    for odd in [r#"{"id":1,"id":2,"result":{}}"#, r#"{"error":{}}"#, "[{},", r#"[7,"x",{"method":4}]"#] {
        world.hear(odd);
    }
    assert!(world.heard(1).is_empty() && world.written().is_empty());
}

#[test]
fn a_process_that_asks_without_reading_is_not_answered_without_end() {
    let mut world = World::new(1);
    for id in 0..2 * MOST_WAITING {
        world.hear(&format!(r#"{{"id":{id},"method":"roots/list"}}"#));
    }
    assert_eq!(world.written().len(), MOST_WAITING);
}
