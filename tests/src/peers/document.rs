//! What a peer prints: how connecting went, and one outcome per operation.

use serde::Deserialize;
use serde_json::Value;

/// The whole visit.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    /// The result holds `protocolVersion`, `serverInfo` and `capabilities`
    pub connect: Outcome,
    /// In the order asked; empty if connecting failed
    pub operations: Vec<Outcome>,
    /// What the server told unasked, in order of arrival
    #[serde(default)]
    pub notifications: Vec<Value>,
}

/// How one operation ended.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// The operation
    pub op: String,
    /// Whether it gave a result
    pub ok: bool,
    /// The result as the SDK presents it
    #[serde(default)]
    pub result: Value,
    /// Why there is none
    pub error: Option<Refusal>,
}

/// An error as the SDK presents it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// JSON-RPC code, or the SDK's own word, or null
    pub code: Value,
    /// In the server's or the SDK's words
    pub message: String,
    /// JSON-RPC error data
    #[serde(default)]
    pub data: Value,
    /// Status of the last refused POST of this operation
    #[serde(alias = "status")]
    pub http_status: Option<u16>,
    /// Its WWW-Authenticate header
    pub www_authenticate: Option<String>,
}

impl Document {
    /// The operations, if connecting and all of them succeeded; otherwise an error that tells everything.
    pub fn all_ok(self) -> anyhow::Result<Vec<Outcome>> {
        if self.connect.ok && self.operations.iter().all(|outcome| outcome.ok) {
            return Ok(self.operations);
        }
        anyhow::bail!("not everything succeeded: {self:#?}")
    }

    /// The protocol version agreed on.
    pub fn protocol_version(&self) -> Option<&str> {
        self.connect.result["protocolVersion"].as_str()
    }
}

impl Outcome {
    /// The text of the first content block of a tool's result.
    pub fn text(&self) -> Option<&str> {
        self.result["content"][0]["text"].as_str()
    }

    /// The names in a list of tools or prompts.
    pub fn names(&self) -> Vec<&str> {
        let list = ["tools", "prompts", "resources", "resourceTemplates"].iter().find_map(|kind| self.result[kind].as_array());
        list.into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
    }

    /// The JSON-RPC code of a refusal.
    pub fn code(&self) -> Option<i64> {
        self.error.as_ref()?.code.as_i64()
    }

    /// The HTTP status of a refusal.
    pub fn http_status(&self) -> Option<u16> {
        self.error.as_ref()?.http_status
    }
}
