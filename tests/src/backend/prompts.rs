//! The backend's prompts: the suite's plain ones and the one that asks the client first.

use rmcp::model::{
    ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult, ImageContent, JsonObject, Prompt, PromptArgument,
    PromptMessage, ResourceContents, Role,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::dialogue::{Dialogue, Question, Round};
use super::tools::PIXEL_PNG;

const ASKING: &str = "test_input_required_result_prompt";

pub(super) fn list() -> Vec<Prompt> {
    let required = |name: &str, text: &str| PromptArgument::new(name).with_description(text).with_required(true);
    let two = vec![required("arg1", "First test argument"), required("arg2", "Second test argument")];
    let uri = vec![required("resourceUri", "URI of the resource to embed")];
    vec![
        Prompt::new("test_simple_prompt", Some("A prompt without arguments"), None),
        Prompt::new("test_prompt_with_arguments", Some("A prompt with two arguments"), Some(two)),
        Prompt::new("test_prompt_with_embedded_resource", Some("Embeds a resource"), Some(uri)),
        Prompt::new("test_prompt_with_image", Some("A prompt with an image"), None),
        Prompt::new(ASKING, Some("Asks the client for context first"), None),
    ]
}

pub(super) async fn get(
    request: GetPromptRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![said("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (one, two) = (text(&arguments, "arg1"), text(&arguments, "arg2"));
            vec![said(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = text(&arguments, "resourceUri");
            let resource = ResourceContents::text("Embedded resource content for testing.", uri).with_mime_type("text/plain");
            vec![
                PromptMessage::new(Role::User, ContentBlock::resource(resource)),
                said("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => {
            let image = ContentBlock::Image(ImageContent::new(PIXEL_PNG, "image/png"));
            vec![PromptMessage::new(Role::User, image), said("Please analyze the image above.")]
        }
        ASKING => {
            let (responses, state) = (request.input_responses, request.request_state);
            return asking(Dialogue { context, responses, state }).await;
        }
        other => {
            return Err(ErrorData::invalid_params(format!("there is no prompt {other}"), None));
        }
    };
    Ok(GetPromptResult::new(messages).with_description("A prompt for testing").into())
}

async fn asking(dialogue: Dialogue) -> Result<GetPromptResponse, ErrorData> {
    let question = Question::field("What context should the prompt use?", "context", "string");
    let answers = match dialogue.ask(&[("user_context", question)]).await? {
        Round::Ask(input_required) => return Ok(input_required.into()),
        Round::Answered(answers) => answers,
    };
    let context = answers["user_context"]["content"]["context"].as_str().unwrap_or("none");
    Ok(GetPromptResult::new(vec![said(&format!("Use this context: {context}"))]).into())
}

fn said(text: &str) -> PromptMessage {
    PromptMessage::new_text(Role::User, text)
}

fn text<'a>(arguments: &'a JsonObject, name: &str) -> &'a str {
    arguments.get(name).and_then(|value| value.as_str()).unwrap_or_default()
}
