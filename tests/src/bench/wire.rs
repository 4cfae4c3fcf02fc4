//! HTTP/1.1 as lean as a load generator needs it: reads heads with httparse, bodies by length or in chunks. Takes nothing on trust: what
//! it does not understand is an error.

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const HEADERS: usize = 64;
/// A head or an answer that is longer ends the run.
const MOST: usize = 1 << 20;

/// A connection with what has arrived and was not looked at yet.
pub struct Connection {
    pub tcp: TcpStream,
    buffer: Vec<u8>,
    /// Up to here the buffer was taken.
    taken: usize,
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub length: Length,
    pub session: Option<String>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Bytes(usize),
    Chunked,
}

impl Connection {
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(address).await.with_context(|| address.to_owned())?;
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, buffer: Vec::with_capacity(8192), taken: 0 })
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> anyhow::Result<Head> {
        loop {
            if let Some((head, size)) = parse(&self.buffer[self.taken..])? {
                self.taken += size;
                return Ok(head);
            }
            self.more().await?;
        }
    }

    /// `count` bytes of a body.
    pub async fn take(&mut self, count: usize) -> anyhow::Result<&[u8]> {
        while self.buffer.len() - self.taken < count {
            self.more().await?;
        }
        let body = &self.buffer[self.taken..self.taken + count];
        self.taken += count;
        Ok(body)
    }

    /// The next chunk into `body`; false: it was the last, empty one.
    pub async fn chunk(&mut self, body: &mut Vec<u8>) -> anyhow::Result<bool> {
        let size = loop {
            match httparse::parse_chunk_size(&self.buffer[self.taken..]) {
                Ok(httparse::Status::Complete((used, size))) => {
                    self.taken += used;
                    break usize::try_from(size)?;
                }
                Ok(httparse::Status::Partial) => self.more().await?,
                Err(_) => bail!("not a chunk size"),
            }
        };
        body.extend_from_slice(self.take(size).await?);
        anyhow::ensure!(self.take(2).await? == b"\r\n", "no line ending after a chunk");
        Ok(size > 0)
    }

    /// The whole body into `body`.
    pub async fn body(&mut self, length: Length, body: &mut Vec<u8>) -> anyhow::Result<()> {
        body.clear();
        match length {
            Length::Bytes(count) => body.extend_from_slice(self.take(count).await?),
            Length::Chunked => while self.chunk(body).await? {},
        }
        Ok(())
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        } else if self.taken > 0 && self.buffer.len() == self.buffer.capacity() {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        anyhow::ensure!(self.buffer.len() < MOST, "an answer of more than {MOST} bytes");
        let read = self.tcp.read_buf(&mut self.buffer).await?;
        anyhow::ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = response.parse(bytes)? else { return Ok(None) };
    let mut head = Head { status: response.code.unwrap_or_default(), length: Length::Bytes(0), session: None };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = Length::Bytes(std::str::from_utf8(header.value)?.trim().parse()?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            anyhow::ensure!(header.value.eq_ignore_ascii_case(b"chunked"), "an unknown transfer encoding");
            head.length = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(String::from_utf8(header.value.to_vec())?);
        }
    }
    Ok(Some((head, size)))
}
