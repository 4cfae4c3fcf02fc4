//! Arguments that a tool wants repeated in headers: `x-mcp-header` of its input schema, `Mcp-Param-*` of the request (2026-07-28
//! Streamable HTTP, custom headers from tool parameters; SEP-2243). Clients of the legacy era know nothing of it, so the bridge does it
//! for them, from the list of tools that the server shows.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{HashMap, HashSet};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::transport::header::{PARAM_PREFIX, encoded};

/// How deep a property may lie.
const MAX_DEPTH: usize = 16;

/// An argument that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    header: HeaderName,
    /// From the arguments inwards.
    path: Vec<String>,
}

/// What the tools of one server want repeated; those that want nothing are not named.
#[derive(Debug, Clone, Default)]
pub(super) struct Mirrors {
    by_tool: HashMap<String, Vec<Mirror>>,
}

/// A tool whose schema breaks the rules: clients must not see it.
#[derive(Debug, PartialEq, Eq)]
struct Invalid;

impl Mirrors {
    /// Learns from a page of `tools/list`; gives the page without the tools that break the rules, if there are any.
    pub fn learn(&mut self, page: &[u8]) -> Option<Value> {
        if !contains(page, b"x-mcp-header") {
            return None;
        }
        let mut page: Value = serde_json::from_slice(page).ok()?;
        let tools = page.get_mut("result")?.get_mut("tools")?.as_array_mut()?;
        let before = tools.len();
        tools.retain(|tool| {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { return true };
            match wanted(tool.get("inputSchema").unwrap_or(&Value::Null)) {
                Ok(mirrors) if mirrors.is_empty() => drop(self.by_tool.remove(name)),
                Ok(mirrors) => drop(self.by_tool.insert(name.to_owned(), mirrors)),
                Err(Invalid) => return false,
            }
            true
        });
        (tools.len() < before).then_some(page)
    }

    /// Adds what a call of this tool has to repeat.
    pub fn repeat(&self, tool: &str, arguments: Option<&str>, headers: &mut HeaderMap) {
        let Some(mirrors) = self.by_tool.get(tool) else { return };
        let arguments: Value = arguments.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for Mirror { header, path } in mirrors {
            let found = path.iter().try_fold(&arguments, |value, key| value.get(key));
            let value = match found {
                Some(Value::String(text)) => encoded(text),
                Some(Value::Bool(truth)) => HeaderValue::from_static(if *truth { "true" } else { "false" }),
                Some(Value::Number(number)) => encoded(&number.to_string()),
                // What is not there is not repeated; what is of another type is the server's to refuse.
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => continue,
            };
            headers.insert(header.clone(), value);
        }
    }
}

/// The arguments that a schema marks.
fn wanted(schema: &Value) -> Result<Vec<Mirror>, Invalid> {
    let (mut found, mut names) = (Vec::new(), HashSet::new());
    collect(schema, &mut Vec::new(), &mut found)?;
    // What lies anywhere else than below `properties` is a mark that nobody could follow.
    if marks(schema, 0) != found.len() || found.iter().any(|mirror| !names.insert(mirror.header.clone())) {
        return Err(Invalid);
    }
    Ok(found)
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirror>) -> Result<(), Invalid> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|_| path.len() < MAX_DEPTH) else {
        return Ok(());
    };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(mark) = property.get("x-mcp-header") {
            let mark = mark.as_str().filter(|mark| !mark.is_empty()).ok_or(Invalid)?;
            let of_type = property.get("type").and_then(Value::as_str);
            // A number has many spellings, of which a header could only have one.
            if !matches!(of_type, Some("string" | "integer" | "boolean")) {
                return Err(Invalid);
            }
            let header = format!("{PARAM_PREFIX}{}", mark.to_ascii_lowercase());
            let header = HeaderName::try_from(header).map_err(|_not_a_token| Invalid)?;
            found.push(Mirror { header, path: path.clone() });
        }
        collect(property, path, found)?;
        path.pop();
    }
    Ok(())
}

/// How many marks there are, wherever they are; a property may well be called so.
fn marks(value: &Value, depth: usize) -> usize {
    match value {
        Value::Object(members) if depth < 4 * MAX_DEPTH => members
            .iter()
            .map(|(key, value)| {
                let is_mark = key == "x-mcp-header" && !value.is_object();
                let within = if key == "default" || key == "examples" || key == "const" { 0 } else { marks(value, depth + 1) };
                usize::from(is_mark) + within
            })
            .sum(),
        Value::Array(elements) if depth < 4 * MAX_DEPTH => elements.iter().map(|element| marks(element, depth + 1)).sum(),
        _ => 0,
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(text, wanted).is_some()
}

/// What is known of each server, by its id, in this process.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<HashMap<Arc<str>, Arc<Mirrors>>>>);

impl Known {
    pub(super) fn of(&self, server: &Arc<str>) -> Option<Arc<Mirrors>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    pub(super) fn set(&self, server: &Arc<str>, mirrors: Arc<Mirrors>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone(), mirrors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn learned(tools: Value) -> (Mirrors, Option<Value>) {
        let mut mirrors = Mirrors::default();
        let without = mirrors.learn(json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string().as_bytes());
        (mirrors, without)
    }

    fn repeated(mirrors: &Mirrors, arguments: &Value) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        mirrors.repeat("t", Some(&arguments.to_string()), &mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn marked_arguments_are_repeated_wherever_they_lie() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "plain": {"type": "string"},
        }});
        let (mirrors, without) = learned(json!([{"name": "t", "inputSchema": schema}]));
        assert_eq!(without, None);
        let all = repeated(&mirrors, &json!({"region": "zürich", "deep": {"n": 7}, "plain": "x"}));
        assert_eq!(all.len(), 2);
        assert!(all.contains(&("mcp-param-n".to_owned(), "7".to_owned())));
        assert!(all.contains(&("mcp-param-region".to_owned(), "=?base64?esO8cmljaA==?=".to_owned())));
        assert_eq!(repeated(&mirrors, &json!({"region": null})), [], "what is not there is not repeated");
    }

    #[test]
    fn tools_that_break_the_rules_are_not_shown() {
        let tool =
            |name: &str, properties: Value| json!({"name": name, "inputSchema": {"type": "object", "properties": properties}});
        let bad = [
            json!({"a": {"type": "object", "x-mcp-header": "A"}}),
            json!({"a": {"type": "number", "x-mcp-header": "A"}}),
            json!({"a": {"type": "string", "x-mcp-header": "A B"}}),
            json!({"a": {"type": "string", "x-mcp-header": ""}}),
            json!({"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}),
            json!({"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}),
        ];
        for properties in bad {
            let good = tool("good", json!({"a": {"type": "string"}}));
            let (_, without) = learned(json!([tool("bad", properties.clone()), good]));
            let without = without.unwrap_or_else(|| panic!("{properties}"));
            assert_eq!(without["result"]["tools"], json!([good]), "{properties}");
        }
    }
}
