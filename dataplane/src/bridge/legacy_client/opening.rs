//! A handshake for a client whose server has none: `initialize` is answered with what `server/discover` tells
//! (2026-07-28 server/discover; 2025-11-25 lifecycle).

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::request::Client;
use crate::transport::Version;

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// The one extension that clients of before can declare too.
const APPS: &str = "io.modelcontextprotocol/ui";

/// What the server offers, as far as the bridge has to know.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    capabilities: Map<String, Value>,
}

impl Offer {
    /// Whether the server has log messages.
    pub fn logs(&self) -> bool {
        self.capabilities.contains_key("logging")
    }

    /// Whether it tells of changes of resources.
    pub fn subscribes(&self) -> bool {
        self.says("resources", "subscribe")
    }

    /// The lists of whose changes it tells, as `subscriptions/listen` names them.
    pub fn changing(&self) -> impl Iterator<Item = &'static str> + '_ {
        let lists = [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
        lists.into_iter().filter(|(list, _)| self.says(list, "listChanged")).map(|(_, name)| name)
    }

    fn says(&self, of: &str, what: &str) -> bool {
        self.capabilities.get(of).and_then(|of| of.get(what)).is_some_and(|says| says == true)
    }
}

/// The answer to `initialize`, from the one to `server/discover`; `slug` names a server that does not name itself.
pub(super) fn initialized(discovered: &[u8], number: u64, client: &Client, slug: &str) -> Option<(Bytes, Offer)> {
    let mut answer: Value = serde_json::from_slice(discovered).ok()?;
    let result = answer.get_mut("result")?.as_object_mut()?;
    let mut capabilities = result.remove("capabilities")?.as_object()?.clone();
    let offer = Offer { capabilities: capabilities.clone() };
    if let Some(Value::Object(mut extensions)) = capabilities.remove("extensions") {
        extensions.retain(|id, _| id == APPS);
        if !extensions.is_empty() {
            capabilities.insert("extensions".to_owned(), extensions.into());
        }
    }
    if client.version < Version::V2025_03_26 {
        capabilities.remove("completions");
    }
    let named = result.get("_meta").and_then(|meta| meta.get(SERVER_INFO)).filter(|info| info.is_object()).cloned();
    let mut opened = json!({
        "protocolVersion": client.version.as_str(),
        "capabilities": capabilities,
        "serverInfo": named.unwrap_or_else(|| json!({ "name": slug, "version": "" })),
    });
    if let Some(instructions) = result.remove("instructions").filter(Value::is_string) {
        opened["instructions"] = instructions;
    }
    let message = json!({ "jsonrpc": "2.0", "id": number, "result": opened });
    Some((message.to_string().into(), offer))
}

/// Whether a server that refused the version of a request names that very version among those that it supports.
pub(super) fn supports_ours(refusal: &[u8]) -> bool {
    let refusal: Value = serde_json::from_slice(refusal).unwrap_or_default();
    let supported = refusal.pointer("/error/data/supported").and_then(Value::as_array);
    supported.is_some_and(|versions| versions.iter().any(|version| version == Version::V2026_07_28.as_str()))
}
