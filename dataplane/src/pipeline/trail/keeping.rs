//! What the call's organisation has kept beside the record: arguments when the call is decided, the result before it ends. Most organisations
//! keep nothing. What may be kept of it is [`capture`]'s to say.

use std::sync::Arc;

use mcp_gateway::proto::node::v1::Captured;
use mcp_gateway::snapshot::{Capture, Org};

use super::{State, Trail};
use crate::capture;
use crate::pipeline::decode::Decoded;
use crate::transport::scan::Message;

impl Trail {
    /// Keeps the call's arguments, and remembers to keep its result, as its organisation wants it.
    pub(super) fn keep_arguments(&mut self, org: &Arc<Org>, call: &Decoded) {
        let Some(wanted) = org.capture.as_ref().filter(|_| capture::is_of_interest(&call.operation())) else { return };
        self.keeping = wanted.results.then(|| org.clone());
        if let (true, Some(arguments)) = (wanted.arguments, call.message().and_then(Message::arguments)) {
            self.keep(org, capture::arguments(wanted, arguments.as_ref()));
        }
    }

    /// What of the call's result is to be kept; none: nothing.
    pub fn keeping(&self) -> Option<&Capture> {
        self.keeping.as_ref()?.capture.as_ref()
    }

    /// Keeps the message that answers the call, or its beginning, as far as its organisation wants it. Of several only the first.
    pub fn keep_result(&mut self, message: &[u8]) {
        let Some(org) = self.keeping.take() else { return };
        if let Some(result) = org.capture.as_ref().and_then(|wanted| capture::result(wanted, message)) {
            self.keep(&org, result);
        }
    }

    fn keep(&self, org: &Org, captured: Captured) {
        let State::Decided(Some(recorded)) = &self.state else { return };
        let (request_id, org_id) = (self.request_id.to_string(), org.id.to_string());
        self.recorder.spool.append_captured(recorded, &mut Captured { request_id, org_id, ..captured });
    }
}
