//! The suite's multi-round-trip fixtures (SEP-2322), which work for legacy clients too.

use rmcp::ErrorData;
use rmcp::model::{CallToolResponse, InputRequiredResult, Tool};
use serde_json::{Value, json};

use super::{Call, Outcome, done, plain_tool};
use crate::backend::dialogue::{Question, Round, sampled_text};

pub(super) fn definitions() -> Vec<Tool> {
    vec![
        plain_tool("test_input_required_result_elicitation", "Asks for a name"),
        plain_tool("test_input_required_result_sampling", "Asks the model for a capital"),
        plain_tool("test_input_required_result_list_roots", "Asks for the roots"),
        plain_tool("test_input_required_result_request_state", "Asks and remembers in sealed state"),
        plain_tool("test_input_required_result_multiple_inputs", "Asks three things at once"),
        plain_tool("test_input_required_result_multi_round", "Asks twice"),
        plain_tool("test_input_required_result_tampered_state", "Refuses state it did not seal"),
        plain_tool("test_input_required_result_capabilities", "Asks only what the client can answer"),
    ]
}

pub(super) async fn call(call: &Call) -> Option<Outcome> {
    Some(match call.name.as_str() {
        "test_input_required_result_elicitation" => {
            simple(call, "user_name", name_question("What is your name?"), |answer| format!("Hello, {}!", field(answer, "name")))
                .await
        }
        "test_input_required_result_sampling" => {
            let question = Question::Sample("What is the capital of France?".to_owned(), 100);
            simple(call, "capital_question", question, sampled_text).await
        }
        "test_input_required_result_list_roots" => {
            simple(call, "client_roots", Question::Roots, |answer| format!("Your roots: {}", answer["roots"])).await
        }
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => sealed(call).await,
        "test_input_required_result_multiple_inputs" => multiple(call).await,
        "test_input_required_result_multi_round" => multi_round(call).await,
        "test_input_required_result_capabilities" => by_capability(call).await,
        _ => return None,
    })
}

fn name_question(message: &str) -> Question {
    Question::field(message, "name", "string")
}

fn field<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer["content"][name].as_str().unwrap_or("stranger")
}

async fn simple(call: &Call, key: &str, question: Question, tell: impl Fn(&Value) -> String) -> Outcome {
    match call.dialogue.ask(&[(key, question)]).await? {
        Round::Ask(input_required) => asked(input_required),
        Round::Answered(answers) => done(tell(&answers[key])),
    }
}

async fn sealed(call: &Call) -> Outcome {
    // Opened before anything else: a forged state is refused whatever came with it.
    call.dialogue.remembered(&call.shared.seals)?;
    let question = [("confirm", Question::field("Please confirm", "ok", "boolean"))];
    let remembered = json!({ "tool": call.name, "round": 1 });
    match call.dialogue.ask_sealed(&question, &remembered, &call.shared.seals).await? {
        Round::Ask(input_required) => asked(input_required),
        Round::Answered(_) => done("state-ok: the server recognised its own state"),
    }
}

async fn multiple(call: &Call) -> Outcome {
    call.dialogue.remembered(&call.shared.seals)?;
    let questions = [
        ("user_name", name_question("What is your name?")),
        ("greeting", Question::Sample("Generate a greeting".to_owned(), 50)),
        ("client_roots", Question::Roots),
    ];
    let remembered = json!({ "tool": call.name, "round": 1 });
    match call.dialogue.ask_sealed(&questions, &remembered, &call.shared.seals).await? {
        Round::Ask(input_required) => asked(input_required),
        Round::Answered(answers) => {
            let name = field(&answers["user_name"], "name");
            let greeting = sampled_text(&answers["greeting"]);
            done(format!("{greeting} {name}, your roots: {}", answers["client_roots"]["roots"]))
        }
    }
}

/// The second question follows from the first answer, which travels in the state.
async fn multi_round(call: &Call) -> Outcome {
    let seals = &call.shared.seals;
    let remembered = call.dialogue.remembered(seals)?.unwrap_or_default();
    let name = match remembered["name"].as_str() {
        Some(name) => name.to_owned(),
        None => {
            let first = [("step1", name_question("Step 1: What is your name?"))];
            match call.dialogue.ask_sealed(&first, &json!({ "round": 1 }), seals).await? {
                Round::Ask(input_required) => return asked(input_required),
                Round::Answered(answers) => field(&answers["step1"], "name").to_owned(),
            }
        }
    };
    let color = Question::field("Step 2: What is your favorite color?", "color", "string");
    let state = json!({ "round": 2, "name": name });
    match call.dialogue.ask_sealed(&[("step2", color)], &state, seals).await? {
        Round::Ask(input_required) => asked(input_required),
        Round::Answered(answers) => done(format!("{name} likes {}", field(&answers["step2"], "color"))),
    }
}

async fn by_capability(call: &Call) -> Outcome {
    let client = call.dialogue.client();
    let mut questions = vec![
        ("user_name", name_question("What is your name?")),
        ("greeting", Question::Sample("Generate a greeting".to_owned(), 50)),
        ("client_roots", Question::Roots),
    ];
    questions.retain(|(_, question)| question.declared_by(&client));
    match call.dialogue.ask(&questions).await? {
        Round::Ask(input_required) => asked(input_required),
        Round::Answered(answers) => done(format!("{} questions answered", answers.len())),
    }
}

fn asked(input_required: InputRequiredResult) -> Result<CallToolResponse, ErrorData> {
    Ok(input_required.into())
}
