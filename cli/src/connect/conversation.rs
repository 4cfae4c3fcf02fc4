//! What a client and its server said to each other, as far as a new connection has to know it.
//!
//! Owns which requests are open, and what has to be repeated on a new connection. Pure: no sockets, no clocks. Called by [`super::carry`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A JSON-RPC error of our own making.
const INTERNAL: i64 = -32603;

/// Methods that change nothing on a server: repeating one that got no answer does no harm.
const HARMLESS: [&str; 14] = [
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
];

/// What the session of a connection holds besides open requests, and what may be said once it is open.
#[derive(Default)]
pub struct Conversation {
    /// Of the client, without an answer, by id.
    open: HashMap<String, Open>,
    /// Of the server, on this connection, without an answer.
    asked: HashSet<String>,
    /// The client's `initialize` and what the server is, once it was answered.
    greeting: Option<Greeting>,
    /// The client's `notifications/initialized`.
    greeted: Option<String>,
    /// What the client changed of its session, by what it is about: the log level, subscriptions.
    wishes: BTreeMap<String, String>,
    /// Repeated on this connection; the answers are not for the client.
    repeated: HashSet<String>,
    /// The id of the repeated `initialize`.
    resuming: Option<String>,
}

struct Open {
    method: String,
    line: String,
    /// Which wish the answer grants.
    wish: Option<String>,
}

struct Greeting {
    line: String,
    server: Value,
}

/// What to do with a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is the client's.
    Pass,
    /// It answers what was only repeated.
    Keep,
    /// The session is open again: these are to be sent.
    Resumed(Vec<String>),
    /// It is not the server that the client knows; why.
    Another(String),
    /// It is no message; why.
    Nonsense(String),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

impl Envelope<'_> {
    fn id(&self) -> Option<String> {
        self.id.map(|id| id.get().to_owned())
    }
}

impl Conversation {
    /// Takes note of what the client says; whether it is for this connection. No message at all: why not.
    pub fn say(&mut self, line: &str) -> Result<bool, String> {
        if line.trim_start().starts_with('[') {
            let parts: Vec<&RawValue> = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let mut wanted = false;
            for part in parts {
                wanted |= self.say(part.get())?;
            }
            return Ok(wanted);
        }
        let said: Envelope<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let id = said.id();
        match (said.method, id) {
            (Some(method), Some(id)) => {
                let wish = wish(&method, said.params);
                self.open.insert(id, Open { method, line: line.to_owned(), wish });
                Ok(true)
            }
            (Some(method), None) => {
                if method == "notifications/initialized" {
                    self.greeted = Some(line.to_owned());
                }
                Ok(true)
            }
            // An answer to a question of an earlier connection: nobody waits for it.
            (None, Some(id)) => Ok(self.asked.remove(&id)),
            (None, None) => Ok(true),
        }
    }

    /// Takes note of what the server says.
    pub fn hear(&mut self, text: &str) -> Heard {
        if text.trim_start().starts_with('[') {
            return self.hear_all(text);
        }
        let said: Envelope<'_> = match serde_json::from_str(text) {
            Ok(said) => said,
            Err(error) => return Heard::Nonsense(error.to_string()),
        };
        let id = said.id();
        match (said.method, id) {
            (Some(_), Some(id)) => {
                self.asked.insert(id);
                Heard::Pass
            }
            (Some(_), None) | (None, None) => Heard::Pass,
            (None, Some(id)) => self.answered(&id, said.result),
        }
    }

    /// A batch of answers: those that a server of 2025-03-26 may give.
    fn hear_all(&mut self, text: &str) -> Heard {
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Err(error) => Heard::Nonsense(error.to_string()),
            Ok(parts) => {
                parts.iter().for_each(|part| drop(self.hear(part.get())));
                Heard::Pass
            }
        }
    }

    fn answered(&mut self, id: &str, result: Option<&RawValue>) -> Heard {
        if self.resuming.as_deref() == Some(id) {
            self.resuming = None;
            return self.recognise(result);
        }
        if self.repeated.remove(id) {
            return Heard::Keep;
        }
        let (Some(open), Some(result)) = (self.open.remove(id), result) else { return Heard::Pass };
        if open.method == "initialize" {
            self.greeting = Some(Greeting { line: open.line, server: identity(result) });
        } else if let Some(wish) = open.wish {
            match wish.strip_prefix('-') {
                Some(gone) => drop(self.wishes.remove(gone)),
                None => drop(self.wishes.insert(wish, open.line)),
            }
        }
        Heard::Pass
    }

    fn recognise(&mut self, result: Option<&RawValue>) -> Heard {
        let Some(result) = result else {
            return Heard::Another("the server refused to be initialised again".into());
        };
        let (known, found) = (self.greeting.as_ref().map(|greeting| &greeting.server), identity(result));
        if known != Some(&found) {
            return Heard::Another(format!("the server is another one now: {found}"));
        }
        self.repeated = self.wishes.values().filter_map(|line| id_of(line)).collect();
        Heard::Resumed(self.greeted.iter().chain(self.wishes.values()).cloned().collect())
    }

    /// The connection is gone: the answers that the client gets to what was open. What greets the server will be said again instead.
    pub fn lost(&mut self) -> Vec<String> {
        self.asked.clear();
        self.repeated.clear();
        self.resuming = None;
        let (greetings, lost): (HashMap<_, _>, HashMap<_, _>) =
            std::mem::take(&mut self.open).into_iter().partition(|(_, open)| open.method == "initialize");
        self.open = greetings;
        lost.into_iter().map(|(id, open)| refusal(&id, &open.method)).collect()
    }

    /// There is a new connection: what has to be said on it first, and whether the client has to wait until that is answered.
    pub fn resume(&mut self) -> (VecDeque<String>, bool) {
        let unanswered = self.open.values().map(|open| open.line.clone());
        match &self.greeting {
            Some(greeting) => {
                self.resuming = id_of(&greeting.line);
                (VecDeque::from([greeting.line.clone()]), true)
            }
            None => (unanswered.collect(), false),
        }
    }
}

/// What a request changes of the session: a key, with a hyphen before it where it takes away.
fn wish(method: &str, params: Option<&RawValue>) -> Option<String> {
    let uri = || {
        let params: Value = serde_json::from_str(params?.get()).ok()?;
        Some(format!("resource {}", params["uri"].as_str()?))
    };
    match method {
        "logging/setLevel" => Some("level".to_owned()),
        "resources/subscribe" => uri(),
        "resources/unsubscribe" => uri().map(|uri| format!("-{uri}")),
        _ => None,
    }
}

/// What a client relies on for as long as it runs.
fn identity(result: &RawValue) -> Value {
    let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
    json!({
        "name": result["serverInfo"]["name"],
        "protocolVersion": result["protocolVersion"],
        "capabilities": result["capabilities"],
    })
}

fn id_of(line: &str) -> Option<String> {
    serde_json::from_str::<Envelope<'_>>(line).ok()?.id()
}

fn refusal(id: &str, method: &str) -> String {
    let harmless = HARMLESS.contains(&method);
    let effects = if harmless { "changes nothing and can be repeated" } else { "may have had effects" };
    let message = format!("the connection to the gateway was lost before {method} was answered; it {effects}");
    let id: Value = serde_json::from_str(id).unwrap_or_default();
    error(&id, INTERNAL, &message, &json!({ "mayHaveHadEffects": !harmless }))
}

/// An error response of our own.
pub fn error(id: &Value, code: i64, message: &str, data: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message, "data": data } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialize() -> &'static str {
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#
    }

    fn greeting(name: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"2025-06-18","capabilities":{{}},"serverInfo":{{"name":"{name}","version":"1"}}}}}}"#
        )
    }

    fn greeted() -> Conversation {
        let mut conversation = Conversation::default();
        assert_eq!(conversation.say(initialize()), Ok(true));
        assert_eq!(conversation.hear(&greeting("time")), Heard::Pass);
        assert_eq!(conversation.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), Ok(true));
        conversation
    }

    #[test]
    fn what_was_open_is_refused_with_its_own_id_and_says_what_it_may_have_done() {
        let mut conversation = greeted();
        for line in [
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":8,"method":"ping"}"#,
        ] {
            assert_eq!(conversation.say(line), Ok(true));
        }
        assert_eq!(conversation.hear(r#"{"jsonrpc":"2.0","id":8,"result":{}}"#), Heard::Pass);
        let mut lost: Vec<Value> = conversation.lost().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        lost.sort_by_key(|error| error["id"].to_string());
        let effects: Vec<_> =
            lost.iter().map(|it| (it["id"].clone(), it["error"]["data"]["mayHaveHadEffects"].clone())).collect();
        assert_eq!(effects, [(json!("a"), json!(true)), (json!(7), json!(false))]);
        assert_eq!(lost[0]["error"]["code"], -32603);
        assert!(conversation.lost().is_empty());
    }

    #[test]
    fn a_new_connection_is_greeted_as_the_first_was_and_told_what_the_client_wished() {
        let mut conversation = greeted();
        let level = r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#;
        let one = r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a:1"}}"#;
        let two = r#"{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a:2"}}"#;
        let back = r#"{"jsonrpc":"2.0","id":4,"method":"resources/unsubscribe","params":{"uri":"a:2"}}"#;
        for (id, line) in [(1, level), (2, one), (3, two), (4, back)] {
            conversation.say(line).unwrap();
            conversation.hear(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
        assert!(conversation.lost().is_empty());
        assert_eq!(conversation.resume(), (VecDeque::from([initialize().to_owned()]), true));
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let expected = [initialized, level, one].map(str::to_owned).to_vec();
        assert_eq!(conversation.hear(&greeting("time")), Heard::Resumed(expected));
        for id in [1, 2] {
            assert_eq!(conversation.hear(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)), Heard::Keep);
        }
    }

    #[test]
    fn another_server_is_not_taken_for_the_first() {
        let mut conversation = greeted();
        conversation.lost();
        conversation.resume();
        assert!(matches!(conversation.hear(&greeting("evil")), Heard::Another(_)));
        conversation.resume();
        let refused = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"no"}}"#;
        assert!(matches!(conversation.hear(refused), Heard::Another(_)));
    }

    #[test]
    fn a_greeting_without_an_answer_is_said_again_and_its_answer_is_the_clients() {
        let mut conversation = Conversation::default();
        conversation.say(initialize()).unwrap();
        assert!(conversation.lost().is_empty());
        assert_eq!(conversation.resume(), (VecDeque::from([initialize().to_owned()]), false));
        assert_eq!(conversation.hear(&greeting("time")), Heard::Pass);
        assert!(conversation.resume().1);
    }

    #[test]
    fn an_answer_to_a_question_of_an_earlier_connection_is_dropped() {
        let mut conversation = greeted();
        let answer = r#"{"jsonrpc":"2.0","id":5,"result":{}}"#;
        conversation.hear(r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage"}"#);
        assert_eq!(conversation.say(answer), Ok(true));
        conversation.hear(r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage"}"#);
        conversation.lost();
        assert_eq!(conversation.say(answer), Ok(false));
    }

    #[test]
    fn what_is_no_message_says_so() {
        let mut conversation = Conversation::default();
        assert!(conversation.say("{").is_err());
        assert!(matches!(conversation.hear("hello"), Heard::Nonsense(_)));
        assert_eq!(
            conversation.say(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"x"}]"#),
            Ok(true)
        );
        assert_eq!(conversation.lost().len(), 2);
    }
}
