//! One frame as it lies in a segment: `u32 len | u32 crc32c | u8 format | u64 seq | 32 bytes previous_hash | payload`, little endian.
//! `len` counts what follows the checksum, the checksum covers it. Pure; the spool writes frames, the shipper reads them.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use mcp_gateway::proto::node::v1::AuditFrame;
use prost::Message;

/// SHA-256 over the previous frame's previous hash and payload; zeros before a lane's first frame.
pub type Chain = [u8; 32];

/// The only format there is so far.
const FORMAT: u8 = 1;
/// Length and checksum.
const PREFIX: usize = 8;
/// Format, sequence number and previous hash.
const FIXED: usize = 1 + 8 + 32;
/// Largest payload accepted, in bytes; a record is about 600.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// What stands at one place of a segment.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// A good frame and how many bytes it takes.
    Frame(AuditFrame, usize),
    /// The segment ends exactly here.
    End,
    /// The segment ends inside a frame; `needed` bytes from here would tell.
    Cut { needed: usize },
    /// This is not a frame.
    Damaged(&'static str),
}

/// How many bytes a payload takes on disk.
#[must_use]
pub fn size(payload_bytes: usize) -> usize {
    PREFIX + FIXED + payload_bytes
}

/// Appends the frame of an encoded payload to `buffer`.
pub fn encode(seq: u64, previous: &Chain, payload: &[u8], buffer: &mut Vec<u8>) {
    let length = u32::try_from(FIXED + payload.len()).expect("payloads are at most 256 kB");
    let start = buffer.len();
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.push(FORMAT);
    buffer.extend_from_slice(&seq.to_le_bytes());
    buffer.extend_from_slice(previous);
    buffer.extend_from_slice(payload);
    let crc = crc(&buffer[start + PREFIX..]);
    buffer[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Found {
    if bytes.is_empty() {
        return Found::End;
    }
    let (Some(length), Some(expected)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
        return Found::Cut { needed: PREFIX };
    };
    let length = length as usize;
    if !(FIXED..=FIXED + MAX_PAYLOAD).contains(&length) {
        return Found::Damaged("the length is impossible");
    }
    let Some(body) = bytes.get(PREFIX..PREFIX + length) else {
        return Found::Cut { needed: PREFIX + length };
    };
    if crc(body) != expected {
        return Found::Damaged("the checksum does not fit");
    }
    if body[0] != FORMAT {
        return Found::Damaged("the format is unknown");
    }
    let seq = u64::from_le_bytes(body[1..9].try_into().expect("eight bytes"));
    let frame = AuditFrame {
        seq,
        previous_hash: Bytes::copy_from_slice(&body[9..FIXED]),
        payload: Bytes::copy_from_slice(&body[FIXED..]),
    };
    Found::Frame(frame, PREFIX + length)
}

/// The first good frame after the start of `bytes`, wherever it begins: tells a torn tail (none) from damage (there is more behind it).
#[must_use]
pub fn resume(bytes: &[u8], after_seq: u64) -> Option<usize> {
    (1..bytes.len().saturating_sub(PREFIX + FIXED - 1)).find(|at| {
        let rest = &bytes[*at..];
        // Cheap tests first: the checksum is only computed where a frame could begin.
        rest[PREFIX] == FORMAT && matches!(decode(rest), Found::Frame(frame, _) if frame.seq > after_seq)
    })
}

/// The hash that the frame after this one carries.
#[must_use]
pub fn chain(previous: &[u8], payload: &[u8]) -> Chain {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(payload);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// How many bytes a frame adds to a message on the wire, tag and length included.
#[must_use]
pub fn wire_size(frame: &AuditFrame) -> usize {
    frame.encoded_len() + 4
}

fn crc(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("CRC-32C has 32 bits")
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(1, &[0; 32], b"one", &mut bytes);
        encode(2, &chain(&[0; 32], b"one"), b"two", &mut bytes);
        bytes
    }

    #[test]
    fn a_frame_reads_back_and_names_its_predecessor() {
        let bytes = two_frames();
        let Found::Frame(first, used) = decode(&bytes) else { panic!("no frame") };
        assert_eq!((first.seq, used, &first.payload[..]), (1, size(3), &b"one"[..]));
        let Found::Frame(second, _) = decode(&bytes[used..]) else { panic!("no frame") };
        assert_eq!(second.previous_hash, chain(&first.previous_hash, &first.payload)[..]);
        assert_eq!(decode(&[]), Found::End);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = two_frames();
        for bit in 0..size(3) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&flipped), Found::Frame(..)), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = &two_frames()[..size(3)];
        for length in 1..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Found::Cut { needed } if needed > length), "length {length}");
        }
    }

    #[test]
    fn a_good_frame_behind_damage_is_found_and_a_torn_tail_has_none() {
        let bytes = two_frames();
        assert_eq!(resume(&bytes, 1), Some(size(3)));
        assert_eq!(resume(&bytes[..bytes.len() - 1], 1), None);
        assert_eq!(resume(&[0; 200], 0), None);
    }
}
