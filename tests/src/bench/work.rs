//! What is asked and what has to come back: one call of the tool `echo`, in either era. Owns the bytes of both, so that the mock, the
//! load and the checks cannot disagree.

use serde::{Deserialize, Serialize};

/// A number that stands in a request and its answer; of one width, so that it is written in place.
pub const ID_DIGITS: usize = 8;
/// Where a template has the number.
const ID: &str = "10000000";
const TEXT: &str =
    "the quick brown fox jumps over the lazy dog and says so; the quick brown fox jumps over the lazy dog and says so twice";

/// What opens a session of the legacy era.
pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
/// What follows the answer to it.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Which MCP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Era {
    /// 2026-07-28: every request stands alone.
    Modern,
    /// 2025-11-25: requests belong to a session.
    Legacy,
}

/// What a client asks of whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// `host:port`.
    pub address: String,
    pub path: String,
    pub era: Era,
    /// Bearer tokens to rotate; empty: none is sent.
    pub tokens: Vec<String>,
    /// The tool: `echo` or `progress`.
    pub tool: String,
    /// Whether the server is one of the other era.
    #[serde(default)]
    pub across: bool,
}

/// Bytes with a number to write into them.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    at: Vec<usize>,
}

impl Template {
    fn new(bytes: Vec<u8>) -> Self {
        let at = memchr::memmem::find_iter(&bytes, ID).collect();
        Self { bytes, at }
    }

    /// With the number `id` in it.
    pub fn with(&mut self, id: u32) -> &[u8] {
        let digits = digits(id);
        for at in &self.at {
            self.bytes[*at..*at + ID_DIGITS].copy_from_slice(&digits);
        }
        &self.bytes
    }
}

/// The last eight decimal digits, never beginning with 0: JSON allows no such number.
fn digits(id: u32) -> [u8; ID_DIGITS] {
    let mut rest = id % 90_000_000 + 10_000_000;
    let mut digits = [b'0'; ID_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    digits
}

impl Work {
    /// The same caller with another tool.
    #[must_use]
    pub fn of(&self, tool: &str) -> Self {
        Self { tool: tool.to_owned(), ..self.clone() }
    }

    /// The same call in a legacy session. It is bound to who opened it, so that there is one caller.
    #[must_use]
    pub fn legacy(&self) -> Self {
        Self { era: Era::Legacy, tokens: self.tokens.iter().take(1).cloned().collect(), ..self.clone() }
    }

    /// The same call by the same client, of a server that knows the other era alone.
    #[must_use]
    pub fn across(&self) -> Self {
        let other = match self.era {
            Era::Modern => "-legacy",
            Era::Legacy => "-modern",
        };
        let path = self.path.strip_suffix("/mcp").map_or_else(|| self.path.clone(), |place| format!("{place}{other}/mcp"));
        Self { path, across: true, ..self.clone() }
    }

    /// The same work by one of its users.
    #[must_use]
    pub fn of_user(&self, number: usize) -> Self {
        let token = self.tokens.get(number % self.tokens.len().max(1));
        Self { era: Era::Legacy, tokens: token.into_iter().cloned().collect(), ..self.clone() }
    }

    /// The path of another transport of the same server.
    pub fn beside(&self, transport: &str) -> String {
        format!("{}/{transport}", self.path.strip_suffix("/mcp").unwrap_or(&self.path))
    }

    /// The request, once per token. `session` is the legacy one's.
    pub fn requests(&self, session: Option<&str>) -> Vec<Template> {
        let body = self.body();
        let tokens = if self.tokens.is_empty() { vec![None] } else { self.tokens.iter().map(Some).collect() };
        let request = |token: Option<&String>| {
            let authorization = authorization(token.map(String::as_str));
            let era = match (self.era, session) {
                (Era::Modern, _) => {
                    format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {}\r\n", self.tool)
                }
                (Era::Legacy, session) => {
                    format!("mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {}\r\n", session.unwrap_or_default())
                }
            };
            Template::new(post(self, &format!("{authorization}{era}"), &body))
        };
        tokens.into_iter().map(request).collect()
    }

    /// What is expected for a call of `echo`.
    pub fn answer(&self) -> Template {
        let answer = match (self.era, self.across) {
            (Era::Modern, true) => across(&answer(Era::Legacy)),
            // What is of no use to a legacy client is left where it is.
            (Era::Legacy, true) => answer(Era::Modern),
            (era, false) => answer(era),
        };
        Template::new(answer.into_bytes())
    }

    fn body(&self) -> String {
        let meta = match self.era {
            Era::Modern => {
                r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#
            }
            Era::Legacy => "",
        };
        let tool = &self.tool;
        format!(
            r#"{{"jsonrpc":"2.0","id":{ID},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{TEXT}"}}{meta}}}}}"#
        )
    }
}

/// A POST with the headers that every MCP request has.
pub fn post(work: &Work, headers: &str, body: &str) -> Vec<u8> {
    let (path, host, length) = (&work.path, &work.address, body.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         {headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The header that says who asks; nothing for nobody.
pub fn authorization(token: Option<&str>) -> String {
    token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default()
}

/// A GET that opens a stream of a legacy client's.
pub fn listen(work: &Work, headers: &str) -> Vec<u8> {
    let authorization = authorization(work.tokens.first().map(String::as_str));
    let (path, host) = (&work.path, &work.address);
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{authorization}{headers}\r\n").into_bytes()
}

/// The body of the answer to a call of `echo`.
pub fn answer(era: Era) -> String {
    let kind = match era {
        Era::Modern => r#""resultType":"complete","#,
        Era::Legacy => "",
    };
    format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{{kind}"content":[{{"type":"text","text":"{TEXT}"}}],"isError":false}}}}"#)
}

/// The same with another number than those of the load.
pub fn answer_to(era: Era, id: &str) -> String {
    answer(era).replace(ID, id)
}

/// A legacy answer as a modern client gets it.
fn across(answer: &str) -> String {
    let dress =
        r#""result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mock","version":"1"}},"#;
    answer.replace(r#""result":{"#, dress)
}

/// The bodies that the mock sends, ready made.
pub fn template(text: String) -> Template {
    Template::new(text.into_bytes())
}

/// A progress notification of the tool `progress`; event `number` of ten.
pub fn progress(number: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{number},"total":10,"message":"step {number} of 10"}}}}"#
    )
}
