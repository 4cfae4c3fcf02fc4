//! Foreign MCP clients and servers, run as they are published: TypeScript SDK 1.x and 2.x, Python SDK 1.x and 2.x,
//! the inspector, and server-everything. Owns the scripts' command line and output; judges nothing. Used by `tests/e2e`.

mod document;
mod everything;
mod inspector;
pub mod matrix;
mod xds;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

pub use document::{Document, Outcome, Refusal};
pub use everything::{Everything, EverythingTransport};
pub use inspector::{Era, inspect};
pub use xds::{FirstResponse, NamedVersion, StockXds};

use crate::foreign::{self, Foreign, tests_directory};

/// A visit of a dozen operations takes about a second; a machine that is busy with builds needs more.
const VISIT_TIMEOUT: Duration = Duration::from_secs(90);

/// A foreign client in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TypeScript SDK 1.x over Streamable HTTP (legacy)
    Ts1,
    /// TypeScript SDK 1.x over HTTP+SSE (2024-11-05)
    Ts1Sse,
    /// TypeScript SDK 1.x over WebSocket; cannot send a token
    Ts1WebSocket,
    /// TypeScript SDK 2.x pinned to 2026-07-28
    Ts2,
    /// TypeScript SDK 2.x with the legacy handshake
    Ts2Legacy,
    /// TypeScript SDK 2.x that probes the era
    Ts2Auto,
    /// Python SDK 2.x pinned to 2026-07-28
    Py2,
    /// Python SDK 2.x with the legacy handshake
    Py2Legacy,
    /// Python SDK 2.x that probes the era
    Py2Auto,
}

impl Peer {
    /// Every client that speaks Streamable HTTP.
    pub const STREAMABLE_HTTP: [Self; 7] =
        [Self::Ts1, Self::Ts2, Self::Ts2Legacy, Self::Ts2Auto, Self::Py2, Self::Py2Legacy, Self::Py2Auto];

    /// Whether a server of both eras is spoken to in 2026-07-28.
    pub fn modern(self) -> bool {
        match self {
            Self::Ts2 | Self::Ts2Auto | Self::Py2 | Self::Py2Auto => true,
            Self::Ts1 | Self::Ts1Sse | Self::Ts1WebSocket | Self::Ts2Legacy | Self::Py2Legacy => false,
        }
    }

    fn command(self, foreign: &Foreign) -> Command {
        let (file, arguments): (&str, &[&str]) = match self {
            Self::Ts1 => ("ts1.mjs", &["--transport", "http"]),
            Self::Ts1Sse => ("ts1.mjs", &["--transport", "sse"]),
            Self::Ts1WebSocket => ("ts1.mjs", &["--transport", "ws"]),
            Self::Ts2 => ("ts2.mjs", &["--mode", "2026-07-28"]),
            Self::Ts2Legacy => ("ts2.mjs", &["--mode", "legacy"]),
            Self::Ts2Auto => ("ts2.mjs", &["--mode", "auto"]),
            Self::Py2 => ("py2.py", &["--mode", "2026-07-28"]),
            Self::Py2Legacy => ("py2.py", &["--mode", "legacy"]),
            Self::Py2Auto => ("py2.py", &["--mode", "auto"]),
        };
        let interpreter = if file.ends_with(".py") { foreign.python() } else { foreign.node() };
        let mut command = script(interpreter, file);
        command.args(arguments);
        command
    }
}

/// The command that runs a script of `tests/peers`; Node is told where its packages are.
fn script(interpreter: PathBuf, file: &str) -> Command {
    let scripts = tests_directory().join("peers");
    let mut command = Command::new(interpreter);
    if file.ends_with(".mjs") {
        command.arg("--import").arg(scripts.join("resolve.mjs"));
    }
    command.arg(scripts.join(file));
    command
}

/// What a peer is to do: connect to a URL, then one operation after the other.
#[derive(Clone, Debug)]
pub struct Visit {
    arguments: Vec<OsString>,
}

impl Visit {
    /// A visit to the MCP endpoint at `url`.
    pub fn to(url: &str) -> Self {
        Self { arguments: Vec::new() }.with(["--url", url])
    }

    /// Sends `token` as bearer.
    pub fn token(self, token: &str) -> Self {
        self.with(["--token", token])
    }

    /// Declares no client capabilities; otherwise sampling, elicitation and roots are declared and answered.
    pub fn plain(self) -> Self {
        self.with(["--plain"])
    }

    /// `tools/list`, all pages
    pub fn list_tools(self) -> Self {
        self.with(["list-tools"])
    }

    /// `resources/list`
    pub fn list_resources(self) -> Self {
        self.with(["list-resources"])
    }

    /// `resources/templates/list`
    pub fn list_templates(self) -> Self {
        self.with(["list-templates"])
    }

    /// `prompts/list`
    pub fn list_prompts(self) -> Self {
        self.with(["list-prompts"])
    }

    /// `ping` (legacy only)
    pub fn ping(self) -> Self {
        self.with(["ping"])
    }

    /// `tools/call`; the result carries the progress heard as `progress`
    pub fn call(self, tool: &str, arguments: &Value) -> Self {
        self.with(["call", tool, &arguments.to_string()])
    }

    /// `resources/read`
    pub fn read(self, uri: &str) -> Self {
        self.with(["read", uri])
    }

    /// `prompts/get`
    pub fn get_prompt(self, prompt: &str, arguments: &Value) -> Self {
        self.with(["get-prompt", prompt, &arguments.to_string()])
    }

    /// `completion/complete` of a prompt's argument
    pub fn complete(self, prompt: &str, argument: &str, value: &str) -> Self {
        self.with(["complete", prompt, argument, value])
    }

    /// `resources/subscribe` (legacy only)
    pub fn subscribe(self, uri: &str) -> Self {
        self.with(["subscribe", uri])
    }

    /// `logging/setLevel` (legacy only)
    pub fn set_level(self, level: &str) -> Self {
        self.with(["set-level", level])
    }

    /// `subscriptions/listen` to every list change; nothing in a legacy mode (TypeScript peers only)
    pub fn listen(self) -> Self {
        self.with(["listen"])
    }

    /// Waits for a notification, at most ten seconds (TypeScript peers only)
    pub fn expect(self, notification: &str) -> Self {
        self.with(["expect", notification])
    }

    /// Lets `peer` make this visit. Refusals are part of the document; an error means that the peer could not run.
    pub async fn by(self, peer: Peer) -> anyhow::Result<Document> {
        let foreign = Foreign::installed()?;
        let what = format!("peer {peer:?}");
        let mut command = peer.command(&foreign);
        let output =
            foreign::run(command.args(self.arguments), VISIT_TIMEOUT).await.with_context(|| what.clone())?.succeeded(&what)?;
        serde_json::from_str(&output.stdout).with_context(|| format!("{what} printed {:?}", output.stdout))
    }

    fn with<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.arguments.extend(words.map(OsString::from));
        self
    }
}
