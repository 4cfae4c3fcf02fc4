//! Tools that become tasks (SEP-2663) when the client knows tasks. `failing_job` and `test_tool_with_task`
//! insist on it; the others also run to the end within the call.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult, Tool};
use rmcp::task_manager::{TaskContext, TaskExit, TaskOptions};
use serde_json::json;
use tokio::time::sleep;

use super::{Call, Outcome, done, plain_tool, said, tool};
use crate::backend::dialogue::{Question, Round};

/// For clients that wait for the result: no more of the time that they ask for than this.
const MOST_WAITED: Duration = Duration::from_millis(500);

type Job = Result<CallToolResult, TaskExit>;

pub(super) fn definitions() -> Vec<Tool> {
    let number = || json!({ "type": "number" });
    let string = || json!({ "type": "string" });
    vec![
        tool("greet", "Greets at once", json!({ "name": string() })),
        tool("slow_compute", "Computes for that many seconds", json!({ "seconds": number() })),
        plain_tool("failing_job", "A task that ends in a tool error"),
        plain_tool("protocol_error_job", "A task that ends in a protocol error"),
        tool("confirm_delete", "A task that asks before it deletes", json!({ "filename": string() })),
        plain_tool("multi_input", "A task that asks two things at once"),
        plain_tool("test_tool_with_task", "Asks for a name, then becomes a task"),
    ]
}

pub(super) async fn call(call: &Call) -> Option<Outcome> {
    Some(match call.name.as_str() {
        "greet" => done(format!("Hello, {}!", call.text("name"))),
        "slow_compute" => slow_compute(call).await,
        "failing_job" => task(call, |_| Box::pin(failing())),
        "protocol_error_job" => task(call, |_| Box::pin(async { Err(ErrorData::internal_error("the job broke", None).into()) })),
        "confirm_delete" => {
            let file = call.text("filename").to_owned();
            task(call, move |asking| Box::pin(confirm_delete(asking, file)))
        }
        "multi_input" => task(call, |asking| Box::pin(multi_input(asking))),
        "test_tool_with_task" => name_then_task(call).await,
        _ => return None,
    })
}

fn task(call: &Call, job: impl FnOnce(TaskContext) -> std::pin::Pin<Box<dyn Future<Output = Job> + Send>>) -> Outcome {
    if !call.dialogue.client().supports_tasks() {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    let options = TaskOptions::new().with_ttl_ms(60_000).with_poll_interval_ms(100);
    Ok(CreateTaskResult::new(call.shared.tasks.spawn(options, job)).into())
}

async fn slow_compute(call: &Call) -> Outcome {
    let seconds = call.arguments.get("seconds").and_then(|s| s.as_f64()).unwrap_or(0.0);
    let time = Duration::from_secs_f64(seconds.clamp(0.0, 600.0));
    let result = move || said(format!("computed for {seconds} seconds"));
    if !call.dialogue.client().supports_tasks() {
        // To take time is what this tool is for.
        sleep(time.min(MOST_WAITED)).await;
        return Ok(result().into());
    }
    task(call, move |running| {
        Box::pin(async move {
            tokio::select! {
                () = sleep(time) => Ok(result()),
                () = running.cancelled() => Err(TaskExit::Cancelled),
            }
        })
    })
}

async fn failing() -> Job {
    sleep(Duration::from_secs(1)).await;
    Ok(CallToolResult::error(vec![ContentBlock::text("this job always fails")]))
}

async fn confirm_delete(asking: TaskContext, file: String) -> Job {
    let question = Question::field(&format!("Delete {file}?"), "confirm", "boolean");
    let answer = asking.request_input("confirm", question.request()?).await?;
    let confirmed = answer["action"] == "accept";
    Ok(said(format!("{} {file}", if confirmed { "deleted" } else { "kept" })))
}

async fn multi_input(asking: TaskContext) -> Job {
    let first = Question::field("What is your name?", "name", "string").request()?;
    let second = Question::field("What is your favorite color?", "color", "string").request()?;
    let (first, second) = tokio::join!(asking.request_input("name", first), asking.request_input("color", second));
    let (first, second) = (first?, second?);
    Ok(said(format!("{} likes {}", first["content"]["name"], second["content"]["color"])))
}

async fn name_then_task(call: &Call) -> Outcome {
    let question = [("user_name", Question::field("What is your name?", "name", "string"))];
    let answers = match call.dialogue.ask(&question).await? {
        Round::Ask(input_required) => return Ok(input_required.into()),
        Round::Answered(answers) => answers,
    };
    let name = answers["user_name"]["content"]["name"].as_str().unwrap_or("stranger").to_owned();
    task(call, move |_| Box::pin(async move { Ok(said(format!("Hello, {name}!"))) }))
}
