//! Asking the client: one form for both eras. A legacy client gets requests on its own stream while the call
//! waits; a modern one gets `input_required` and calls again. Owns sealing of `requestState`; used by tools and prompts.

use std::collections::BTreeMap;

use rmcp::model::{
    ClientCapabilities, ClientResult, CreateMessageRequest, CreateMessageRequestParams, ElicitRequest, ElicitRequestParams,
    InputRequest, InputRequiredResult, InputResponses, ListRootsRequest, ProtocolVersion, RequestStateCodec, SamplingMessage,
    ServerRequest,
};
use rmcp::service::{RequestContext, ServiceError};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

/// Something only the client can answer.
#[derive(Clone)]
pub(super) enum Question {
    /// `elicitation/create` in form mode: message and requested schema
    Form(String, Value),
    /// `sampling/createMessage`: prompt and token limit
    Sample(String, u32),
    /// `roots/list`
    Roots,
}

impl Question {
    /// A form with one required property.
    pub(super) fn field(message: &str, name: &str, kind: &str) -> Self {
        let schema = json!({
            "type": "object", "properties": { name: { "type": kind } }, "required": [name],
        });
        Self::Form(message.to_owned(), schema)
    }

    pub(super) fn request(&self) -> Result<InputRequest, ErrorData> {
        Ok(match self {
            Self::Form(message, schema) => {
                let requested_schema =
                    serde_json::from_value(schema.clone()).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
                    meta: None,
                    message: message.clone(),
                    requested_schema,
                }))
            }
            Self::Sample(prompt, tokens) => {
                let messages = vec![SamplingMessage::user_text(prompt.clone())];
                let params = CreateMessageRequestParams::new(messages, *tokens);
                InputRequest::CreateMessage(CreateMessageRequest::new(params))
            }
            Self::Roots => InputRequest::ListRoots(ListRootsRequest::default()),
        })
    }

    pub(super) fn declared_by(&self, client: &ClientCapabilities) -> bool {
        match self {
            Self::Form(..) => client.elicitation.is_some(),
            Self::Sample(..) => client.sampling.is_some(),
            Self::Roots => client.roots.is_some(),
        }
    }

    fn needs(&self) -> ClientCapabilities {
        match self {
            Self::Form(..) => ClientCapabilities::builder().enable_elicitation().build(),
            Self::Sample(..) => ClientCapabilities::builder().enable_sampling().build(),
            Self::Roots => ClientCapabilities::builder().enable_roots().build(),
        }
    }

    /// Whether `answer` has the shape that this question asks for.
    fn accepts(&self, answer: &Value) -> bool {
        match self {
            Self::Form(_, schema) => match answer["action"].as_str() {
                Some("accept") => schema["required"].as_array().is_none_or(|required| {
                    required.iter().filter_map(Value::as_str).all(|name| answer["content"].get(name).is_some())
                }),
                Some("decline" | "cancel") => true,
                _ => false,
            },
            Self::Sample(..) => answer.get("content").is_some(),
            Self::Roots => answer["roots"].is_array(),
        }
    }
}

/// Answers by the key of their question.
pub(super) type Answers = BTreeMap<String, Value>;

/// How a round of questions stands.
pub(super) enum Round {
    /// Every question has an answer.
    Answered(Answers),
    /// A modern client has to call again.
    Ask(InputRequiredResult),
}

/// One request that may need the client's help.
pub(super) struct Dialogue {
    pub(super) context: RequestContext<RoleServer>,
    pub(super) responses: Option<InputResponses>,
    pub(super) state: Option<String>,
}

impl Dialogue {
    /// Whether the request is of 2026-07-28 or later.
    pub(super) fn modern(&self) -> bool {
        self.context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
    }

    pub(super) fn client(&self) -> ClientCapabilities {
        self.context.client_capabilities().unwrap_or_default()
    }

    /// Asks without remembering anything between the rounds.
    pub(super) async fn ask(&self, questions: &[(&str, Question)]) -> Result<Round, ErrorData> {
        self.round(questions, None).await
    }

    /// Asks and hands out `remembered` as sealed `requestState`.
    pub(super) async fn ask_sealed(
        &self,
        questions: &[(&str, Question)],
        remembered: &Value,
        seals: &RequestStateCodec,
    ) -> Result<Round, ErrorData> {
        let sealed = seals.seal_json(remembered).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        self.round(questions, Some(sealed)).await
    }

    /// What an earlier round remembered; none in the first round.
    pub(super) fn remembered(&self, seals: &RequestStateCodec) -> Result<Option<Value>, ErrorData> {
        let Some(sealed) = &self.state else {
            return Ok(None);
        };
        let opened = seals
            .open_json::<Value>(sealed)
            .map_err(|error| ErrorData::invalid_params(format!("requestState is not one of ours: {error}"), None))?;
        Ok(Some(opened))
    }

    async fn round(&self, questions: &[(&str, Question)], sealed: Option<String>) -> Result<Round, ErrorData> {
        let client = self.client();
        if let Some((_, question)) = questions.iter().find(|(_, q)| !q.declared_by(&client)) {
            return Err(ErrorData::missing_required_client_capability(question.needs()));
        }
        if !self.modern() {
            return self.interview(questions).await.map(Round::Answered);
        }
        let given = self.responses.clone().unwrap_or_default();
        let answers: Answers = questions
            .iter()
            .filter_map(|(key, question)| {
                let answer = given.get(*key).filter(|answer| question.accepts(answer))?;
                Some(((*key).to_owned(), answer.clone()))
            })
            .collect();
        let stateful_start = sealed.is_some() && self.state.is_none();
        if answers.len() == questions.len() && !stateful_start {
            return Ok(Round::Answered(answers));
        }
        let mut requests = BTreeMap::new();
        for (key, question) in questions {
            requests.insert((*key).to_owned(), question.request()?);
        }
        Ok(Round::Ask(InputRequiredResult::new(Some(requests), sealed)))
    }

    /// Legacy: one request after the other on the call's own stream.
    async fn interview(&self, questions: &[(&str, Question)]) -> Result<Answers, ErrorData> {
        let mut answers = Answers::new();
        for (key, question) in questions {
            let request = match question.request()? {
                InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
                InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
                InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
                other => {
                    let message = format!("no legacy form of {other:?}");
                    return Err(ErrorData::internal_error(message, None));
                }
            };
            let answer = self.context.peer.send_request(request).await.map_err(refused)?;
            answers.insert((*key).to_owned(), plain(answer)?);
        }
        Ok(answers)
    }
}

fn refused(error: ServiceError) -> ErrorData {
    match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(format!("the client did not answer: {other}"), None),
    }
}

fn plain(answer: ClientResult) -> Result<Value, ErrorData> {
    serde_json::to_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// The text of a sampling answer, whether its content is one block or a list.
pub(super) fn sampled_text(answer: &Value) -> String {
    let content = &answer["content"];
    let block = content.get(0).unwrap_or(content);
    block["text"].as_str().unwrap_or("no text").to_owned()
}
