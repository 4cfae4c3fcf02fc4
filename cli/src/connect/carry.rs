//! One connection: messages both ways until it is lost or the input ends. Reading and writing never wait for each other, so that two full
//! directions cannot block one another. Called by [`super::run`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::conversation::{Conversation, Heard, error};
use super::dial::Socket;
use super::lines::Lines;

/// How long a server may take to open a session again, and to answer a close.
const RESUME: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(2);
const PARSE_ERROR: i64 = -32700;

/// How a connection ended.
pub enum End {
    /// The client is done.
    Input,
    /// It broke, or the server closed it; why.
    Lost(String),
}

/// What outlives a connection.
pub struct Carrier<'a, W> {
    pub conversation: &'a mut Conversation,
    pub lines: &'a mut Lines,
    pub output: &'a mut W,
    /// Whether the server said anything for the client on this connection, or knew it again.
    pub heard: bool,
}

/// What both directions of a connection know.
struct Shared<'a> {
    conversation: Mutex<&'a mut Conversation>,
    /// The session is open: the client may speak.
    open: Notify,
    /// What is to be sent before.
    first: Mutex<Vec<String>>,
    /// Something came in since the last look.
    alive: AtomicBool,
}

impl<W: AsyncWrite + Unpin> Carrier<'_, W> {
    pub async fn carry(&mut self, socket: Socket, ping: Duration) -> anyhow::Result<End> {
        let (mut sink, mut stream) = socket.split();
        let (first, waits) = self.conversation.resume();
        for line in first {
            if let Err(error) = sink.send(Message::text(line)).await {
                return Ok(End::Lost(error.to_string()));
            }
        }
        let shared = Shared {
            conversation: Mutex::new(&mut *self.conversation),
            open: Notify::new(),
            first: Mutex::new(Vec::new()),
            alive: AtomicBool::new(true),
        };
        if !waits {
            shared.open.notify_one();
        }
        let (own, answers) = (Mutex::new(Vec::new()), Notify::new());
        let speaker = Speaker { shared: &shared, lines: &mut *self.lines, sink: &mut sink, own: &own, answers: &answers };
        let mut listener = Listener { shared: &shared, output: &mut *self.output, heard: &mut self.heard };
        let end = tokio::select! {
            end = listener.listen(&mut stream, &own, &answers) => return end,
            end = speaker.speak(ping) => end,
        };
        if matches!(end, End::Input) {
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let goodbye = async {
                if sink.send(Message::Close(Some(close))).await.is_ok() {
                    // What the server says until it closes is still the client's.
                    let _ = listener.listen(&mut stream, &own, &answers).await;
                }
            };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        Ok(end)
    }

    /// Tells the client what will not be answered.
    pub async fn refuse_open(&mut self) -> anyhow::Result<()> {
        for line in self.conversation.lost() {
            write(self.output, &line).await?;
        }
        Ok(())
    }
}

struct Speaker<'a, 'c> {
    shared: &'a Shared<'c>,
    lines: &'a mut Lines,
    sink: &'a mut SplitSink<Socket, Message>,
    /// Answers of our own to what is no message; the listener writes them.
    own: &'a Mutex<Vec<String>>,
    answers: &'a Notify,
}

impl Speaker<'_, '_> {
    /// From the client to the server.
    async fn speak(self, ping: Duration) -> End {
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + ping, ping);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            () = self.shared.open.notified() => {}
            () = self.lines.ended.cancelled() => return End::Input,
            () = tokio::time::sleep(RESUME) => {
                return End::Lost(format!("the server did not open a session within {} s", RESUME.as_secs()));
            }
        }
        let first = std::mem::take(&mut *held(&self.shared.first));
        for line in first {
            if let Err(error) = self.sink.send(Message::text(line)).await {
                return End::Lost(error.to_string());
            }
        }
        loop {
            let message = tokio::select! {
                line = self.lines.next.recv() => match line {
                    None => return End::Input,
                    Some(line) => match self.outgoing(line) {
                        Some(line) => Message::text(line),
                        None => continue,
                    },
                },
                _ = beat.tick() => match self.shared.alive.swap(false, Ordering::Relaxed) {
                    true => Message::Ping(Vec::new().into()),
                    false => return End::Lost("the gateway gave no sign of life".to_owned()),
                },
            };
            if let Err(error) = self.sink.send(message).await {
                return End::Lost(error.to_string());
            }
        }
    }

    /// The line, if it is to be sent.
    fn outgoing(&self, line: Result<String, String>) -> Option<String> {
        let said = line.and_then(|line| held(&self.shared.conversation).say(&line).map(|wanted| wanted.then_some(line)));
        said.unwrap_or_else(|why| {
            let answer = error(&Value::Null, PARSE_ERROR, &format!("a line of the input is no message: {why}"), &Value::Null);
            held(self.own).push(answer);
            self.answers.notify_one();
            None
        })
    }
}

struct Listener<'a, 'c, W> {
    shared: &'a Shared<'c>,
    output: &'a mut W,
    heard: &'a mut bool,
}

impl<W: AsyncWrite + Unpin> Listener<'_, '_, W> {
    /// From the server to the client.
    async fn listen(
        &mut self,
        stream: &mut SplitStream<Socket>,
        own: &Mutex<Vec<String>>,
        answers: &Notify,
    ) -> anyhow::Result<End> {
        loop {
            let message = tokio::select! {
                message = stream.next() => message,
                () = answers.notified() => {
                    let lines = std::mem::take(&mut *held(own));
                    for line in lines {
                        write(self.output, &line).await?;
                    }
                    continue;
                }
            };
            self.shared.alive.store(true, Ordering::Relaxed);
            match message {
                Some(Ok(Message::Text(text))) => self.hear(&text).await?,
                Some(Ok(Message::Binary(_))) => {
                    eprintln!("the gateway sent a binary message, which MCP does not have: it is left out")
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => return Ok(End::Lost(closed(frame))),
                Some(Err(error)) => return Ok(End::Lost(error.to_string())),
                None => return Ok(End::Lost("the gateway closed it".to_owned())),
            }
        }
    }

    async fn hear(&mut self, text: &str) -> anyhow::Result<()> {
        let heard = held(&self.shared.conversation).hear(text);
        match heard {
            Heard::Pass => {
                *self.heard = true;
                write(self.output, text).await?;
            }
            Heard::Keep => {}
            Heard::Resumed(lines) => {
                *self.heard = true;
                *held(&self.shared.first) = lines;
                self.shared.open.notify_one();
            }
            Heard::Another(why) => bail!("{why}; start it again to talk to that one"),
            Heard::Nonsense(why) => eprintln!("the gateway sent what is no message, which is left out: {why}"),
        }
        Ok(())
    }
}

/// Never held while anything is waited for, so that nobody who held it can have failed.
fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn closed(frame: Option<CloseFrame>) -> String {
    match frame {
        Some(frame) if frame.reason.is_empty() => format!("the gateway closed it with {}", u16::from(frame.code)),
        Some(frame) => format!("the gateway closed it with {}: {}", u16::from(frame.code), frame.reason.escape_default()),
        None => "the gateway closed it".to_owned(),
    }
}

/// One message on one line: between the tokens of a JSON text line ends are spaces, and within its strings there are none.
async fn write(output: &mut (impl AsyncWrite + Unpin), text: &str) -> anyhow::Result<()> {
    let mut line = text.replace(['\r', '\n'], " ");
    line.push('\n');
    output.write_all(line.as_bytes()).await?;
    output.flush().await?;
    Ok(())
}
