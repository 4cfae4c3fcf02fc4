//! What a message asks for, in the terms that policies, limits and audit records are written in.
//! Never decides; the authorize stage asks the snapshot about each [`Operation`].

use super::scan::{Kind, Message, Reference};

/// What one message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `tools/call` of the named tool.
    CallTool(&'a str),
    /// `prompts/get` of the named prompt.
    GetPrompt(&'a str),
    /// `resources/read` of the URI.
    ReadResource(&'a str),
    /// `resources/subscribe` or `resources/unsubscribe` of the URI (legacy).
    SubscribeResource(&'a str),
    /// `subscriptions/listen`: also judge each of [`Message::resource_subscriptions`].
    Listen,
    /// `initialize` (legacy).
    Initialize,
    /// `server/discover` (modern).
    Discover,
    /// `ping`.
    Ping,
    /// `tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`: the answer is filtered.
    List,
    /// `completion/complete` for the reference, if it has a valid one.
    Complete(Option<Reference<'a>>),
    /// A notification that names nothing a rule could be about.
    Notify,
    /// A result or an error for a request of the server's.
    Respond,
    /// Any other request.
    Other,
}

impl<'a> Operation<'a> {
    /// What `message` does; `Err` names the member of `params` that the method needs and that is not a string.
    pub fn of(message: &'a Message) -> Result<Self, &'static str> {
        match message.kind() {
            Kind::Response | Kind::ErrorResponse => Ok(Self::Respond),
            Kind::Request => Self::of_method(message),
            // A server may carry out a call that has no id, so what it names is judged as if it had one.
            Kind::Notification => Self::of_method(message).map(|operation| match operation {
                Self::CallTool(_)
                | Self::GetPrompt(_)
                | Self::ReadResource(_)
                | Self::SubscribeResource(_)
                | Self::Complete(Some(_)) => operation,
                Self::Listen
                | Self::Initialize
                | Self::Discover
                | Self::Ping
                | Self::List
                | Self::Complete(None)
                | Self::Notify
                | Self::Respond
                | Self::Other => Self::Notify,
            }),
        }
    }

    fn of_method(message: &'a Message) -> Result<Self, &'static str> {
        let named = |name: Option<&'a str>| name.ok_or("name");
        let addressed = |uri: Option<&'a str>| uri.ok_or("uri");
        Ok(match message.method().unwrap_or_default() {
            "tools/call" => Self::CallTool(named(message.name())?),
            "prompts/get" => Self::GetPrompt(named(message.name())?),
            "resources/read" => Self::ReadResource(addressed(message.uri())?),
            "resources/subscribe" | "resources/unsubscribe" => Self::SubscribeResource(addressed(message.uri())?),
            "subscriptions/listen" => Self::Listen,
            "initialize" => Self::Initialize,
            "server/discover" => Self::Discover,
            "ping" => Self::Ping,
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => Self::List,
            "completion/complete" => Self::Complete(message.reference()),
            _ => Self::Other,
        })
    }

    /// Whether the answer can be a list: then it is read whole, to be filtered. Of methods that the protocol does not know
    /// nobody can say.
    pub fn may_list(&self) -> bool {
        match self {
            Self::List | Self::Discover | Self::Other => true,
            Self::CallTool(_)
            | Self::GetPrompt(_)
            | Self::ReadResource(_)
            | Self::SubscribeResource(_)
            | Self::Listen
            | Self::Initialize
            | Self::Ping
            | Self::Complete(_)
            | Self::Notify
            | Self::Respond => false,
        }
    }

    /// Whether [`Operation::name`] is a URI.
    pub fn is_about_resource(&self) -> bool {
        matches!(self, Self::ReadResource(_) | Self::SubscribeResource(_) | Self::Complete(Some(Reference::Resource(_))))
    }

    /// The tool, prompt or URI that the message is about: the name in audit records.
    pub fn name(&self) -> Option<&'a str> {
        match *self {
            Self::CallTool(name) | Self::GetPrompt(name) | Self::ReadResource(name) | Self::SubscribeResource(name) => Some(name),
            Self::Complete(Some(Reference::Prompt(name) | Reference::Resource(name))) => Some(name),
            Self::Listen
            | Self::Initialize
            | Self::Discover
            | Self::Ping
            | Self::List
            | Self::Complete(None)
            | Self::Notify
            | Self::Respond
            | Self::Other => None,
        }
    }
}

/// Methods that 2026-07-28 removed; a modern request for one is answered 404 with -32601.
pub(super) fn removed_in_modern(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "ping"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "notifications/initialized"
            | "notifications/roots/list_changed"
    )
}
