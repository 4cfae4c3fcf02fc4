//! Streams: they reach the client while they last, end when their caller may no longer have them, and end upstream when
//! the client leaves.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mcp_gateway::proto::config::v1::Revocation;
use mcp_gateway::proto::node::v1::Outcome;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::scope::{ACME_ISSUER, ENGINEER, GITHUB, Scope, bearer, signing_key};
use super::tokens::{claims, header, sign, with};
use super::world::{Gateway, Upstream};

/// A server whose every answer is a stream that the test writes to.
async fn streaming() -> (Upstream, UnboundedReceiver<UnboundedSender<String>>) {
    let (opened, streams) = unbounded_channel();
    let opened = Mutex::new(opened);
    let upstream = Upstream::start(move |_| {
        let (say, said) = unbounded_channel::<String>();
        opened.lock().unwrap().send(say).unwrap();
        let body = UnboundedReceiverStream::new(said).map(Ok::<_, std::io::Error>);
        Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(body)).unwrap()
    })
    .await;
    (upstream, streams)
}

async fn next(body: &mut Incoming) -> Option<String> {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("something happens")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

const EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n";
const RESULT: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":\"q-1\",\"result\":{}}\n\n";

#[tokio::test]
async fn events_arrive_while_the_stream_lasts_and_half_an_event_waits() {
    let (upstream, mut streams) = streaming().await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
    let request_id = response.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let say = streams.recv().await.unwrap();
    say.send(EVENT.into()).unwrap();
    assert_eq!(next(&mut body).await.as_deref(), Some(EVENT));
    let (first, second) = RESULT.split_at(20);
    say.send(first.into()).unwrap();
    say.send(second.into()).unwrap();
    assert_eq!(next(&mut body).await.as_deref(), Some(RESULT));
    drop(say);
    assert_eq!(next(&mut body).await, None);
    let (_, ended) = gateway.record(&request_id);
    assert_eq!((ended.outcome(), ended.events, ended.response_bytes), (Outcome::Ok, 2, (EVENT.len() + RESULT.len()) as u64));
}

#[tokio::test]
async fn a_revoked_key_ends_an_open_stream_and_so_does_a_withdrawn_rule_or_role() {
    for (revoke, role) in [(true, false), (false, false), (false, true)] {
        let (upstream, mut streams) = streaming().await;
        let mut scope = Scope::at(upstream.address);
        let gateway = Gateway::start(&scope).await;
        let auth = [("authorization", &*bearer(ENGINEER))];
        let response = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
        let request_id = response.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
        let mut body = response.into_body();
        let say = streams.recv().await.unwrap();
        say.send(EVENT.into()).unwrap();
        assert!(next(&mut body).await.is_some());
        if revoke {
            gateway.live.revoke(&Revocation { api_keys: vec![ENGINEER.into()], ..Revocation::default() });
        } else {
            scope.version += 1;
            if role {
                scope.keys[0].roles.clear();
            } else {
                scope.orgs[0].policies.retain(|policy| policy.name != "engineers");
            }
            gateway.swap(&scope);
        }
        assert_eq!(next(&mut body).await, None, "the stream ends");
        say.closed().await;
        assert_eq!(gateway.record(&request_id).1.outcome(), Outcome::Denied);
        let again = gateway.ask(gateway.modern(GITHUB, &auth, "tools/list", "")).await;
        assert_eq!(again.status.as_u16(), if revoke { 401 } else { 403 });
    }
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_streams_of_the_tokens_that_it_signed_and_no_others() {
    type Change = fn(&mut Scope);
    let own = sign(&signing_key(1), &header(), &claims());
    let acme_header = with(header(), "kid", "acme-1".into());
    let acme = sign(&signing_key(2), &acme_header, &with(claims(), "iss", ACME_ISSUER.into()));
    let retire_own: Change = |scope| scope.global.issuers[0].keys[0].key_id = "gateway-2".into();
    let replace_own: Change = |scope| scope.global.issuers[0].keys[0].public_key = vec![3; 32].into();
    let retire_acme: Change = |scope| {
        scope.orgs[0].organization.as_mut().unwrap().issuers[0].keys[0].key_id = "acme-2".into();
    };
    let drop_acme: Change = |scope| scope.orgs[0].organization.as_mut().unwrap().issuers.clear();
    let cases = [
        ("the gateway's key", &own, retire_own, retire_acme),
        ("another key by the gateway's key id", &own, replace_own, drop_acme),
        ("the organisation's key", &acme, retire_acme, retire_own),
        ("the organisation's issuer", &acme, drop_acme, replace_own),
    ];
    for (case, token, withdraw, unrelated) in cases {
        let (upstream, mut streams) = streaming().await;
        let gateway = Gateway::start(&Scope::at(upstream.address)).await;
        let auth = [("authorization", &*format!("Bearer {token}"))];
        let response = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
        let request_id = response.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
        let mut body = response.into_body();
        let say = streams.recv().await.unwrap();
        let mut scope = Scope::at(upstream.address);
        unrelated(&mut scope);
        scope.version = 8;
        gateway.swap(&scope);
        say.send(EVENT.into()).unwrap();
        assert_eq!(next(&mut body).await.as_deref(), Some(EVENT), "{case}: other keys do not matter");
        let mut scope = Scope::at(upstream.address);
        withdraw(&mut scope);
        scope.version = 9;
        gateway.swap(&scope);
        assert_eq!(next(&mut body).await, None, "{case}: the stream ends");
        say.closed().await;
        assert_eq!(gateway.record(&request_id).1.outcome(), Outcome::Denied, "{case}");
    }
}

#[tokio::test]
async fn a_stream_outlives_changes_that_do_not_concern_its_caller() {
    let (upstream, mut streams) = streaming().await;
    let mut scope = Scope::at(upstream.address);
    let gateway = Gateway::start(&scope).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
    let mut body = response.into_body();
    let say = streams.recv().await.unwrap();
    scope.version += 1;
    gateway.swap(&scope);
    gateway.live.revoke(&Revocation { api_keys: vec!["somebodyelse".into()], ..Revocation::default() });
    say.send(EVENT.into()).unwrap();
    assert_eq!(next(&mut body).await.as_deref(), Some(EVENT));
}

#[tokio::test]
async fn a_list_on_an_open_stream_is_filtered_by_the_rules_of_the_moment() {
    let (upstream, mut streams) = streaming().await;
    let mut scope = Scope::at(upstream.address);
    let gateway = Gateway::start(&scope).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
    let mut body = response.into_body();
    let say = streams.recv().await.unwrap();
    let list =
        "data: {\"jsonrpc\":\"2.0\",\"id\":\"q-1\",\"result\":{\"tools\":[{\"name\":\"echo\"},{\"name\":\"search_x\"}]}}\n\n";
    say.send(list.into()).unwrap();
    assert!(next(&mut body).await.unwrap().contains("echo"));
    scope.version += 1;
    scope.orgs[0].policies[0].r#match.as_mut().unwrap().tools = vec!["search_*".into()];
    gateway.swap(&scope);
    say.send(list.into()).unwrap();
    let event = next(&mut body).await.unwrap();
    assert!(event.contains("search_x") && !event.contains("echo"), "{event}");
}

#[tokio::test]
async fn an_answer_to_another_request_ends_the_stream_unheard() {
    let (upstream, mut streams) = streaming().await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
    let request_id = response.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let say = streams.recv().await.unwrap();
    say.send(EVENT.into()).unwrap();
    assert_eq!(next(&mut body).await.as_deref(), Some(EVENT));
    say.send(RESULT.replace("q-1", "q-2")).unwrap();
    let broken = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("something happens");
    assert!(broken.is_some_and(|frame| frame.is_err()), "the client notices");
    say.closed().await;
    assert_eq!(gateway.record(&request_id).1.outcome(), Outcome::UpstreamFailed);
}

#[tokio::test]
async fn a_question_that_a_rule_denies_is_answered_for_the_client() {
    use mcp_gateway::proto::config::v1::{Effect, Match, Policy, Subjects};
    let (upstream, mut streams) = streaming().await;
    let mut scope = Scope::at(upstream.address);
    let everybody = Subjects { roles: vec!["*".into()], ..Subjects::default() };
    let sampling = Match { methods: vec!["sampling/createMessage".into()], ..Match::default() };
    let rule = super::scope::allow("c9", "no-sampling", everybody, sampling);
    scope.orgs[0].policies.push(Policy { effect: Effect::Deny.into(), ..rule });
    let gateway = Gateway::start(&scope).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
    let mut body = response.into_body();
    let say = streams.recv().await.unwrap();
    let ask = |method: &str| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":41,\"method\":\"{method}\",\"params\":{{}}}}\n\n");
    say.send(ask("sampling/createMessage")).unwrap();
    let _answered = streams.recv().await.unwrap();
    let refusal = upstream.seen().pop().unwrap().json();
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&41.into(), &(-32601).into()));
    say.send(ask("elicitation/create")).unwrap();
    assert!(
        next(&mut body).await.unwrap().contains("elicitation/create"),
        "what no rule denies arrives, what one denies does not"
    );
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_call_with_it() {
    let (upstream, mut streams) = streaming().await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let response = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
    let request_id = response.headers()["mcpgw-request-id"].to_str().unwrap().to_owned();
    let say = streams.recv().await.unwrap();
    drop(response);
    tokio::time::timeout(Duration::from_secs(10), say.closed()).await.expect("the server learns of it");
    let (_, ended) = gateway.record(&request_id);
    assert_eq!(ended.outcome(), Outcome::Cancelled);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_begins_takes_its_call_with_it_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&Scope::at(silent.local_addr().unwrap())).await;
    let body = super::world::modern_body("tools/list", "");
    let head = format!(
        "POST /servers/{}/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: */*\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\ncontent-length: {}\r\n\r\n{body}",
        super::scope::OPEN,
        body.len()
    );
    let mut client = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut upstream, _) = silent.accept().await.unwrap();
    let mut seen = vec![0; 16];
    upstream.read_exact(&mut seen).await.unwrap();
    drop(client);
    let gone = tokio::time::timeout(Duration::from_secs(10), upstream.read_to_end(&mut seen)).await;
    gone.expect("the server's connection is closed").unwrap();
    let (decided, ended) = gateway.records().pop().unwrap();
    assert_eq!((&*decided.method, ended.unwrap().outcome()), ("tools/list", Outcome::Cancelled));
}

#[tokio::test]
async fn stopping_ends_listening_streams_at_once_and_lets_calls_finish() {
    let (upstream, mut streams) = streaming().await;
    let gateway = Gateway::start(&Scope::at(upstream.address)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let call = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await;
    let answer = streams.recv().await.unwrap();
    let listen = gateway.send(gateway.modern(GITHUB, &auth, "subscriptions/listen", r#""notifications":{}"#)).await;
    let _listening = streams.recv().await.unwrap();
    gateway.stop.cancel();
    assert_eq!(next(&mut listen.into_body()).await, None);
    answer.send(RESULT.into()).unwrap();
    let mut call = call.into_body();
    assert_eq!(next(&mut call).await.as_deref(), Some(RESULT));
    drop(answer);
    assert_eq!(next(&mut call).await, None);
    gateway.running.await.unwrap().unwrap();
}

/// A server that writes ten events and the result in one piece, a chunk each, as SDKs do.
async fn in_one_piece() -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for event in std::iter::repeat_n(EVENT, 10).chain([RESULT]) {
        answer.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    }
    answer.push_str("0\r\n\r\n");
    #[allow(clippy::disallowed_methods)] // ends with the test's runtime
    tokio::spawn(async move {
        let (mut connection, _) = socket.accept().await.unwrap();
        let mut request = vec![0; 64 << 10];
        let _read = connection.read(&mut request).await.unwrap();
        connection.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test]
async fn events_that_come_in_one_piece_leave_in_one() {
    let gateway = Gateway::start(&Scope::at(in_one_piece().await)).await;
    let auth = [("authorization", &*bearer(ENGINEER))];
    let mut body = gateway.send(gateway.modern(GITHUB, &auth, "tools/call", r#""name":"echo""#)).await.into_body();
    let (mut pieces, mut text) = (0, String::new());
    while let Some(piece) = next(&mut body).await {
        pieces += 1;
        text.push_str(&piece);
    }
    assert_eq!(text.matches("data:").count(), 11);
    assert!(pieces <= 2, "{pieces} pieces of 11 events");
}
