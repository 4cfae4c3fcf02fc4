//! What a legacy server said when it was greeted, and the answer to `server/discover` that is made of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::result::SERVER_INFO;
use crate::transport::Version;

/// What is kept of an answer to `initialize`.
#[derive(Debug, Default)]
pub struct Greeting {
    capabilities: BTreeMap<String, Box<RawValue>>,
    instructions: Option<Box<RawValue>>,
    server_info: Option<Box<RawValue>>,
}

/// What a server can tell without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    pub tools_changed: bool,
    pub prompts_changed: bool,
    pub resources_changed: bool,
    /// Changes of single resources.
    pub updates: bool,
    pub logging: bool,
}

#[derive(Deserialize)]
struct Answer {
    result: Initialized,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    #[serde(default)]
    capabilities: BTreeMap<String, Box<RawValue>>,
    instructions: Option<Box<RawValue>>,
    server_info: Option<Box<RawValue>>,
}

/// The members of a capability that matter.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Capability {
    list_changed: bool,
    subscribe: bool,
}

impl Greeting {
    /// Of a server's answer to `initialize`; `None`: it is none.
    pub fn read(message: &[u8]) -> Option<Self> {
        let Answer { result: Initialized { mut capabilities, instructions, server_info } } =
            serde_json::from_slice(message).ok()?;
        // Tasks of 2025-11-25 are not those of the extension.
        capabilities.remove("tasks");
        Some(Self { capabilities, instructions, server_info })
    }

    /// Of a service that knows no `initialize`: calling is all that it is for.
    pub fn of_service() -> Self {
        let tools = RawValue::from_string("{}".into()).expect("an object is JSON");
        Self { capabilities: BTreeMap::from([("tools".to_owned(), tools)]), ..Self::default() }
    }

    /// Who the server says that it is, as JSON.
    pub fn server_info(&self) -> Option<&str> {
        self.server_info.as_deref().map(RawValue::get)
    }

    pub fn offers(&self) -> Offers {
        let of = |name: &str| -> Capability {
            self.capabilities.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        };
        let resources = of("resources");
        Offers {
            tools_changed: of("tools").list_changed,
            prompts_changed: of("prompts").list_changed,
            resources_changed: resources.list_changed,
            updates: resources.subscribe,
            logging: self.capabilities.contains_key("logging"),
        }
    }

    /// The answer to a `server/discover` with this id.
    pub fn discover(&self, id: &str) -> Bytes {
        let capabilities: Vec<_> = self.capabilities.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        let instructions = self.instructions.as_ref().map(|text| format!(r#","instructions":{text}"#)).unwrap_or_default();
        let info = self.server_info().map(|info| format!(r#","_meta":{{"{SERVER_INFO}":{info}}}"#)).unwrap_or_default();
        let versions = serde_json::to_string(Version::MODERN).expect("texts serialise");
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","ttlMs":0,"cacheScope":"private","supportedVersions":{versions},"capabilities":{{{}}}{instructions}{info}}}}}"#,
            capabilities.join(",")
        )
        .into()
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_greeting_becomes_a_discovery() {
        let message = json!({"jsonrpc": "2.0", "id": 1, "result": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "tasks": {"list": {}}, "logging": {}, "mine": 7},
            "instructions": "Mind the \"gap\".",
            "serverInfo": {"name": "s", "version": "1", "title": "S"},
        }});
        let greeting = Greeting::read(message.to_string().as_bytes()).unwrap();
        let discovered: Value = serde_json::from_slice(&greeting.discover("\"d\"")).unwrap();
        let expected = json!({"jsonrpc": "2.0", "id": "d", "result": {
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}, "mine": 7},
            "instructions": "Mind the \"gap\".",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1", "title": "S"}},
        }});
        assert_eq!(discovered, expected);
        let offers = Offers { tools_changed: true, updates: true, logging: true, ..Offers::default() };
        assert_eq!(greeting.offers(), offers);
    }

    #[test]
    fn a_service_without_a_greeting_has_tools_and_nothing_to_tell() {
        let service = Greeting::of_service();
        let discovered: Value = serde_json::from_slice(&service.discover("1")).unwrap();
        assert_eq!(discovered["result"]["capabilities"], json!({"tools": {}}));
        assert_eq!((service.offers(), service.server_info()), (Offers::default(), None));
        assert!(Greeting::read(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}"#).is_none());
    }
}
