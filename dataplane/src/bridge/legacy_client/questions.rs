//! Rounds of input: what a server wants to know before it can answer becomes questions to the client, and their answers go back with the
//! request (2026-07-28 multi-round-trip requests; SEP-2322).

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::calls::Call;
use super::request::Answers;
use super::{Bridge, Over, asks};
use crate::owned::number;
use crate::transport::Version;
use crate::transport::scan::Message;

/// Rounds that one call may take: where the SDKs of clients stop too.
const MOST_ROUNDS: u32 = 10;

/// Calls whose client is being asked.
#[derive(Default)]
pub(super) struct Rounds {
    /// By the session's number for the call.
    open: HashMap<u64, Round>,
    /// By the number that the client knows each by.
    questions: HashMap<u64, Question>,
    last: u64,
}

struct Question {
    /// The session's number for the call.
    about: u64,
    /// The server's name for it.
    key: String,
    /// Whether it can be answered with not wanting to.
    is_elicitation: bool,
}

struct Round {
    call: Call,
    answers: Answers,
    /// Questions that are not answered.
    left: usize,
}

impl Bridge {
    /// The server wants to know something first.
    pub(super) async fn input_required(&mut self, message: &Bytes, call: Call) -> Result<(), Over> {
        let answer: Value = serde_json::from_slice(message).unwrap_or_default();
        let result = &answer["result"];
        let questions = result.get("inputRequests").and_then(Value::as_object).cloned().unwrap_or_default();
        let state = result.get("requestState").filter(|state| state.is_string()).map(Value::to_string);
        if call.rounds >= MOST_ROUNDS {
            return self.give_up(&call, "The server asked for input again and again").await;
        }
        if questions.is_empty() && state.is_none() {
            return self.give_up(&call, "The server asks for input, and not for which").await;
        }
        if questions.is_empty() {
            let answers = Answers { responses: Vec::new(), state };
            self.forward(Call { rounds: call.rounds + 1, ..call }, Some(&answers));
            return Ok(());
        }
        self.ask_client(questions, state, call).await
    }

    /// Asks the client; with its answers the call goes on.
    pub(super) async fn ask_client(
        &mut self,
        questions: Map<String, Value>,
        state: Option<String>,
        call: Call,
    ) -> Result<(), Over> {
        if let Some(method) = self.cannot(&questions) {
            let why = format!("The server needs {method}, and this client cannot be asked that");
            return self.give_up(&call, &why).await;
        }
        let call = Call { rounds: call.rounds + 1, ..call };
        let answers = Answers { responses: Vec::with_capacity(questions.len()), state };
        let about = call.number;
        self.rounds.open.insert(about, Round { call, answers, left: questions.len() });
        for (key, question) in questions {
            self.rounds.last += 1;
            let id = self.rounds.last;
            let is_elicitation = question.get("method").is_some_and(|method| method == "elicitation/create");
            self.rounds.questions.insert(id, Question { about, key, is_elicitation });
            let question = self.put(id, question);
            self.answer(question, Some(about)).await?;
        }
        Ok(())
    }

    /// The first question that the client has not said it can answer.
    fn cannot(&self, questions: &Map<String, Value>) -> Option<String> {
        let client = self.client.as_ref()?;
        let can = |question: &Value| {
            let method = question.get("method").and_then(Value::as_str).unwrap_or_default();
            client.can(method, question.get("params").unwrap_or(&Value::Null))
        };
        let question = questions.values().find(|question| !can(question))?;
        Some(question.get("method").and_then(Value::as_str).unwrap_or("something unknown").to_owned())
    }

    /// A question as the client's version has it.
    fn put(&self, id: u64, mut question: Value) -> Bytes {
        question["jsonrpc"] = json!("2.0");
        question["id"] = id.into();
        let version = self.client.as_ref().map_or(Version::V2025_11_25, |client| client.version);
        if let Some(params) = question.get_mut("params").and_then(Value::as_object_mut) {
            if params.get("mode").is_some_and(|mode| mode == "url") {
                // The id by which 2025-11-25 tells that it was done, which nobody will tell.
                params.entry("elicitationId").or_insert_with(|| Uuid::new_v4().to_string().into());
            } else if version < Version::V2025_11_25 {
                params.remove("mode");
            }
        }
        question.to_string().into()
    }

    /// The client answers a question.
    pub(super) async fn answered(&mut self, message: &Message) -> Result<(), Over> {
        let asked = message.id().and_then(number).and_then(|id| self.rounds.questions.remove(&id));
        let Some(Question { about, key, is_elicitation }) = asked else { return Ok(()) };
        let Some(round) = self.rounds.open.get_mut(&about) else { return Ok(()) };
        let response = result(message).or_else(|| is_elicitation.then(cancelled));
        if let Some(response) = response {
            round.answers.responses.push((key, response));
            round.left -= 1;
            if round.left == 0
                && let Some(Round { call, answers, .. }) = self.rounds.open.remove(&about)
            {
                match call.task {
                    Some(_) => self.update_task(call, &answers),
                    None => self.forward(call, Some(&answers)),
                }
            }
            return Ok(());
        }
        let Some(Round { call, .. }) = self.rounds.open.remove(&about) else { return Ok(()) };
        self.withdraw(about).await?;
        self.give_up(&call, "The client did not answer what the server asked").await
    }

    /// Nobody wants the answers to a call's questions any more.
    pub(super) async fn withdraw(&mut self, about: u64) -> Result<(), Over> {
        if let Some(Round { call, .. }) = self.rounds.open.remove(&about) {
            self.end_task(&call);
        }
        let left: Vec<u64> = self.rounds.questions.extract_if(|_, question| question.about == about).map(|(id, _)| id).collect();
        for id in left {
            let message = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } });
            self.answer(message.to_string().into(), Some(about)).await?;
        }
        Ok(())
    }

    /// A call that cannot be brought to its end: a tool's is a result that says why, so that a model reads it.
    async fn give_up(&mut self, call: &Call, why: &str) -> Result<(), Over> {
        self.end_task(call);
        tracing::info!(server = self.slug(), why, "a call was given up");
        if asks(&call.message, "tools/call") {
            let result = json!({ "content": [{ "type": "text", "text": why }], "isError": true });
            return self.result(call.number, result).await;
        }
        self.error(call.number, -32603, why).await
    }
}

/// The answer to an elicitation that was not answered (2026-07-28 client/elicitation, response actions).
fn cancelled() -> Box<RawValue> {
    RawValue::from_string(r#"{"action":"cancel"}"#.to_owned()).expect("it is JSON")
}

/// What a response says, byte for byte; nothing if it is an error.
fn result(message: &Message) -> Option<Box<RawValue>> {
    #[derive(serde::Deserialize)]
    struct Response {
        result: Box<RawValue>,
    }
    serde_json::from_slice::<Response>(&message.bytes()).ok().map(|response| response.result)
}
