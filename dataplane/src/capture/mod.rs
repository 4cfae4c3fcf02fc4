//! What is kept of a call beside its record, where the call's organisation asked for it: arguments and results, without what looks like a
//! secret and no more than wanted. Nothing of it is written anywhere before it has been through here.
//!
//! Owns what is taken out; where it goes is the trail's and the spool's. Costs calls of other organisations one look at an `Option`.

pub mod patterns;
mod walk;

use mcp_gateway::proto::node::v1::{Captured, PayloadKind};
use mcp_gateway::snapshot::Capture;

use crate::transport::Operation;
use walk::Kept;

/// Of an answer that is not held, so much is looked at, in lengths of what may be kept.
const LOOK_AT: usize = 2;

/// Whether anything is kept of such a call: lists and the like say nothing about what was done.
pub fn is_of_interest(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::CallTool(_) | Operation::GetPrompt(_) | Operation::ReadResource(_) => true,
        Operation::SubscribeResource(_)
        | Operation::Listen
        | Operation::Initialize
        | Operation::Discover
        | Operation::Ping
        | Operation::List
        | Operation::Complete(_)
        | Operation::Notify
        | Operation::Respond
        | Operation::Other => false,
    }
}

/// What is kept of a call's arguments, as the client wrote them.
pub fn arguments(capture: &Capture, json: &[u8]) -> Captured {
    captured(PayloadKind::Arguments, walk::keep(json, capture), json.len())
}

/// What is kept of the message that answers a call, or of its beginning; none: there is neither result nor error in it.
pub fn result(capture: &Capture, message: &[u8]) -> Option<Captured> {
    let json = walk::member(message, &["result", "error"], capture)?;
    Some(captured(PayloadKind::Result, walk::keep(json, capture), json.len()))
}

/// How much of an answer is looked at that is not held.
pub fn look_at(capture: &Capture) -> usize {
    capture.max_bytes * LOOK_AT
}

fn captured(kind: PayloadKind, kept: Kept, bytes: usize) -> Captured {
    let Kept { text, cut, redactions } = kept;
    Captured { kind: kind.into(), text, bytes: bytes as u64, cut, redactions, ..Captured::default() }
}
