//! Encodes the payload of a frame, an `AuditEvent`, from what its record only lends: the message itself would have to own it.

use mcp_gateway::proto::node::v1::{Captured, Decided, Ended, Gap};
use prost::Message;
use prost::encoding::{WireType, encode_key};

/// The field numbers of `AuditEvent`.
const DECIDED: u32 = 1;
const ENDED: u32 = 2;
const CAPTURED: u32 = 3;
const GAP: u32 = 4;

/// Appends the event that a call was decided.
pub(super) fn decided(decided: &Decided, payload: &mut Vec<u8>) {
    append(DECIDED, decided, payload);
}

/// Appends the event that a call ended.
pub(super) fn ended(ended: &Ended, payload: &mut Vec<u8>) {
    append(ENDED, ended, payload);
}

/// Appends what is kept of a call.
pub(super) fn captured(captured: &Captured, payload: &mut Vec<u8>) {
    append(CAPTURED, captured, payload);
}

/// Appends the event that records are missing.
pub(super) fn gap(gap: &Gap, payload: &mut Vec<u8>) {
    append(GAP, gap, payload);
}

fn append(field: u32, message: &impl Message, payload: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, payload);
    message.encode_length_delimited(payload).expect("a Vec has room");
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::node::v1::{AuditEvent, audit_event::Event};

    use super::*;

    #[test]
    fn what_is_lent_is_encoded_as_what_is_owned() {
        let call = Decided { request_id: "1".into(), roles: vec!["a".into()], config_version: 7, ..Decided::default() };
        let end = Ended { request_id: "1".into(), stage_us: vec![1, 300], ..Ended::default() };
        for (call, end) in [(call, end), (Decided::default(), Ended::default())] {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            decided(&call, &mut first);
            ended(&end, &mut second);
            assert_eq!(first, AuditEvent { event: Some(Event::Decided(call)) }.encode_to_vec());
            assert_eq!(second, AuditEvent { event: Some(Event::Ended(end)) }.encode_to_vec());
        }
        let (kept, mut third) = (Captured { text: "{}".into(), ..Captured::default() }, Vec::new());
        captured(&kept, &mut third);
        assert_eq!(third, AuditEvent { event: Some(Event::Captured(kept)) }.encode_to_vec());
    }
}
