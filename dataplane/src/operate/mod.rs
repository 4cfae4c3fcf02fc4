//! What operators do with the connections of their organisation, and callers with their own: see, speak to, take up again, end. On all
//! nodes of the pool: one asks the others, and names those that did not answer.
//!
//! Knows sessions and streams from outside; who may what is decided here, once, by the node that was asked.

mod follow;
mod local;
mod order;
mod stdio;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use mcp_gateway::proto::node::v1::Outcome;
use serde::{Deserialize, Serialize};

use crate::owned::stream::EventId;
use crate::peers::PeerError;
use crate::pipeline::authenticate::Principal;
use crate::pipeline::denial::{Denial, OperateDenial, TargetDenial};
use crate::pipeline::trail::{Asked, Ending, Trail};
use crate::pipeline::{Pipeline, Reply};
use crate::relay::outcome::Answered;
use crate::relay::{Body, OK, whole};
use crate::sse;

pub(crate) use local::{Connection, own};
use local::{Question, Told, answer};
pub(crate) use order::Order;
use order::parameter;

/// Roles that may see and touch connections of others.
const OPERATORS: [&str; 3] = ["owner", "admin", "operator"];
/// The largest order.
const LARGEST: usize = 1 << 20;
/// Where nodes ask each other.
const BETWEEN_NODES: &str = "operate";

/// What came of an order, over all nodes.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    told: Told,
    /// Nodes that were asked and did not answer: what they have is not in here.
    unreachable: Vec<Unreachable>,
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    pub node: String,
    pub why: String,
}

/// Carries out an order that came over HTTP.
pub(crate) async fn run(
    pipeline: &Arc<Pipeline>,
    order: Order,
    request: Request<Incoming>,
    trail: &mut Trail,
) -> Result<Reply, Denial> {
    let config = pipeline.live().snapshot().ok_or(TargetDenial::NotReady)?;
    trail.configuration(&config);
    trail.asked(Asked { method: order.name(), name: request.uri().path(), ..Asked::default() });
    let principal = pipeline.recognise(&request, &config, trail)?;
    trail.principal(&principal);
    let org = config.org(&principal.org_id).ok_or(OperateDenial::Organization)?;
    let (org, slug) = (org.id.clone(), org.slug.clone());
    let is_operator = is_operator(&principal);
    if order.is_for_operators() && !is_operator {
        return Err(OperateDenial::NotOperator.into());
    }
    let of = (!is_operator).then(|| principal.subject.clone());
    let (head, body) = request.into_parts();
    // Whoever says which organisation is meant would rather be refused than give the order in another one.
    if parameter(&head, "org").is_some_and(|meant| *meant != *slug) {
        return Err(OperateDenial::Organization.into());
    }
    let body = Limited::new(body, LARGEST).collect().await.map_err(|_too_large| OperateDenial::TooLarge { limit: LARGEST })?;
    let body = body.to_bytes();
    if order == Order::Execute {
        return stdio::execute(pipeline, principal, (head, body), &config, trail).await;
    }
    let question = order.question(&org, of, &head, &body)?;
    trail.allowed().await?;
    if let Question::Replay { .. } = question {
        return replay(pipeline, question, &principal).await;
    }
    if let Question::Logs { org, server } = &question
        && parameter(&head, "follow") == Some("true")
    {
        return follow::run(pipeline, (org, server), principal, trail).await;
    }
    let summary = ask(pipeline, &question).await.found(&question)?;
    let body = serde_json::to_vec(&summary).expect("plain data serialises");
    Ok(Reply::json(StatusCode::OK, body, Ending::of(Answered::new(Outcome::Ok, 0))))
}

/// Answers what another node asks; none where it asks for nothing that there is.
pub(crate) async fn between_nodes(pipeline: &Arc<Pipeline>, path: &str, body: &Bytes) -> serde_json::Result<Option<Body>> {
    Ok(match path {
        BETWEEN_NODES => {
            let told = answer(pipeline, &serde_json::from_slice(body)?).await;
            Some(Body::whole(serde_json::to_vec(&told).expect("plain data serialises")))
        }
        follow::BETWEEN_NODES => {
            let told = follow::answer(pipeline, &serde_json::from_slice(body)?);
            told.map(|told| Body::stream(Box::new(told)))
        }
        _ => None,
    })
}

fn is_operator(principal: &Principal) -> bool {
    principal.roles.iter().any(|role| OPERATORS.contains(&role.as_str()))
}

impl Summary {
    /// Refuses an answer about one thing that nobody has. A node that is silent may have it: then nothing is known.
    fn found(self, question: &Question) -> Result<Self, OperateDenial> {
        match question.about() {
            Some(what) if !self.told.found && self.unreachable.is_empty() => Err(OperateDenial::NotFound(what)),
            Some(what) if !self.told.found => Err(OperateDenial::Unclear { what, silent: self.unreachable }),
            Some(_) if self.told.found && self.told.reached == 0 && matches!(question, Question::RestartProcess { .. }) => {
                Err(OperateDenial::Bad(
                    "only a process that sessions share can be restarted: one of a session is started by its session, so stop it",
                ))
            }
            Some(_) | None => Ok(self),
        }
    }
}

/// Asks this node and all others.
async fn ask(pipeline: &Arc<Pipeline>, question: &Question) -> Summary {
    let mut told = answer(pipeline, question).await;
    let body = Bytes::from(serde_json::to_vec(question).expect("plain data serialises"));
    let path = format!("{}{BETWEEN_NODES}", crate::peers::ASIDE);
    let mut unreachable = Vec::new();
    for (node, answer) in pipeline.peers().ask_all(Method::POST, &path, &body).await {
        match answer.map_err(PeerError::why).and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string())) {
            Ok(more) => told.add(more),
            Err(why) => unreachable.push(Unreachable { node, why }),
        }
    }
    Summary { told, unreachable }
}

/// What a session of the caller's was told lately, as events. Sessions of others are not there.
async fn replay(pipeline: &Arc<Pipeline>, question: Question, principal: &Principal) -> Result<Reply, Denial> {
    let question = match question {
        Question::Replay { org, session, after, .. } => {
            Question::Replay { org, session, after, subject: principal.subject.clone() }
        }
        other => other,
    };
    let Summary { told, .. } = ask(pipeline, &question).await.found(&question)?;
    let mut events = BytesMut::new();
    for event in &told.events {
        sse::write_event(&mut events, EventId::parse(&event.id).as_ref(), event.message.get().as_bytes());
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(whole(StatusCode::OK, headers, events.freeze(), OK))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn summary(told: Told, silent: &[&str]) -> Summary {
        let unreachable = silent.iter().map(|node| Unreachable { node: (*node).to_owned(), why: "away".into() }).collect();
        Summary { told, unreachable }
    }

    #[test]
    fn what_no_node_has_is_missing_only_if_every_node_said_so() {
        let (org, session) = (String::from("acme"), Uuid::nil());
        let (one, all) = (Question::Ping { org: org.clone(), session }, Question::Processes { org: org.clone() });
        let refused = |silent: &[&str], question: &Question| {
            summary(Told::default(), silent).found(question).err().map(|denial| Denial::from(denial).wire())
        };
        let missing = refused(&[], &one).unwrap();
        assert_eq!((missing.status.as_u16(), &*missing.message, missing.data), (404, "No such session", None));
        let unclear = refused(&["n1"], &one).unwrap();
        let expected = r#"{"unreachable":[{"node":"n1","why":"away"}]}"#;
        assert_eq!((unclear.status.as_u16(), unclear.data.as_deref()), (503, Some(expected)));
        assert!(refused(&["n1"], &all).is_none(), "a list is good without the missing");

        let found = || Told { found: true, reached: 1, ..Told::default() };
        assert!(summary(found(), &["n1"]).found(&one).is_ok(), "nobody else can have it");
        let restart = Question::RestartProcess { org, process: session };
        assert!(summary(found(), &[]).found(&restart).is_ok());
        let of_a_session = summary(Told { reached: 0, ..found() }, &[]).found(&restart);
        assert!(matches!(of_a_session, Err(OperateDenial::Bad(_))), "{of_a_session:?}");
    }
}
