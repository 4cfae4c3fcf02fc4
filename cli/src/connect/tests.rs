//! The whole of `connect` against a WebSocket server that does as each test says, over real sockets.

use std::io::{BufReader, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::*;
use crate::failure;

type Accepted = WebSocketStream<TcpStream>;

/// Listens, and gives connections out one by one.
struct Gateway(TcpListener);

impl Gateway {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self) -> String {
        format!("ws://{}/o/acme/servers/time/ws", self.0.local_addr().unwrap())
    }

    /// The next client, refused with `status` unless that is 101.
    async fn answer(&self, status: u16) -> Option<Accepted> {
        let (stream, _) = self.0.accept().await.unwrap();
        #[allow(clippy::result_large_err)] // the callback's type is the library's
        let judge = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.headers()[SEC_WEBSOCKET_PROTOCOL], "mcp");
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer mcpgw_k");
            assert_eq!(request.uri().path(), "/o/acme/servers/time/ws");
            if status != 101 {
                let body = Some(json!({"error": {"message": "because"}}).to_string());
                return Err(http::Response::builder().status(status).body(body).unwrap());
            }
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, "mcp".parse().unwrap());
            Ok(response)
        };
        let config = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default().max_frame_size(Some(LARGEST));
        accept_hdr_async_with_config(stream, judge, Some(config)).await.ok()
    }

    async fn accept(&self) -> Accepted {
        self.answer(101).await.unwrap()
    }
}

/// The client's side: what it writes, what it reads, and what became of the command.
struct Client {
    input: Option<std::io::PipeWriter>,
    output: tokio::io::Lines<tokio::io::BufReader<DuplexStream>>,
    command: JoinSet<anyhow::Result<()>>,
}

const QUICK: Patience =
    Patience { first: Duration::from_millis(1), most: Duration::from_millis(2), attempts: 3, ping: Duration::from_secs(3600) };

impl Client {
    fn start(gateway: &Gateway) -> Self {
        Self::patient(gateway, QUICK)
    }

    fn patient(gateway: &Gateway, patience: Patience) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (read, write) = std::io::pipe().unwrap();
        let (output, written) = tokio::io::duplex(1 << 16);
        let url = gateway.url();
        let mut command = JoinSet::new();
        command.spawn(async move {
            let dialer = Dialer::new(&url, None, Credential::Key("mcpgw_k".into()))?;
            run(&dialer, patience, Lines::of(BufReader::new(read))?, written).await
        });
        Self { input: Some(write), output: tokio::io::BufReader::new(output).lines(), command }
    }

    fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.input.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    async fn hear(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap().expect("a line");
        serde_json::from_str(&line).unwrap()
    }

    /// What the command came to: its exit code and what it says of it; and that it wrote nothing more.
    async fn ended(mut self) -> (u8, String) {
        let ended = self.command.join_next().await.unwrap().unwrap();
        assert_eq!(self.output.next_line().await.unwrap(), None);
        ended.map_or_else(|error| (failure::exit_code(&error), failure::describe(&error)), |()| (0, String::new()))
    }
}

async fn text(socket: &mut Accepted) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn reply(socket: &mut Accepted, message: &Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

fn request(id: i64, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
}

fn initialized() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

fn result(id: i64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {}})
}

fn greeting(name: &str) -> Value {
    let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": name, "version": "1"}});
    json!({"jsonrpc": "2.0", "id": 0, "result": result})
}

/// A client and a server that have greeted each other.
async fn greeted(gateway: &Gateway) -> (Client, Accepted) {
    let mut client = Client::start(gateway);
    client.say(&request(0, "initialize"));
    let mut socket = gateway.accept().await;
    assert_eq!(text(&mut socket).await, request(0, "initialize"));
    reply(&mut socket, &greeting("time")).await;
    assert_eq!(client.hear().await, greeting("time"));
    client.say(&initialized());
    assert_eq!(text(&mut socket).await, initialized());
    (client, socket)
}

/// The server's side of opening a session again.
async fn greeted_again(gateway: &Gateway, name: &str) -> Accepted {
    let mut socket = gateway.accept().await;
    assert_eq!(text(&mut socket).await, request(0, "initialize"));
    reply(&mut socket, &greeting(name)).await;
    socket
}

#[tokio::test]
async fn messages_travel_both_ways_and_the_end_of_the_input_is_a_goodbye() {
    let gateway = Gateway::start().await;
    let (mut client, mut socket) = greeted(&gateway).await;
    client.say(&request(1, "tools/list"));
    assert_eq!(text(&mut socket).await["method"], "tools/list");
    socket.send(Message::text("{\"jsonrpc\":\"2.0\",\r\n\"id\":1,\n\"result\":{}}")).await.unwrap();
    assert_eq!(client.hear().await, result(1), "one message is one line");
    reply(&mut socket, &request(5, "sampling/createMessage")).await;
    assert_eq!(client.hear().await["id"], 5);
    client.say(&result(5));
    assert_eq!(text(&mut socket).await, result(5));
    client.input = None;
    let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("a close") };
    assert_eq!(u16::from(frame.code), 1000);
    while socket.next().await.is_some() {}
    assert_eq!(client.ended().await, (0, String::new()));
}

#[tokio::test]
async fn a_lost_connection_is_made_again_without_the_client_knowing() {
    let gateway = Gateway::start().await;
    let (mut client, socket) = greeted(&gateway).await;
    drop(socket);
    let mut socket = greeted_again(&gateway, "time").await;
    assert_eq!(text(&mut socket).await, initialized());
    client.say(&request(1, "ping"));
    assert_eq!(text(&mut socket).await, request(1, "ping"));
    reply(&mut socket, &result(1)).await;
    assert_eq!(client.hear().await, result(1), "the second greeting was not for the client");
    socket.close(None).await.unwrap();
    let mut socket = greeted_again(&gateway, "time").await;
    assert_eq!(text(&mut socket).await, initialized(), "a close is a loss too");
}

#[tokio::test]
async fn what_was_open_is_refused_and_what_comes_later_goes_on() {
    let gateway = Gateway::start().await;
    let (mut client, mut socket) = greeted(&gateway).await;
    client.say(&request(1, "tools/call"));
    assert_eq!(text(&mut socket).await["id"], 1);
    drop(socket);
    let refused = client.hear().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(1), &json!(-32603)));
    assert!(refused["error"]["message"].as_str().unwrap().contains("may have had effects"), "{refused}");
    let mut socket = greeted_again(&gateway, "time").await;
    assert_eq!(text(&mut socket).await, initialized());
    client.say(&request(2, "tools/call"));
    assert_eq!(text(&mut socket).await["id"], 2);
}

#[tokio::test]
async fn another_server_is_not_taken_for_the_first() {
    let gateway = Gateway::start().await;
    let (client, socket) = greeted(&gateway).await;
    drop(socket);
    let _socket = greeted_again(&gateway, "other").await;
    let (code, said) = client.ended().await;
    assert_eq!(code, 1);
    assert!(said.contains("another one now"), "{said}");
}

#[tokio::test]
async fn a_refusal_ends_it_with_its_reason() {
    for (status, code) in [(401, 4), (403, 4), (404, 3), (503, 6), (400, 1)] {
        let gateway = Gateway::start().await;
        let client = Client::start(&gateway);
        assert!(gateway.answer(status).await.is_none());
        let (found, said) = client.ended().await;
        assert_eq!(found, code, "{status}: {said}");
        assert!(said.contains(&status.to_string()) && !said.contains("mcpgw_k"), "{said}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_second_connection_ends_it_and_a_busy_gateway_is_asked_again() {
    let gateway = Gateway::start().await;
    let (client, socket) = greeted(&gateway).await;
    drop(socket);
    assert!(gateway.answer(503).await.is_none());
    assert!(gateway.answer(401).await.is_none());
    assert_eq!(client.ended().await.0, 4);
}

#[tokio::test]
async fn attempts_come_to_an_end() {
    let gateway = Gateway::start().await;
    let (client, socket) = greeted(&gateway).await;
    drop(socket);
    for _ in 0..QUICK.attempts {
        assert!(gateway.answer(503).await.is_none());
    }
    let (code, said) = client.ended().await;
    assert_eq!(code, 6);
    assert!(said.contains("gave up after 3 attempts"), "{said}");
}

#[tokio::test]
async fn a_client_that_is_done_waits_for_no_connection() {
    let gateway = Gateway::start().await;
    let (mut client, socket) = greeted(&gateway).await;
    drop(socket);
    let waiting = gateway.0.accept().await.unwrap(); // and never answered
    client.input = None;
    assert_eq!(client.ended().await, (0, String::new()));
    drop(waiting);
}

#[tokio::test]
async fn large_messages_travel_both_ways_at_once() {
    let gateway = Gateway::start().await;
    let (mut client, mut socket) = greeted(&gateway).await;
    let large = Arc::new("x".repeat(4 << 20));
    let mut input = client.input.take().unwrap();
    let message = format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"text": *large}}));
    let writing = std::thread::spawn(move || {
        input.write_all(message.as_bytes()).unwrap();
        input
    });
    reply(&mut socket, &json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"text": *large}})).await;
    let (up, down) = tokio::join!(text(&mut socket), client.hear());
    assert_eq!((up["params"]["text"].as_str(), down["params"]["text"].as_str()), (Some(large.as_str()), Some(large.as_str())));
    client.input = Some(writing.join().unwrap());
}

#[tokio::test]
async fn pings_are_answered_and_a_silent_gateway_is_left() {
    let gateway = Gateway::start().await;
    let mut client = Client::patient(&gateway, Patience { ping: Duration::from_millis(20), ..QUICK });
    let mut socket = gateway.accept().await;
    socket.send(Message::Ping("hello".into())).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(body) if body == "hello" => break,
            _ => {}
        }
    }
    // It is not read from any more, so its pings get no answer: the client comes again.
    let mut second = gateway.accept().await;
    client.say(&request(1, "ping"));
    assert_eq!(text(&mut second).await["id"], 1);
    drop(socket);
}

#[tokio::test]
async fn what_is_no_message_is_answered_here() {
    let gateway = Gateway::start().await;
    let (mut client, mut socket) = greeted(&gateway).await;
    client.input.as_mut().unwrap().write_all(b"hello\n\n").unwrap();
    let refused = client.hear().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32700)));
    socket.send(Message::text("not JSON")).await.unwrap();
    socket.send(Message::binary(vec![1])).await.unwrap();
    reply(&mut socket, &initialized()).await;
    assert_eq!(client.hear().await, initialized(), "what the server sends and is no message never reaches stdout");
}
