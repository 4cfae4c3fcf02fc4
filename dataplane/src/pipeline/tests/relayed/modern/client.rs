//! A modern client: a POST per request, its answer read whole, or as it comes.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mcp_gateway::proto::config::v1::{Era, Transport};
use serde_json::{Value, json};

use super::super::super::scope::{ENGINEER, GITHUB, Scope, bearer};
use super::super::super::world::Gateway;
use super::super::conversation;
use super::super::server::Server;
use crate::sse::Framer;

/// The server, pinned to its era.
pub fn scope(server: &Server) -> Scope {
    let mut scope = conversation::scope(server);
    scope.server(GITHUB).era = Era::Legacy.into();
    scope
}

pub async fn world(kind: Transport) -> (Gateway, Server) {
    let server = Server::start(kind).await;
    (Gateway::start(&scope(&server)).await, server)
}

/// See the module.
#[derive(Clone)]
pub struct Client<'g> {
    pub gateway: &'g Gateway,
    pub credential: String,
    pub capabilities: Value,
    pub level: Option<&'static str>,
    pub token: Option<Value>,
}

/// An answer that is being read.
pub struct Answer {
    pub status: u16,
    pub request_id: String,
    pub is_stream: bool,
    body: Incoming,
    framer: Framer,
}

impl<'g> Client<'g> {
    pub fn of(gateway: &'g Gateway) -> Self {
        let capabilities = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}});
        Self { gateway, credential: bearer(ENGINEER), capabilities, level: None, token: None }
    }

    /// Sends a request; the head of the answer is there.
    pub async fn send(&self, id: Value, method: &str, mut params: Value) -> Answer {
        let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "t", "version": "1"});
        if let Some(level) = self.level {
            meta["io.modelcontextprotocol/logLevel"] = level.into();
        }
        if let Some(token) = &self.token {
            meta["progressToken"] = token.clone();
        }
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let mut headers =
            vec![("authorization", &*self.credential), ("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        headers.extend(name.as_deref().map(|name| ("mcp-name", name)));
        let request = self.gateway.request(Method::POST, &format!("/servers/{GITHUB}/mcp"), &headers, body);
        let (head, body) = self.gateway.send(request).await.into_parts();
        let is_stream = head.headers["content-type"] == "text/event-stream";
        let request_id = head.headers["mcpgw-request-id"].to_str().unwrap().to_owned();
        Answer { status: head.status.as_u16(), request_id, is_stream, body, framer: Framer::new(1 << 20) }
    }

    /// The message that answers a request, whatever came before it.
    pub async fn ask(&self, id: Value, method: &str, params: Value) -> Value {
        let said = self.send(id.clone(), method, params).await.all().await;
        let answer = said.last().unwrap_or_else(|| panic!("no answer to {id}")).clone();
        assert_eq!(answer["id"], id, "{said:?}");
        answer
    }

    pub async fn call(&self, id: Value, tool: &str, arguments: Value) -> Value {
        self.ask(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }
}

impl Answer {
    /// The next message; `None`: there are no more.
    pub async fn next(&mut self) -> Option<Value> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.read()).await;
        next.expect("something comes")
    }

    async fn read(&mut self) -> Option<Value> {
        if !self.is_stream {
            let body = (&mut self.body).collect().await.unwrap().to_bytes();
            return (!body.is_empty()).then(|| serde_json::from_slice(&body).unwrap());
        }
        loop {
            while let Some(event) = self.framer.next_event().unwrap() {
                if let Some(data) = event.data().filter(|data| !data.is_empty()) {
                    return Some(serde_json::from_slice(&data).unwrap());
                }
            }
            match self.body.frame().await {
                Some(frame) => self.framer.push(frame.ok()?.into_data().unwrap()),
                None => return None,
            }
        }
    }

    pub async fn all(mut self) -> Vec<Value> {
        let mut said = Vec::new();
        while let Some(message) = self.next().await {
            said.push(message);
        }
        said
    }
}
