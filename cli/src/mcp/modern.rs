//! The modern era, 2026-07-28: every request carries everything, in `_meta` and in headers.
//! Never keeps state between requests. Used by `mcp::Client`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::answer::{self, Read, spoken};
use super::error::Error;
use super::http::{Http, header};
use super::{Answer, client_info};

pub const VERSION: &str = "2026-07-28";
/// Headers and body disagree, or a header is missing.
pub const HEADER_MISMATCH: i64 = -32_020;
const MISSING_CAPABILITY: i64 = -32_021;
const UNSUPPORTED_VERSION: i64 = -32_022;

/// Whether the server speaks this era: asks it, and takes any answer that only this era gives for yes.
pub async fn is_spoken(http: &Http) -> Result<bool, Error> {
    match request(http, "server/discover", Map::new(), &[]).await {
        Ok(answer) => {
            let versions = answer.result["supportedVersions"].as_array();
            Ok(versions.is_none_or(|it| it.iter().any(|version| version == VERSION)))
        }
        Err(error) => match (error.code(), error.status()) {
            (Some(HEADER_MISMATCH | MISSING_CAPABILITY), _) => Ok(true),
            (Some(UNSUPPORTED_VERSION), _) => Ok(false),
            // Who may not come in learns nothing about eras.
            (_, Some(status)) if status.as_u16() == 401 || status.as_u16() == 403 => Err(error),
            (_, Some(status)) if status.is_server_error() => Err(error),
            (_, Some(_)) => Ok(false),
            // A server that never heard of the method may answer anything.
            (_, None) if matches!(error, Error::Nonsense(_)) => Ok(false),
            (_, None) => Err(error),
        },
    }
}

/// One request and its result. `extra` are headers that mirror arguments.
pub async fn request(
    http: &Http,
    method: &str,
    mut params: Map<String, Value>,
    extra: &[(String, String)],
) -> Result<Answer, Error> {
    let id = http.next_id();
    let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str).map(str::to_owned);
    params.insert("_meta".into(), meta(id));
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });

    let mut headers = HeaderMap::new();
    header(&mut headers, "mcp-protocol-version", VERSION)?;
    header(&mut headers, "mcp-method", method)?;
    if let Some(name) = name {
        header(&mut headers, "mcp-name", &header_value(&name))?;
    }
    for (name, value) in extra {
        header(&mut headers, name, &header_value(value))?;
    }
    http.within(async {
        let response = http.post(headers, &message).await?;
        let request_id = answer::request_id(&response);
        let other = async |message: Value| {
            spoken(&message).iter().for_each(|said| http.tell(said));
            Ok(())
        };
        match answer::read(response, id, other).await? {
            Read::Result(result) => complete(result, request_id),
            Read::Ended { .. } => Err(Error::BrokeOff("the stream ended without a response".into())),
        }
    })
    .await
}

fn meta(id: i64) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client_info(),
        "progressToken": id,
    })
}

/// A result is complete unless it says otherwise; we can answer nothing that a server might ask for.
fn complete(mut result: Value, request_id: Option<String>) -> Result<Answer, Error> {
    match result["resultType"].as_str() {
        None | Some("complete") => Ok(Answer { result, request_id }),
        Some("input_required") => {
            let requests = result.get_mut("inputRequests").map(Value::take).unwrap_or_default();
            Err(Error::InputRequired { requests, request_id })
        }
        Some(other) => Err(Error::Nonsense(format!("the result is of the unknown type {other:?}"))),
    }
}

/// A value as a header may carry it: as it is, or in the specification's Base64 wrapping.
pub fn header_value(value: &str) -> String {
    let plain = value.bytes().all(|it| (0x20..0x7f).contains(&it))
        && value.trim() == value
        && !value.is_empty()
        && !value.starts_with("=?base64?");
    if plain { value.to_owned() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(value)) }
}

/// The headers that mirror arguments, as the tool's input schema asks for with `x-mcp-header`.
pub fn parameter_headers(tools: &[Value], tool: &str, arguments: &Map<String, Value>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    if let Some(tool) = tools.iter().find(|it| it["name"] == tool) {
        mirror(&tool["inputSchema"], arguments, &mut headers);
    }
    headers
}

fn mirror(schema: &Value, arguments: &Map<String, Value>, headers: &mut Vec<(String, String)>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let value = &arguments.get(name).cloned().unwrap_or_default();
        let text = match value {
            Value::Object(nested) => {
                mirror(property, nested, headers);
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) => continue,
        };
        if let Some(header) = property["x-mcp-header"].as_str() {
            headers.push((format!("mcp-param-{header}"), text));
        }
    }
}
