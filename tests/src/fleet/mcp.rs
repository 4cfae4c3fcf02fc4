//! Plain HTTP to the gateway, for tests that look at statuses, headers and bytes. Foreign MCP clients are in `peers`.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A pooled client.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

/// What to send: a `tools/call` of 2026-07-28 with every header right; tests change the one thing they are about.
pub struct Call {
    pub url: String,
    pub method: Method,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What came back, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Default for Http {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Http {
    pub async fn send(&self, call: Call) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(call.method).uri(&call.url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let answer = self.0.request(request.body(Full::new(call.body))?).await?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}

impl Call {
    /// A call of `tool` in the era without sessions.
    pub fn tool(url: &str, key: &str, tool: &str, arguments: &Value) -> Self {
        Self::modern(url, key, "tools/call", Some(tool), json!({ "name": tool, "arguments": arguments }))
    }

    /// Any request of 2026-07-28; `params` gains the `_meta` that the version demands.
    pub fn modern(url: &str, key: &str, method: &str, name: Option<&str>, mut params: Value) -> Self {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let call = Self::post(url, body.to_string()).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        let call = name.into_iter().fold(call, |call, name| call.header("mcp-name", name));
        if key.is_empty() { call } else { call.header("authorization", &format!("Bearer {key}")) }
    }

    /// A POST of any text with the content headers of MCP.
    pub fn post(url: &str, body: impl Into<Bytes>) -> Self {
        Self { url: url.to_owned(), method: Method::POST, headers: Vec::new(), body: body.into() }
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
    }

    /// Adds a header, beside others of its name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a header out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }
}

impl Answer {
    /// `Mcpgw-Request-Id`.
    pub fn request_id(&self) -> &str {
        self.headers.get("mcpgw-request-id").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The JSON-RPC message: the body, or the last message of an event stream. Null if there is none.
    pub fn message(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        let last = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back();
        serde_json::from_str(last.unwrap_or(&text).trim()).unwrap_or(Value::Null)
    }

    /// The JSON-RPC error code, if it is an error.
    pub fn code(&self) -> Option<i64> {
        self.message()["error"]["code"].as_i64()
    }

    /// The text of the first content of a tool's result.
    pub fn text(&self) -> Option<String> {
        self.message()["result"]["content"][0]["text"].as_str().map(str::to_owned)
    }
}
