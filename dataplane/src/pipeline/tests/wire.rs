//! Connections: what may be said on the wire, how long it may take, and under which certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scope::{OPEN, Scope};
use super::world::{Gateway, Upstream, modern_body, result};
use crate::config::Certificate;

async fn world(change: impl FnOnce(&mut crate::config::Config)) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    (Gateway::with(Some(&Scope::at(upstream.address)), change).await, upstream)
}

/// Everything that comes back until the gateway closes, or until it has nothing more to say.
async fn say(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset is an answer too.
    let _ = read.expect("the gateway closes");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn heads_that_two_parsers_could_read_differently_never_reach_a_server() {
    let (gateway, upstream) = world(|_| {}).await;
    let body = modern_body("tools/list", "");
    let path = format!("/servers/{OPEN}/mcp");
    let usual = "host: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n";
    let length = body.len();
    let cases = [
        ("two lengths", format!("POST {path} HTTP/1.1\r\n{usual}content-length: {length}\r\ncontent-length: 5\r\n\r\n{body}")),
        ("length not a number", format!("POST {path} HTTP/1.1\r\n{usual}content-length: +{length}\r\n\r\n{body}")),
        ("folded header", format!("POST {path} HTTP/1.1\r\n{usual}x: a\r\n b\r\ncontent-length: {length}\r\n\r\n{body}")),
        ("NUL in a value", format!("POST {path} HTTP/1.1\r\n{usual}x: a\0b\r\ncontent-length: {length}\r\n\r\n{body}")),
        ("space before the colon", format!("POST {path} HTTP/1.1\r\n{usual}x : a\r\ncontent-length: {length}\r\n\r\n{body}")),
        ("chunked twice", format!("POST {path} HTTP/1.1\r\n{usual}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        (
            "chunk size not a number",
            format!("POST {path} HTTP/1.1\r\n{usual}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
        ),
        ("no host", format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")),
        ("two hosts", format!("POST {path} HTTP/1.1\r\nhost: evil.test\r\n{usual}content-length: {length}\r\n\r\n{body}")),
        ("not HTTP", "\x16\x03\x01 hello\r\n\r\n".to_owned()),
        (
            "too many headers",
            format!("POST {path} HTTP/1.1\r\n{usual}{}content-length: {length}\r\n\r\n{body}", "x: y\r\n".repeat(200)),
        ),
        (
            "too large headers",
            format!("POST {path} HTTP/1.1\r\n{usual}x: {}\r\ncontent-length: {length}\r\n\r\n{body}", "y".repeat(40_000)),
        ),
        ("a body that ends early", format!("POST {path} HTTP/1.1\r\n{usual}content-length: {}\r\n\r\n{body}", length + 10)),
    ];
    for (case, bytes) in cases {
        let answer = say(&gateway, bytes.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
        assert!(status == "none" || status.starts_with('4'), "{case}: {answer}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());

    let both = format!(
        "POST {path} HTTP/1.1\r\n{usual}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    );
    let answer = say(&gateway, both.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer, and the connection is closed: {answer}");
    assert!(upstream.seen().len() <= 1);
}

#[tokio::test]
async fn peers_that_keep_the_gateway_waiting_are_let_go() {
    let (gateway, upstream) = world(|config| {
        config.timeouts.headers = Duration::from_millis(100);
        config.timeouts.body = Duration::from_millis(100);
        config.timeouts.idle = Duration::from_millis(100);
    })
    .await;
    let head = format!(
        "POST /servers/{OPEN}/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: 9\r\n\r\n"
    );
    for (case, bytes, expected) in
        [("silence", "", ""), ("half a head", "POST / HTTP/1.1\r\nho", ""), ("half a body", &*format!("{head}{{\"a"), "408")]
    {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await;
        let _ = read.unwrap_or_else(|_| panic!("{case}: the gateway closes"));
        assert!(answer.contains(expected), "{case}: {answer}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_drips_is_refused_long_before_its_deadline_and_one_in_pieces_is_not() {
    let (gateway, upstream) = world(|config| {
        config.timeouts.body = Duration::from_hours(1);
        config.timeouts.body_grace = Duration::from_millis(200);
        config.limits.body_bytes_per_second = 1 << 40;
    })
    .await;
    let head = |length: usize| {
        format!(
            "POST /servers/{OPEN}/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let (mut read, mut write) = TcpStream::connect(gateway.address).await.unwrap().into_split();
    write.write_all(head(2 << 20).as_bytes()).await.unwrap();
    let drip = async {
        // Never silent: only the rate gives it away.
        while write.write_all(b" ").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let mut answer = Vec::new();
    let refused = async {
        // A reset may follow the answer: the client was still sending.
        while read.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let both = async { tokio::join!(drip, refused) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("the gateway closes");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("-31408"), "{answer}");
    assert!(upstream.seen().is_empty());

    let (gateway, upstream) = world(|_| {}).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    for piece in [&*head(9), "not", " an", " MC"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut status = [0; 13];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400 ", "read, and found to be no JSON");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let (gateway, _upstream) = world(|config| config.limits.connections_per_ip = 1).await;
    let mut first = TcpStream::connect(gateway.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(second.read(&mut byte).await.unwrap_or(0), 0, "closed at once");
}

fn write_certificate(files: &Certificate, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&files.chain, made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// The leaf that the gateway shows for `name`.
async fn leaf(gateway: &Gateway, name: &'static str, trusted: &[CertificateDer<'static>]) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let files =
        |name: &str| Certificate { chain: dir.path().join(format!("{name}.pem")), key: dir.path().join(format!("{name}.key")) };
    let (one, two) = (files("one"), files("two"));
    let trusted = [write_certificate(&one, "one.test"), write_certificate(&two, "two.test")];
    let (gateway, _upstream) = world(|config| config.listen[0].certificates = vec![one, two]).await;
    assert_eq!(leaf(&gateway, "one.test", &trusted).await, trusted[0]);
    assert_eq!(leaf(&gateway, "two.test", &trusted).await, trusted[1]);
}
