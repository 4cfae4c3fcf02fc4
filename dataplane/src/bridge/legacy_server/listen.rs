//! `subscriptions/listen` of a modern client: what it wants to be told, what of that a legacy server can tell, and the server's notifications
//! in modern words (2026-07-28, subscriptions).

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MAX_DEPTH, Offers};
use crate::owned::splice;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};
use crate::transport::scan::{Message, ScanError};
use crate::upstream::link::is_within;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What one stream tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The id of the request, as the client wrote it.
    id: Box<str>,
    tools: bool,
    prompts: bool,
    resources: bool,
    /// Resources whose changes are told of.
    pub uris: HashSet<String>,
}

#[derive(Deserialize)]
struct Params {
    notifications: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: HashSet<String>,
}

impl Wanted {
    /// What a request asks for; `None`: it does not say.
    pub fn of(message: &Message) -> Option<Self> {
        let params = &message.body()[message.params_span()?.range()];
        let Params { notifications } = serde_json::from_slice(params).ok()?;
        let filter: Filter = serde_json::from_value(notifications.into()).ok()?;
        Some(Self {
            id: message.id().unwrap_or("null").into(),
            tools: filter.tools_list_changed,
            prompts: filter.prompts_list_changed,
            resources: filter.resources_list_changed,
            uris: filter.resource_subscriptions,
        })
    }

    /// As far as a server can tell.
    #[must_use]
    pub fn of_what_is_offered(self, offers: Offers) -> Self {
        Self {
            tools: self.tools && offers.tools_changed,
            prompts: self.prompts && offers.prompts_changed,
            resources: self.resources && offers.resources_changed,
            uris: if offers.updates { self.uris } else { HashSet::new() },
            ..self
        }
    }

    /// The first message of the stream: what it will tell of.
    pub fn acknowledged(&self) -> Bytes {
        let mut agreed = json!({});
        for (name, wanted) in
            [("toolsListChanged", self.tools), ("promptsListChanged", self.prompts), ("resourcesListChanged", self.resources)]
        {
            if wanted {
                agreed[name] = true.into();
            }
        }
        if !self.uris.is_empty() {
            let mut uris: Vec<&String> = self.uris.iter().collect();
            uris.sort_unstable();
            agreed["resourceSubscriptions"] = json!(uris);
        }
        let id = &self.id;
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"{SUBSCRIPTION}":{id}}},"notifications":{agreed}}}}}"#
        )
        .into()
    }

    /// The last message of a stream that ends in good order.
    pub fn over(&self) -> Bytes {
        let id = &self.id;
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":{id}}}}}}}"#).into()
    }

    /// A notification of the server's as the stream tells it; `None`: it is not about what is told.
    pub fn tell(&self, message: &Bytes, method: &str) -> Option<Bytes> {
        let is_wanted = match method {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            "notifications/resources/updated" => !self.uris.is_empty(),
            _ => false,
        };
        if !is_wanted {
            return None;
        }
        let text = std::str::from_utf8(message).ok()?;
        let parts = parts(text).ok()?;
        if method == "notifications/resources/updated" && !self.concerns(parts.uri.as_deref()?) {
            return None;
        }
        let subscription = format!(r#""{SUBSCRIPTION}":{}"#, self.id);
        let (place, member) = parts.place(&subscription);
        Some(splice(message, &[(place, &member)]))
    }

    /// Whether an update is of a resource that is told of, or of a part of one (2025-11-25, resources, subscriptions).
    fn concerns(&self, updated: &str) -> bool {
        self.uris.contains(updated) || self.uris.iter().any(|uri| is_within(updated, uri))
    }
}

/// Where the subscription's id goes.
#[derive(Default)]
struct Parts {
    /// Behind the brace that opens the message.
    start: usize,
    params: Option<Object>,
    meta: Option<Object>,
    uri: Option<String>,
}

#[derive(Clone, Copy)]
struct Object {
    start: usize,
    is_empty: bool,
}

impl Parts {
    fn place(&self, subscription: &str) -> (Span, String) {
        let comma = |object: Object| if object.is_empty { "" } else { "," };
        let (object, member) = match (self.meta, self.params) {
            (Some(meta), _) => (meta.start, format!("{subscription}{}", comma(meta))),
            (None, Some(params)) => (params.start, format!(r#""_meta":{{{subscription}}}{}"#, comma(params))),
            (None, None) => (self.start, format!(r#""params":{{"_meta":{{{subscription}}}}},"#)),
        };
        (Span::new(object, object), member)
    }
}

fn parts(text: &str) -> Result<Parts, ScanError> {
    let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
    let mut parts = Parts::default();
    lexer.skip_whitespace();
    parts.start = lexer.pos() + 1;
    lexer.object(|lexer, key| {
        if key.text != "params" || lexer.peek()? != Kind::Object {
            return lexer.value().map(drop);
        }
        let mut params = Object { start: lexer.pos() + 1, is_empty: true };
        lexer.object(|lexer, key| {
            params.is_empty = false;
            match (&*key.text, lexer.peek()?) {
                ("_meta", Kind::Object) => {
                    let mut meta = Object { start: lexer.pos() + 1, is_empty: true };
                    lexer.object(|lexer, _key| {
                        meta.is_empty = false;
                        lexer.value().map(drop)
                    })?;
                    parts.meta = Some(meta);
                }
                ("uri", Kind::String) => parts.uri = Some(lexer.string()?.text.into_owned()),
                _ => drop(lexer.value()?),
            }
            Ok(())
        })?;
        parts.params = Some(params);
        Ok(())
    })?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::message;
    use super::*;

    const ALL: Offers =
        Offers { tools_changed: true, prompts_changed: true, resources_changed: true, updates: true, logging: true };

    fn wanted(notifications: &str, offers: Offers) -> Option<Wanted> {
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{{"notifications":{notifications},"_meta":{{}}}}}}"#
        );
        Some(Wanted::of(&message(&request))?.of_what_is_offered(offers))
    }

    fn agreed(wanted: &Wanted) -> Value {
        let message: Value = serde_json::from_slice(&wanted.acknowledged()).unwrap();
        assert_eq!(message["params"]["_meta"][SUBSCRIPTION], "l");
        message["params"]["notifications"].clone()
    }

    #[test]
    fn what_is_agreed_to_is_what_is_wanted_and_offered() {
        let all = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["b","a"]}"#;
        let expected: Value = serde_json::from_str(&all.replace(r#"["b","a"]"#, r#"["a","b"]"#)).unwrap();
        assert_eq!(agreed(&wanted(all, ALL).unwrap()), expected);
        assert_eq!(agreed(&wanted(all, Offers::default()).unwrap()), json!({}));
        assert_eq!(agreed(&wanted(r#"{"toolsListChanged":false}"#, ALL).unwrap()), json!({}));
        assert!(wanted("[]", ALL).is_none());
    }

    #[test]
    fn news_carry_the_subscription_and_stay_as_they_were() {
        let wanted = wanted(r#"{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}"#, ALL).unwrap();
        let tell = |method: &str, message: &str| {
            let told = wanted.tell(&Bytes::from(message.to_owned()), method)?;
            Some(String::from_utf8(told.to_vec()).unwrap())
        };
        let id = r#""io.modelcontextprotocol/subscriptionId":"l""#;
        let tools = "notifications/tools/list_changed";
        assert_eq!(
            tell(tools, r#"{"jsonrpc":"2.0", "method":"x"}"#).unwrap(),
            format!(r#"{{"params":{{"_meta":{{{id}}}}},"jsonrpc":"2.0", "method":"x"}}"#)
        );
        assert_eq!(tell(tools, r#"{"params":{}}"#).unwrap(), format!(r#"{{"params":{{"_meta":{{{id}}}}}}}"#));
        assert_eq!(
            tell(tools, r#"{"params":{"_meta":{"a":1.0}}}"#).unwrap(),
            format!(r#"{{"params":{{"_meta":{{{id},"a":1.0}}}}}}"#)
        );
        let updated = "notifications/resources/updated";
        assert!(tell(updated, r#"{"params":{"uri":"file:///a"}}"#).is_some());
        assert!(tell(updated, r#"{"params":{"uri":"file:///a/b"}}"#).is_some());
        for other in [r#"{"params":{"uri":"file:///ab"}}"#, r#"{"params":{}}"#, "[]"] {
            assert_eq!(tell(updated, other), None, "{other}");
        }
        assert_eq!(tell("notifications/prompts/list_changed", "{}"), None);
        assert_eq!(tell("notifications/message", "{}"), None);
    }
}
