//! `mcpgw call`: calls one tool; its result is data, everything else is talk.

use anyhow::bail;
use clap::Args as Flags;
use serde_json::{Map, Value};

use super::tools::{Reach, failed, say_request_id};
use crate::context::Context;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  mcpgw call demo add a=1 b=2
  mcpgw call github get_issue --args '{\"repo\": \"acme/app\", \"number\": 7}' -o json
  mcpgw call demo add a=1 b=2 --key mcpgw_... --gateway http://127.0.0.1:8080 --era modern

Values of name=value are JSON where they parse as JSON, else text: n=1 is a number, n='\"1\"' is text.
Progress and log messages of the server go to stderr, and so does the request id for `mcpgw why`.";

/// Flags of `call`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The server: its slug, its uid, or any URL
    server: String,
    /// The tool's name
    tool: String,
    /// Arguments as name=value
    #[arg(value_name = "NAME=VALUE")]
    pairs: Vec<String>,
    /// Arguments as one JSON object, or as name=value
    #[arg(long, value_name = "JSON|NAME=VALUE", num_args = 1..)]
    args: Vec<String>,
    #[command(flatten)]
    reach: Reach,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let arguments = arguments(args.args.iter().chain(&args.pairs))?;
    let client = args.reach.connect(cx, &args.server).await?;
    let called = client.call(&args.tool, &arguments).await;
    client.close().await;
    let answer = called.map_err(failed)?;
    say_request_id(answer.request_id.as_deref());
    cx.out.value(&answer.result, || spoken(&answer.result))?;
    if answer.result["isError"] == true {
        bail!("the tool {} reports an error", args.tool);
    }
    Ok(())
}

/// One object of everything that was given; later ones win.
fn arguments<'a>(given: impl Iterator<Item = &'a String>) -> Result<Map<String, Value>, Failure> {
    let mut arguments = Map::new();
    for text in given {
        if text.trim_start().starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(text)
                .map_err(|error| Failure::Usage(format!("--args {text}: not a JSON object: {error}")))?;
            arguments.extend(object);
            continue;
        }
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::Usage(format!("argument {text:?}: expected name=value or a JSON object")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        arguments.insert(name.to_owned(), value);
    }
    Ok(arguments)
}

/// The text of a result; what is not text as JSON.
fn spoken(result: &Value) -> String {
    let blocks = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<_> = blocks
        .iter()
        .map(|block| match block["text"].as_str() {
            Some(text) => text.to_owned(),
            None => block.to_string(),
        })
        .collect();
    if lines.is_empty() { result["structuredContent"].to_string() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_json_where_they_parse_as_json() {
        let given = ["{\"a\": 1, \"b\": [true]}", "c=2", "d=two words", "e=\"3\"", "f=", "a=null"];
        let given: Vec<_> = given.map(str::to_owned).into();
        let expected = json!({"a": null, "b": [true], "c": 2, "d": "two words", "e": "3", "f": ""});
        assert_eq!(Value::Object(arguments(given.iter()).unwrap()), expected);
    }

    #[test]
    fn what_is_neither_is_wrong_usage() {
        for given in ["plain", "=1", "{\"a\": }"] {
            let result = arguments([given.to_owned()].iter());
            assert!(matches!(result, Err(Failure::Usage(_))), "{given}");
        }
    }

    #[test]
    fn a_result_is_its_text() {
        let result = json!({"content": [{"type": "text", "text": "3"}, {"type": "image", "data": "x"}]});
        assert_eq!(spoken(&result), "3\n{\"data\":\"x\",\"type\":\"image\"}");
        assert_eq!(spoken(&json!({"content": [], "structuredContent": {"sum": 3}})), "{\"sum\":3}");
    }
}
