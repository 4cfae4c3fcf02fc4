//! What one scan learned about a message: its kind and where its parts are. Immutable; owns a handle on the body's
//! bytes, so that the parts can be read for as long as the message lives and the original bytes travel on.
//! Made by `scan`, read by every later stage.

use bytes::Bytes;
use bytestring::ByteString;

use super::lexer::Span;

/// What a client sends: one message, or, in 2025-03-26 only, several.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one message is the rule; boxing it would cost every request an allocation")]
pub enum Scanned {
    /// A single message.
    One(Message),
    /// A JSON-RPC batch, in order; never empty, never nested. All share one body.
    Batch(Vec<Message>),
}

impl Scanned {
    /// The messages, in order.
    pub fn messages(&self) -> &[Message] {
        match self {
            Self::One(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }

    /// The single message, if it is not a batch.
    pub fn one(&self) -> Option<&Message> {
        match self {
            Self::One(message) => Some(message),
            Self::Batch(_) => None,
        }
    }
}

/// The four kinds of JSON-RPC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `method` and `id`.
    Request,
    /// `method` without `id`.
    Notification,
    /// `result` and `id`.
    Response,
    /// `error`, usually with `id`.
    ErrorResponse,
}

/// A string value: a span of the body where it has no escapes, its own text where it has.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Plain(Span),
    Unescaped(Box<str>),
}

impl Text {
    pub fn of(string: &super::lexer::Str<'_>) -> Self {
        match &string.text {
            std::borrow::Cow::Borrowed(_) => Self::Plain(string.span),
            std::borrow::Cow::Owned(text) => Self::Unescaped(text.as_str().into()),
        }
    }
}

/// What `completion/complete` refers to (`params.ref`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// `ref/prompt` and the prompt's name.
    Prompt(&'a str),
    /// `ref/resource` and the URI or URI template.
    Resource(&'a str),
}

#[derive(Debug, Clone)]
pub(super) enum ReferenceText {
    Prompt(Text),
    Resource(Text),
}

/// The parts of a message. Everything a decision can need is here; nothing is copied that the body already holds.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub kind: Kind,
    pub span: Span,
    pub id: Option<Span>,
    pub method: Option<Text>,
    pub params: Option<Span>,
    pub fields: Fields,
}

/// What `params` holds, of what is understood.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub name: Option<Text>,
    pub uri: Option<Text>,
    pub task_id: Option<Text>,
    pub initialize_version: Option<Text>,
    pub reference: Option<ReferenceText>,
    pub subscriptions: Vec<Text>,
    pub arguments: Option<Span>,
    pub cursor: Option<Span>,
    pub request_id: Option<Span>,
    pub retry: bool,
    pub meta: Option<Span>,
    pub meta_version: Option<Text>,
    pub meta_client_info: bool,
    pub meta_capabilities: Option<Span>,
    pub progress_token: Option<Span>,
    pub traceparent: Option<Text>,
}

/// One JSON-RPC message that passed the strict scan. All spans count from the start of the body.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) body: ByteString,
    pub(super) parts: Parts,
}

impl Message {
    /// Which of the four kinds this is.
    pub fn kind(&self) -> Kind {
        self.parts.kind
    }

    /// Whether this is a request: something that gets an answer.
    pub fn is_request(&self) -> bool {
        self.parts.kind == Kind::Request
    }

    /// The whole body that the message came in; for a batch, all of the batch.
    pub fn body(&self) -> &Bytes {
        self.body.as_bytes()
    }

    /// The message's own bytes, without copying.
    pub fn bytes(&self) -> Bytes {
        self.body.as_bytes().slice(self.parts.span.range())
    }

    /// Where the message is in the body.
    pub fn span(&self) -> Span {
        self.parts.span
    }

    /// The id as it was written, quotes and all: `7`, `"a"`. Copy it into an answer byte for byte.
    pub fn id(&self) -> Option<&str> {
        self.parts.id.map(|span| self.raw(span))
    }

    /// Where the id is.
    pub fn id_span(&self) -> Option<Span> {
        self.parts.id
    }

    /// The method; `None` for responses.
    pub fn method(&self) -> Option<&str> {
        self.parts.method.as_ref().map(|text| self.text(text))
    }

    /// `params`, where present and not null: always an object.
    pub fn params_span(&self) -> Option<Span> {
        self.parts.params
    }

    /// `params.name`, if it is a string: the tool or prompt.
    pub fn name(&self) -> Option<&str> {
        self.field(&self.parts.fields.name)
    }

    /// `params.uri`, if it is a string: the resource.
    pub fn uri(&self) -> Option<&str> {
        self.field(&self.parts.fields.uri)
    }

    /// `params.taskId`, if it is a string (tasks extension).
    pub fn task_id(&self) -> Option<&str> {
        self.field(&self.parts.fields.task_id)
    }

    /// `params.ref` of a completion request.
    pub fn reference(&self) -> Option<Reference<'_>> {
        self.parts.fields.reference.as_ref().map(|reference| match reference {
            ReferenceText::Prompt(text) => Reference::Prompt(self.text(text)),
            ReferenceText::Resource(text) => Reference::Resource(self.text(text)),
        })
    }

    /// The URIs of `params.notifications.resourceSubscriptions` (subscriptions/listen).
    pub fn resource_subscriptions(&self) -> impl Iterator<Item = &str> {
        self.parts.fields.subscriptions.iter().map(|text| self.text(text))
    }

    /// `params.arguments`: the span of any value.
    pub fn arguments_span(&self) -> Option<Span> {
        self.parts.fields.arguments
    }

    /// The bytes of `params.arguments`.
    pub fn arguments(&self) -> Option<&str> {
        self.parts.fields.arguments.map(|span| self.raw(span))
    }

    /// `params.cursor`, as written.
    pub fn cursor(&self) -> Option<&str> {
        self.parts.fields.cursor.map(|span| self.raw(span))
    }

    /// `params.requestId`, as written (notifications/cancelled).
    pub fn cancelled_id(&self) -> Option<&str> {
        self.parts.fields.request_id.map(|span| self.raw(span))
    }

    /// Where `params.requestId` is.
    pub fn cancelled_id_span(&self) -> Option<Span> {
        self.parts.fields.request_id
    }

    /// Whether this repeats a request with answers (`inputResponses` or `requestState`).
    pub fn is_retry(&self) -> bool {
        self.parts.fields.retry
    }

    /// `params._meta`, where present and not null: always an object.
    pub fn meta_span(&self) -> Option<Span> {
        self.parts.fields.meta
    }

    /// The version in `_meta["io.modelcontextprotocol/protocolVersion"]`: modern requests say it on every request.
    pub fn meta_version(&self) -> Option<&str> {
        self.field(&self.parts.fields.meta_version)
    }

    /// Whether `_meta["io.modelcontextprotocol/clientInfo"]` is there.
    pub fn has_client_info(&self) -> bool {
        self.parts.fields.meta_client_info
    }

    /// `_meta["io.modelcontextprotocol/clientCapabilities"]`, if it is an object.
    pub fn client_capabilities_span(&self) -> Option<Span> {
        self.parts.fields.meta_capabilities
    }

    /// `params.protocolVersion` of `initialize`.
    pub fn initialize_version(&self) -> Option<&str> {
        self.field(&self.parts.fields.initialize_version)
    }

    /// `_meta.progressToken`, as written.
    pub fn progress_token(&self) -> Option<&str> {
        self.parts.fields.progress_token.map(|span| self.raw(span))
    }

    /// Where `_meta.progressToken` is.
    pub fn progress_token_span(&self) -> Option<Span> {
        self.parts.fields.progress_token
    }

    /// `_meta.traceparent` (SEP-414), unchecked.
    pub fn traceparent(&self) -> Option<&str> {
        self.field(&self.parts.fields.traceparent)
    }

    fn field<'a>(&'a self, text: &'a Option<Text>) -> Option<&'a str> {
        text.as_ref().map(|text| self.text(text))
    }

    fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Plain(span) => self.raw(*span),
            Text::Unescaped(text) => text,
        }
    }

    fn raw(&self, span: Span) -> &str {
        &self.body[span.range()]
    }
}
