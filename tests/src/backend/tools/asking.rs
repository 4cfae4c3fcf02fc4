//! Tools that ask the client in either era, with the fixtures of the legacy sampling and elicitation scenarios.

use rmcp::ErrorData;
use rmcp::model::{ClientCapabilities, Tool};
use serde_json::{Value, json};

use super::{Call, Outcome, done, plain_tool, tool};
use crate::backend::dialogue::{Question, Round, sampled_text};

pub(super) fn definitions() -> Vec<Tool> {
    vec![
        tool("test_sampling", "Asks the client's model", json!({ "prompt": { "type": "string" } })),
        tool("test_elicitation", "Asks the user", json!({ "message": { "type": "string" } })),
        plain_tool("test_elicitation_sep1034_defaults", "Asks the user with default values"),
        plain_tool("test_elicitation_sep1330_enums", "Asks the user with every kind of enum"),
        plain_tool("test_list_roots", "Asks for the client's roots"),
        plain_tool("test_missing_capability", "Needs a client that can sample"),
        plain_tool("test_streaming_elicitation", "Reports progress, then asks the user"),
    ]
}

pub(super) async fn call(call: &Call) -> Option<Outcome> {
    Some(match call.name.as_str() {
        "test_sampling" => {
            let question = Question::Sample(call.text("prompt").to_owned(), 100);
            asked(call, question, |answer| format!("LLM response: {}", sampled_text(answer))).await
        }
        "test_elicitation" => {
            let question = Question::Form(call.text("message").to_owned(), contact_schema());
            asked(call, question, |answer| format!("User response: {}", told(answer))).await
        }
        "test_elicitation_sep1034_defaults" => {
            let question = Question::Form("Please check the defaults".to_owned(), defaults_schema());
            asked(call, question, |answer| format!("Elicitation completed: {}", told(answer))).await
        }
        "test_elicitation_sep1330_enums" => {
            let question = Question::Form("Please choose".to_owned(), enums_schema());
            asked(call, question, |answer| format!("Elicitation completed: {}", told(answer))).await
        }
        "test_list_roots" => asked(call, Question::Roots, |answer| format!("Roots: {}", answer["roots"])).await,
        "test_missing_capability" => missing_capability(call),
        "test_streaming_elicitation" => {
            call.progress(1.0, 2.0).await;
            let question = Question::field("Shall we go on?", "go_on", "boolean");
            asked(call, question, |answer| format!("User response: {}", told(answer))).await
        }
        _ => return None,
    })
}

async fn asked(call: &Call, question: Question, tell: impl Fn(&Value) -> String) -> Outcome {
    match call.dialogue.ask(&[("answer", question)]).await? {
        Round::Ask(input_required) => Ok(input_required.into()),
        Round::Answered(answers) => done(tell(&answers["answer"])),
    }
}

fn told(answer: &Value) -> String {
    format!("action={}, content={}", answer["action"].as_str().unwrap_or("none"), answer["content"])
}

fn missing_capability(call: &Call) -> Outcome {
    if call.dialogue.client().sampling.is_some() {
        return done("the client can sample");
    }
    let needed = ClientCapabilities::builder().enable_sampling().build();
    Err(ErrorData::missing_required_client_capability(needed))
}

fn contact_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "username": { "type": "string", "description": "User's response" },
            "email": { "type": "string", "description": "User's email address" },
        },
        "required": ["username", "email"],
    })
}

fn defaults_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User's name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User's age", "default": 30 },
            "score": { "type": "number", "description": "User's score", "default": 95.5 },
            "status": {
                "type": "string",
                "description": "User's status",
                "enum": ["active", "inactive", "pending"],
                "default": "active",
            },
            "verified": { "type": "boolean", "description": "Verified or not", "default": true },
        },
    })
}

fn enums_schema() -> Value {
    let titled = |names: [&str; 3]| {
        let values = ["value1", "value2", "value3"].into_iter().zip(names);
        values.map(|(value, title)| json!({ "const": value, "title": title })).collect::<Vec<_>>()
    };
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
            "titledSingle": {
                "type": "string",
                "oneOf": titled(["First Option", "Second Option", "Third Option"]),
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": { "type": "string", "enum": ["option1", "option2", "option3"] },
            },
            "titledMulti": {
                "type": "array",
                "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
            },
        },
    })
}
