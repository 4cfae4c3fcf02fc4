//! What a legacy server asks in the middle of a call, as the `input_required` result that a modern client answers with a retry (2026-07-28,
//! multi round-trip requests), and the answers in the server's words.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::result::SERVER_INFO;
use super::{MAX_DEPTH, Persona, kept};
use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};

/// JSON-RPC: the client does not do this.
const METHOD_NOT_FOUND: i32 = -32601;
/// The client does this, and not that way.
const INVALID_PARAMS: i32 = -32602;

/// Requests whose server may ask back (2026-07-28, multi round-trip requests).
pub fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// A question that a client of this kind answers, as an entry of `inputRequests`; otherwise what the server is told.
pub fn read(message: &[u8], (id, method): (&str, &str), persona: &Persona) -> Result<String, Bytes> {
    let unreadable = |_error| error(id, INVALID_PARAMS, "The request cannot be read");
    let text = std::str::from_utf8(message).map_err(|_not_text| error(id, INVALID_PARAMS, "The request cannot be read"))?;
    let params = params(text).map_err(unreadable)?;
    let knows = match method {
        "elicitation/create" if params.is_url => (persona.form || persona.url, persona.url),
        "elicitation/create" => (persona.form || persona.url, persona.form),
        "sampling/createMessage" => (persona.sampling, persona.sampling_tools || !params.has_tools),
        "roots/list" => (persona.roots, true),
        _ => (false, false),
    };
    match knows {
        (true, true) => {}
        (false, _) => return Err(error(id, METHOD_NOT_FOUND, "The client has not declared this capability")),
        (true, false) => return Err(error(id, INVALID_PARAMS, "The client has not declared this mode")),
    }
    let mut entry = format!(r#"{{"method":{}"#, json!(method));
    if let Some(span) = params.span {
        let params = &text[span.range()];
        // The end of an elicitation is not told any more, so it needs no name.
        let params = if params.starts_with('{') && method == "elicitation/create" && text.contains("elicitationId") {
            format!("{{{}}}", kept(params, |key, member| (key != "elicitationId").then(|| member.to_owned())).join(","))
        } else {
            params.to_owned()
        };
        let _infallible = write!(entry, r#","params":{params}"#);
    }
    entry.push('}');
    Ok(entry)
}

/// What the server is told of a question that nobody can be asked.
pub fn nobody(id: &str, method: &str) -> Bytes {
    if method == "elicitation/create" {
        return answer(id, br#"{"action":"cancel"}"#);
    }
    error(id, METHOD_NOT_FOUND, "Nobody can be asked outside of a call that waits")
}

/// The client's answer to the server's question with this id.
pub fn answer(id: &str, result: &[u8]) -> Bytes {
    [br#"{"jsonrpc":"2.0","id":"#, id.as_bytes(), br#","result":"#, result, b"}"].concat().into()
}

/// The pages that an error -32042 wants opened, as entries of `inputRequests`.
pub fn pages(message: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Refused {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        elicitations: Vec<Page>,
    }
    #[derive(Deserialize)]
    struct Page {
        message: String,
        url: String,
    }
    let pages = serde_json::from_slice::<Refused>(message).map(|refused| refused.error.data.elicitations).unwrap_or_default();
    let entry = |page: Page| {
        let params = json!({ "mode": "url", "message": page.message, "url": page.url });
        json!({ "method": "elicitation/create", "params": params }).to_string()
    };
    pages.into_iter().map(entry).collect()
}

/// The result that asks the client, and what it has to bring back with its answers.
pub fn input_required<'q>(
    id: &str,
    questions: impl Iterator<Item = (&'q str, &'q str)>,
    state: &str,
    server_info: Option<&str>,
) -> Bytes {
    let mut requests = String::new();
    for (key, request) in questions {
        let comma = if requests.is_empty() { "" } else { "," };
        let _infallible = write!(requests, r#"{comma}"{key}":{request}"#);
    }
    let info = server_info.map(|info| format!(r#","_meta":{{"{SERVER_INFO}":{info}}}"#)).unwrap_or_default();
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":"{state}"{info}}}}}"#
    )
    .into()
}

/// A JSON-RPC error.
pub fn error(id: &str, code: i32, why: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{}}}}}"#, json!(why)).into()
}

/// The parts of a question that decide whether a client answers it.
#[derive(Default)]
struct Params {
    span: Option<Span>,
    is_url: bool,
    has_tools: bool,
}

fn params(text: &str) -> Result<Params, ScanError> {
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    let mut params = Params::default();
    lexer.skip_whitespace();
    lexer.object(|lexer, key| {
        if key.text != "params" || lexer.peek()? != Kind::Object {
            return lexer.value().map(drop);
        }
        let start = lexer.pos();
        lexer.object(|lexer, key| {
            match (&*key.text, lexer.peek()?) {
                ("mode", Kind::String) => params.is_url = lexer.string()?.text == "url",
                ("tools" | "toolChoice", Kind::Object | Kind::Array) => {
                    lexer.value()?;
                    params.has_tools = true;
                }
                _ => drop(lexer.value()?),
            }
            Ok(())
        })?;
        params.span = Some(Span::new(start, lexer.pos()));
        Ok(())
    })?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const ALL: Persona =
        Persona { form: true, url: true, sampling: true, sampling_tools: true, sampling_context: true, roots: true, level: None };

    fn ask(method: &str, params: &str, persona: &Persona) -> Result<String, Value> {
        let message = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}"{params}}}"#);
        read(message.as_bytes(), ("\"x\"", method), persona).map_err(|told| serde_json::from_slice(&told).unwrap())
    }

    #[test]
    fn questions_become_entries_with_their_params_as_they_were() {
        let form = r#","params":{ "message":"a", "requestedSchema":{"n":1.0}}"#;
        let entry = r#"{"method":"elicitation/create","params":{ "message":"a", "requestedSchema":{"n":1.0}}}"#;
        assert_eq!(ask("elicitation/create", form, &ALL).unwrap(), entry);
        assert_eq!(ask("roots/list", "", &ALL).unwrap(), r#"{"method":"roots/list"}"#);
        let url = r#","params":{"mode":"url","elicitationId":"e","message":"m","url":"u"}"#;
        let entry = r#"{"method":"elicitation/create","params":{"mode":"url","message":"m","url":"u"}}"#;
        assert_eq!(ask("elicitation/create", url, &ALL).unwrap(), entry);
    }

    #[test]
    fn what_the_client_has_not_declared_is_answered_at_once() {
        let nothing = Persona::default();
        let (form, url) = (Persona { form: true, ..nothing }, Persona { url: true, ..nothing });
        let plain = Persona { sampling: true, ..nothing };
        for (method, params, persona, code) in [
            ("elicitation/create", r#","params":{}"#, nothing, -32601),
            ("elicitation/create", r#","params":{"mode":"url"}"#, form, -32602),
            ("elicitation/create", r#","params":{"mode":"form"}"#, url, -32602),
            ("sampling/createMessage", r#","params":{}"#, form, -32601),
            ("sampling/createMessage", r#","params":{"tools":[]}"#, plain, -32602),
            ("roots/list", "", plain, -32601),
            ("tasks/list", "", ALL, -32601),
        ] {
            let told = ask(method, params, &persona).unwrap_err();
            assert_eq!((&told["id"], &told["error"]["code"]), (&"x".into(), &code.into()), "{method} {params}");
        }
        assert!(ask("sampling/createMessage", r#","params":{}"#, &plain).is_ok());
    }

    #[test]
    fn pages_to_open_are_questions_too() {
        let refused = r#"{"id":1,"error":{"code":-32042,"message":"x","data":{"elicitations":[{"mode":"url","message":"m","url":"u","elicitationId":"e"}]}}}"#;
        let [page] = &pages(refused.as_bytes())[..] else { panic!("one page") };
        let page: Value = serde_json::from_str(page).unwrap();
        assert_eq!(page, json!({"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "u"}}));
        assert!(pages(br#"{"id":1,"error":{"code":-32042,"message":"x"}}"#).is_empty());
    }

    #[test]
    fn the_result_that_asks_and_the_answers() {
        let questions = [("q1", r#"{"method":"roots/list"}"#), ("q2", "{}")].into_iter();
        let asked: Value = serde_json::from_slice(&input_required("7", questions, "s.t", Some("{}"))).unwrap();
        let expected = json!({
            "resultType": "input_required", "requestState": "s.t",
            "inputRequests": {"q1": {"method": "roots/list"}, "q2": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": {}},
        });
        assert_eq!((&asked["id"], &asked["result"]), (&json!(7), &expected));
        assert_eq!(answer("\"a\"", b"{ }"), r#"{"jsonrpc":"2.0","id":"a","result":{ }}"#);
        assert!(nobody("1", "elicitation/create").ends_with(br#""result":{"action":"cancel"}}"#));
        assert!(nobody("1", "roots/list").starts_with(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601"#));
    }
}
