//! The operators' desk of a gateway: flags that say which one and as whom, and one order there. Its nodes ask each other; those that did
//! not answer are named, because what they have is missing from the answer.
//! Never knows what an order is about. Flattened into the verbs of `session`, `server logs` and `server process`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args as Flags;
use http::Method;
use mcp_gateway::proto::admin::v1::Audience;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tools::{failed, say_request_id};
use super::way;
use crate::context::Context;
use crate::failure::Failure;
use crate::mcp::{self, Error, Events, Http};
use crate::{args, names};

/// Which gateway, and as whom.
#[derive(Debug, Flags)]
pub struct Desk {
    /// The gateway's URL [default: of the saved login]
    #[arg(long, env = "MCPGW_GATEWAY", value_name = "URL")]
    gateway: Option<String>,
    /// An API key to present instead of the saved login
    #[arg(long, env = "MCPGW_API_KEY", hide_env_values = true, value_name = "mcpgw_...")]
    key: Option<String>,
    /// How long an answer may take
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "30s")]
    timeout: Duration,
}

/// What is ordered.
#[derive(Debug)]
pub struct Order<'o> {
    method: Method,
    path: String,
    query: Vec<(&'o str, String)>,
    body: Option<Value>,
    org: Option<&'o str>,
}

/// What came of an order over all nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer<T> {
    #[serde(flatten)]
    pub told: T,
    /// Nodes that did not answer: what they have is not in here.
    #[serde(default)]
    pub unreachable: Vec<Unreachable>,
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    node: String,
    why: String,
}

/// What came of an order about one thing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Clients, or processes, that were spoken to.
    #[serde(default)]
    pub reached: u64,
    /// Whether some node has the thing.
    #[serde(default)]
    pub found: bool,
}

impl<'o> Order<'o> {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, org: None }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    pub fn with_body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// With a parameter, whatever its value is.
    pub fn with(mut self, name: &'o str, value: &str) -> Self {
        self.query.push((name, escaped(value)));
        self
    }

    /// In the organisation that the full name of something says.
    pub fn of(self, org: Option<&'o str>) -> Self {
        Self { org, ..self }
    }

    fn target(&self) -> String {
        let pairs: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, pairs.join("&")) }
    }
}

impl Desk {
    /// Gives an order that all nodes carry out.
    pub async fn order<T: DeserializeOwned>(&self, cx: &Context, order: Order<'_>) -> anyhow::Result<Answer<T>> {
        let path = order.path.clone();
        let answer = self.text(cx, order).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| anyhow::anyhow!("the gateway's answer about {path} cannot be read: {error}"))
    }

    /// Gives an order about one thing, which some node has to have; `thing` is for people.
    pub async fn act(&self, cx: &Context, thing: &str, order: Order<'_>) -> anyhow::Result<Answer<Done>> {
        let answer: Answer<Done> = self.order(cx, order).await?;
        if answer.told.found {
            return Ok(answer);
        }
        Err(match &answer.unreachable[..] {
            [] => Failure::NotFound(format!("no {thing} on any node")).into(),
            silent => unclear(&format!("no {thing} on any node that answered; it may be on one that did not"), silent).into(),
        })
    }

    /// Gives an order; its answer as it came.
    pub async fn text(&self, cx: &Context, order: Order<'_>) -> anyhow::Result<Vec<u8>> {
        let (http, order) = self.open(cx, order).await?;
        mcp::order(&http, order.method, order.body.as_ref()).await.map_err(refused)
    }

    /// Gives an order whose answer is a stream.
    pub async fn events(&self, cx: &Context, order: Order<'_>) -> anyhow::Result<Events> {
        let (http, order) = self.open(cx, order).await?;
        mcp::events(&http, order.method).await.map_err(refused)
    }

    async fn open<'o>(&self, cx: &Context, mut order: Order<'o>) -> anyhow::Result<(Http, Order<'o>)> {
        let gateway = way::gateway(cx, self.gateway.as_deref())?
            .ok_or_else(|| Failure::Usage("which gateway? Add --gateway URL, or run `mcpgw login` with it once".into()))?;
        let meant = order.org.or(cx.global.org.as_deref()).map(|org| names::id(org).to_owned());
        let token = match &self.key {
            Some(key) => key.clone(),
            None => {
                let saved = cx.saved()?.map(|saved| saved.organization);
                saved.map_or(Ok(()), |saved| of_login(&saved, meant.as_deref()))?;
                cx.token(Audience::Gateway, None).await?
            }
        };
        if let Some(org) = meant {
            // Whose organisation a key is of, only the gateway knows.
            order = order.with("org", &org);
        }
        let notice = Box::new(|said: &str| eprintln!("{said}"));
        let url = format!("{gateway}{}", order.target());
        let http = Http::new(&url, way::ca(cx)?.as_deref(), self.timeout, notice)?.with_bearer(&token)?;
        Ok((http, order))
    }
}

/// Whether a login is for the organisation that is meant: its tokens are for one only.
fn of_login(saved: &str, meant: Option<&str>) -> Result<(), Failure> {
    let meant = meant.map(names::org);
    match (saved, meant) {
        ("", meant) => {
            let org = meant.as_deref().map_or("SLUG", names::id);
            Err(Failure::Refused(format!("the saved login is for no organisation: run `mcpgw login --org {org}`")))
        }
        (saved, Some(meant)) if saved != meant => {
            let org = names::id(&meant);
            Err(Failure::Refused(format!("the saved login is for {saved}, not for {meant}: run `mcpgw login --org {org}`")))
        }
        (_, _) => Ok(()),
    }
}

impl<T> Answer<T> {
    /// Tells people which nodes are missing from an answer that is good without them.
    pub fn warn(&self) {
        for Unreachable { node, why } in &self.unreachable {
            eprintln!("warning: node {node} did not answer, and what it has is not in here: {why}");
        }
    }

    /// Fails if an order for all nodes was carried out on some only.
    pub fn complete(&self) -> Result<(), Failure> {
        match &self.unreachable[..] {
            [] => Ok(()),
            silent => Err(unclear("not every node answered: this was done on the others only", silent)),
        }
    }

    /// Adds nodes that did not answer another order.
    pub fn miss(&mut self, unreachable: Vec<Unreachable>) {
        for silent in unreachable {
            if !self.unreachable.iter().any(|known| known.node == silent.node) {
                self.unreachable.push(silent);
            }
        }
    }
}

/// What is not known because nodes are silent.
fn unclear(said: &str, silent: &[Unreachable]) -> Failure {
    let mut text = said.to_owned();
    for Unreachable { node, why } in silent {
        let _ = write!(text, "\n  node {node}: {why}");
    }
    Failure::Unreachable(text)
}

/// An exit code for a refused order, in the gateway's words.
fn refused(error: Error) -> anyhow::Error {
    let Error::Rpc { status, message, data, .. } = &error else { return failed(error) };
    let silent = Vec::<Unreachable>::deserialize(&data["unreachable"]).unwrap_or_default();
    let failure = match status.as_u16() {
        400 | 413 => Failure::Usage(message.clone()),
        401 | 403 => Failure::Refused(message.clone()),
        404 => Failure::NotFound(message.clone()),
        502..=504 => unclear(message, &silent),
        _ => return failed(error),
    };
    say_request_id(error.request_id());
    failure.into()
}

/// A value as a query has it: everything but letters, digits and hyphens escaped.
fn escaped(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() || byte == b'-' { char::from(byte).into() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

/// A moment in seconds since the Unix epoch, for `output::time`.
pub fn moment(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
mod tests;
