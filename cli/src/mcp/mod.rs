//! An MCP client of our own, for both eras over Streamable HTTP.
//! Owns choosing the era and what a tool call is; never decides where to or as whom. Called by `tools`,
//! `call` and the operators' verbs.

mod answer;
mod error;
mod http;
mod legacy;
mod modern;
mod order;
#[cfg(test)]
mod tests;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

pub use error::Error;
pub use http::Http;
pub use order::{Events, events, order};

/// Which protocol era to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Era {
    /// Ask the server first
    Auto,
    /// The initialize handshake, up to 2025-11-25
    Legacy,
    /// Self-contained requests, 2026-07-28
    Modern,
}

/// A result and the id by which the gateway recorded the request.
#[derive(Debug)]
pub struct Answer {
    pub result: Value,
    /// The header `Mcpgw-Request-Id`; absent if the server is not behind the gateway.
    pub request_id: Option<String>,
}

/// A conversation with one server.
pub struct Client {
    http: Http,
    session: Session,
}

enum Session {
    Legacy(legacy::Session),
    Modern,
}

impl Client {
    /// Finds out the era if need be, and shakes hands where the era wants it.
    pub async fn connect(http: Http, era: Era) -> Result<Self, Error> {
        let modern = match era {
            Era::Auto => modern::is_spoken(&http).await?,
            Era::Legacy => false,
            Era::Modern => true,
        };
        let session = if modern { Session::Modern } else { Session::Legacy(legacy::Session::start(&http).await?) };
        Ok(Self { http, session })
    }

    /// All tools that the caller may see, as the server describes them.
    pub async fn tools(&self) -> Result<(Vec<Value>, Option<String>), Error> {
        let mut tools = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let mut params = Map::new();
            if !cursor.is_null() {
                params.insert("cursor".into(), cursor);
            }
            let mut answer = self.request("tools/list", params, &[]).await?;
            let Some(Value::Array(page)) = answer.result.get_mut("tools").map(Value::take) else {
                return Err(Error::Nonsense("the answer to tools/list has no tools".into()));
            };
            tools.extend(page);
            cursor = answer.result.get_mut("nextCursor").map(Value::take).unwrap_or_default();
            if cursor.is_null() {
                return Ok((tools, answer.request_id));
            }
        }
    }

    /// Calls a tool and waits for its result.
    pub async fn call(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Answer, Error> {
        let params = || {
            let mut params = Map::new();
            params.insert("name".into(), json!(tool));
            params.insert("arguments".into(), json!(arguments));
            params
        };
        let first = self.request("tools/call", params(), &[]).await;
        if !matches!(&first, Err(error) if error.code() == Some(modern::HEADER_MISMATCH)) {
            return first;
        }
        // The tool wants some arguments as headers too; only its description says which.
        let (tools, _) = self.tools().await?;
        let headers = modern::parameter_headers(&tools, tool, arguments);
        if headers.is_empty() { first } else { self.request("tools/call", params(), &headers).await }
    }

    /// Says goodbye where the era knows of it. Nothing depends on its success.
    pub async fn close(self) {
        match self.session {
            Session::Legacy(session) => session.end(&self.http).await,
            Session::Modern => {}
        }
    }

    async fn request(&self, method: &str, params: Map<String, Value>, extra: &[(String, String)]) -> Result<Answer, Error> {
        match &self.session {
            Session::Legacy(session) => session.request(&self.http, method, params).await,
            Session::Modern => modern::request(&self.http, method, params, extra).await,
        }
    }
}

/// How we introduce ourselves.
fn client_info() -> Value {
    json!({ "name": "mcpgw", "version": env!("CARGO_PKG_VERSION") })
}
