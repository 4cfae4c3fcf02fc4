//! HTTP/2 as it passes over the wire (RFC 9113): a client connection that notes the type of every frame that the server sends.
//! gRPC libraries hide GOAWAY and reconnect behind the caller's back; a test about them has to look here. Changes nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use anyhow::Context as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};

/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Bytes of a payload that matter: of GOAWAY the last stream and the error code.
const PAYLOAD: usize = 8;

/// A frame that the server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Headers; with `end` the trailers that end a call.
    Headers {
        stream: u32,
        end: bool,
    },
    Data {
        stream: u32,
    },
    /// `error` 0: nothing more has to be said on the stream.
    Reset {
        stream: u32,
        error: u32,
    },
    /// No new stream; those up to `last` are still served. `error` 0: in good order.
    GoAway {
        last: u32,
        error: u32,
    },
    /// Anything else, by its number.
    Other(u8),
}

/// What passed on one connection.
#[derive(Clone)]
pub struct Frames {
    seen: Arc<Mutex<Parser>>,
    closed: watch::Receiver<bool>,
}

/// The client's end of mutual TLS, as PEM.
pub struct Credentials<'a> {
    pub ca: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

/// Opens one connection to a node listener; the channel never opens another.
pub async fn connect(port: u16, credentials: &Credentials<'_>) -> anyhow::Result<(Channel, Frames)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(credentials.ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
    let mut tls = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").context("a name")?;
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    let (ended, closed) = watch::channel(false);
    let frames = Frames { seen: Arc::default(), closed };
    let watched = Watched { tls, seen: frames.seen.clone(), ended };
    // TLS is ours, so tonic must not want it from the scheme.
    let endpoint = Endpoint::from_shared(format!("http://localhost:{port}"))?;
    Ok((endpoint.connect_with_connector(Once(Some(watched))).await?, frames))
}

impl Frames {
    /// Everything so far.
    pub fn seen(&self) -> Vec<Frame> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).frames.clone()
    }

    /// Everything, once the connection is closed.
    pub async fn until_closed(mut self) -> Vec<Frame> {
        // An error says that the connection is dropped, which will do.
        drop(self.closed.wait_for(|closed| *closed).await);
        self.seen()
    }
}

#[derive(Default)]
struct Parser {
    frames: Vec<Frame>,
    header: Vec<u8>,
    /// The first bytes of the payload.
    payload: Vec<u8>,
    /// Bytes until the next header.
    left: usize,
}

impl Parser {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(HEADER - self.header.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if self.header.len() == HEADER {
                    self.left = u32::from_be_bytes([0, self.header[0], self.header[1], self.header[2]]) as usize;
                    self.payload.clear();
                    self.end_if_whole();
                }
            } else {
                let take = bytes.len().min(self.left);
                let wanted = take.min(PAYLOAD.saturating_sub(self.payload.len()));
                self.payload.extend_from_slice(&bytes[..wanted]);
                self.left -= take;
                bytes = &bytes[take..];
                self.end_if_whole();
            }
        }
    }

    fn end_if_whole(&mut self) {
        if self.left > 0 {
            return;
        }
        let number = |bytes: &[u8], at: usize| {
            let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).unwrap_or_default()
        };
        let stream = number(&self.header, 5);
        let frame = match self.header[3] {
            0 => Frame::Data { stream },
            1 => Frame::Headers { stream, end: self.header[4] & 1 == 1 },
            3 => Frame::Reset { stream, error: number(&self.payload, 0) },
            7 => Frame::GoAway { last: number(&self.payload, 0), error: number(&self.payload, 4) },
            other => Frame::Other(other),
        };
        self.frames.push(frame);
        self.header.clear();
    }
}

struct Watched {
    tls: TlsStream<TcpStream>,
    seen: Arc<Mutex<Parser>>,
    ended: watch::Sender<bool>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.tls).poll_read(context, buffer));
        let new = &buffer.filled()[before..];
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).feed(new);
        if read.is_err() || new.is_empty() {
            self.ended.send_replace(true);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// Gives its connection away once.
struct Once(Option<Watched>);

impl Service<Uri> for Once {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connection = self.0.take().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        Box::pin(async move { connection.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart_however_they_arrive() {
        let goaway = [&[0, 0, 10, 7, 0, 0, 0, 0, 0][..], &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, b'h', b'i']].concat();
        let bytes = [
            &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
            &[0, 0, 2, 0, 0, 0, 0, 0, 3, 9, 9],
            &[0, 0, 1, 1, 5, 0, 0, 0, 3, 9],
            &goaway,
            &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8],
        ]
        .concat();
        let expected = [
            Frame::Other(4),
            Frame::Data { stream: 3 },
            Frame::Headers { stream: 3, end: true },
            Frame::GoAway { last: 0x7fff_ffff, error: 0 },
            Frame::Reset { stream: 1, error: 8 },
        ];
        for size in 1..bytes.len() {
            let mut parser = Parser::default();
            bytes.chunks(size).for_each(|chunk| parser.feed(chunk));
            assert_eq!(parser.frames, expected, "in pieces of {size}");
        }
    }
}
