//! What a modern client says of itself with every request, as far as a legacy server has to be told at `initialize`: which of its questions
//! the client answers, and what it wants to hear. Few enough kinds that sessions can be shared by them.

use serde_json::{Map, Value, json};

use super::{MAX_DEPTH, RESERVED};
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer};
use crate::transport::scan::{Message, ScanError};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Persona {
    /// Elicitation by a form.
    pub form: bool,
    /// Elicitation by a URL.
    pub url: bool,
    pub sampling: bool,
    pub sampling_tools: bool,
    pub sampling_context: bool,
    pub roots: bool,
    /// The least that it wants to be told; `None`: no log messages at all.
    pub level: Option<Level>,
}

/// How much a log message matters (RFC 5424).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const ALL: [Self; 8] =
        [Self::Debug, Self::Info, Self::Notice, Self::Warning, Self::Error, Self::Critical, Self::Alert, Self::Emergency];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

impl Persona {
    /// As a request states it.
    pub fn of(message: &Message) -> Self {
        let mut persona = Self::default();
        let Some(meta) = message.meta_span() else { return persona };
        let Ok(text) = std::str::from_utf8(&message.body()[meta.range()]) else { return persona };
        let mut lexer = Lexer::new(text, MAX_DEPTH, Duplicates::WhereRead);
        // The message was scanned: what cannot be read here is not there.
        let _scanned = lexer.object(|lexer, key| match key.text.strip_prefix(RESERVED) {
            Some("clientCapabilities") if lexer.peek()? == Kind::Object => persona.read(lexer),
            Some("logLevel") if lexer.peek()? == Kind::String => {
                persona.level = Level::parse(&lexer.string()?.text);
                Ok(())
            }
            _ => lexer.value().map(drop),
        });
        persona
    }

    fn read(&mut self, lexer: &mut Lexer<'_>) -> Result<(), ScanError> {
        lexer.object(|lexer, key| {
            if lexer.peek()? != Kind::Object {
                return lexer.value().map(drop);
            }
            match &*key.text {
                "elicitation" => {
                    let modes = members(lexer)?;
                    self.url = modes.iter().any(|mode| mode == "url");
                    // An empty object means forms (2025-11-25, elicitation, capabilities).
                    self.form = modes.is_empty() || modes.iter().any(|mode| mode == "form");
                }
                "sampling" => {
                    let parts = members(lexer)?;
                    self.sampling = true;
                    self.sampling_tools = parts.iter().any(|part| part == "tools");
                    self.sampling_context = parts.iter().any(|part| part == "context");
                }
                "roots" => {
                    lexer.value()?;
                    self.roots = true;
                }
                _ => drop(lexer.value()?),
            }
            Ok(())
        })
    }

    /// Whether the client answers any question at all.
    pub fn answers(&self) -> bool {
        self.form || self.url || self.sampling || self.roots
    }

    /// `capabilities` of an `initialize` on behalf of such a client.
    pub fn capabilities(&self) -> Value {
        let part = |name: &str, has: bool| has.then(|| (name.to_owned(), json!({})));
        let mut capabilities = Map::new();
        if self.form || self.url {
            let modes: Map<_, _> = [part("form", self.form), part("url", self.url)].into_iter().flatten().collect();
            capabilities.insert("elicitation".into(), modes.into());
        }
        if self.sampling {
            let parts = [part("tools", self.sampling_tools), part("context", self.sampling_context)];
            capabilities.insert("sampling".into(), parts.into_iter().flatten().collect::<Map<_, _>>().into());
        }
        capabilities.extend(part("roots", self.roots));
        capabilities.into()
    }
}

/// The members of an object that are objects, by name.
fn members(lexer: &mut Lexer<'_>) -> Result<Vec<String>, ScanError> {
    let mut names = Vec::new();
    lexer.object(|lexer, key| {
        if lexer.peek()? == Kind::Object {
            names.push(key.text.to_string());
        }
        lexer.value().map(drop)
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::message;
    use super::*;

    fn persona(capabilities: &str, more: &str) -> Persona {
        let meta = format!(r#"{{"io.modelcontextprotocol/clientCapabilities":{capabilities}{more}}}"#);
        Persona::of(&message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}"#)))
    }

    #[test]
    fn what_a_client_answers_is_told_to_the_server_and_nothing_else_is() {
        for (capabilities, told) in [
            ("{}", "{}"),
            (r#"{"elicitation":{},"extensions":{"x":{}},"experimental":{}}"#, r#"{"elicitation":{"form":{}}}"#),
            (r#"{"elicitation":{"url":{}}}"#, r#"{"elicitation":{"url":{}}}"#),
            (
                r#"{"elicitation":{"url":{},"form":{}},"roots":{"listChanged":true}}"#,
                r#"{"elicitation":{"form":{},"url":{}},"roots":{}}"#,
            ),
            (r#"{"sampling":{"tools":{},"more":{}}}"#, r#"{"sampling":{"tools":{}}}"#),
            (r#"{"sampling":null,"roots":7}"#, "{}"),
        ] {
            let expected: Value = serde_json::from_str(told).unwrap();
            assert_eq!(persona(capabilities, "").capabilities(), expected, "{capabilities}");
            assert_eq!(persona(capabilities, "").answers(), told != "{}", "{capabilities}");
        }
    }

    #[test]
    fn a_level_is_one_of_eight_and_they_are_in_order() {
        assert_eq!(persona("{}", r#","io.modelcontextprotocol/logLevel":"warning""#).level, Some(Level::Warning));
        assert_eq!(persona("{}", r#","io.modelcontextprotocol/logLevel":"loud""#).level, None);
        assert_eq!(persona("{}", r#","logLevel":"warning""#).level, None);
        assert!(Level::Debug < Level::Warning && Level::Warning < Level::Emergency);
    }
}
