//! Tools that answer at once: the suite's content kinds, and ours for routing and atomicity tests.

use rmcp::model::{AudioContent, CallToolResult, ContentBlock, ResourceContents, Tool};
use serde_json::json;

use super::{Call, Outcome, PIXEL_PNG, SILENT_WAV, done, plain_tool, raw_tool, tool};

pub(super) fn definitions() -> Vec<Tool> {
    vec![
        tool("echo", "Returns its text", json!({ "text": { "type": "string" } })),
        plain_tool("tool_0", "Returns its own name"),
        plain_tool("tool_1", "Returns its own name"),
        plain_tool("fail", "Always reports a tool error"),
        tool("large", "Returns that many bytes of text", json!({ "bytes": { "type": "integer" } })),
        plain_tool("test_simple_text", "Returns text"),
        plain_tool("test_image_content", "Returns an image"),
        plain_tool("test_audio_content", "Returns audio"),
        plain_tool("test_embedded_resource", "Returns an embedded resource"),
        plain_tool("test_multiple_content_types", "Returns text, an image and a resource"),
        plain_tool("test_error_handling", "Always reports a tool error"),
        json_schema_2020_12(),
        custom_headers(),
    ]
}

/// The suite compares this schema with what it reads back.
fn json_schema_2020_12() -> Tool {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
        } },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    });
    raw_tool("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", schema)
}

/// Arguments that travel as `Mcp-Param-*` headers too (SEP-2243).
fn custom_headers() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "priority": { "type": "integer", "x-mcp-header": "Priority" },
            "query": { "type": "string" },
        },
        "required": ["region"],
    });
    raw_tool("test_mcp_param_headers", "Returns the region it was called for", schema)
}

pub(super) fn call(call: &Call) -> Option<Outcome> {
    Some(match call.name.as_str() {
        "echo" => done(call.text("text")),
        "tool_0" | "tool_1" => done(call.name.clone()),
        "fail" => failed("this tool always fails"),
        "large" => {
            let bytes = usize::try_from(call.number("bytes", 0)).unwrap_or(usize::MAX);
            done("x".repeat(bytes.min(64 << 20)))
        }
        "test_simple_text" => done("This is a simple text response for testing."),
        "test_image_content" => blocks(vec![ContentBlock::image(PIXEL_PNG, "image/png")]),
        "test_audio_content" => blocks(vec![ContentBlock::Audio(AudioContent::new(SILENT_WAV, "audio/wav"))]),
        "test_embedded_resource" => {
            let text = "This is an embedded resource content.";
            blocks(vec![resource("test://embedded-resource", "text/plain", text)])
        }
        "test_multiple_content_types" => {
            let document = r#"{"test":"data","value":123}"#;
            blocks(vec![
                ContentBlock::text("Multiple content types test:"),
                ContentBlock::image(PIXEL_PNG, "image/png"),
                resource("test://mixed-content-resource", "application/json", document),
            ])
        }
        "test_error_handling" => failed("This tool intentionally returns an error for testing"),
        "json_schema_2020_12_tool" => done(format!("Hello, {}!", call.text("name"))),
        "test_mcp_param_headers" => done(format!("region: {}", call.text("region"))),
        _ => return None,
    })
}

fn blocks(content: Vec<ContentBlock>) -> Outcome {
    Ok(CallToolResult::success(content).into())
}

fn failed(text: &str) -> Outcome {
    Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into())
}

fn resource(uri: &str, kind: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::text(text, uri).with_mime_type(kind))
}
