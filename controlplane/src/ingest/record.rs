//! Frames to rows: both frames of a call fold into one, and what a database cannot hold is made to fit.
//! Pure. Nodes are not trusted with lengths, numbers or text; a frame that cannot be read is counted, never a reason to stop.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use mcp_gateway::{
    proto::node::v1::{AuditEvent, AuditFrame, Captured, Decided, Decision, Ended, Gap, PayloadKind, audit_event::Event},
    snapshot::capture::MOST_BYTES,
};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Names and addresses; longer ones are cut.
const SHORT: usize = 256;
/// Targets and reasons; longer ones are cut.
const LONG: usize = 2048;
/// Elements of a list of roles, groups or stages.
const ELEMENTS: usize = 64;

/// What names a row: the request id, and when it was decided.
pub type Key = (DateTime<Utc>, Uuid);

/// A decided call, with its end if that is known already.
#[derive(Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    /// Of the decided frame.
    pub seq: i64,
    pub decided: Decided,
    pub org_id: Option<Uuid>,
    pub server_id: Option<Uuid>,
    pub end: Option<End>,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
pub struct End {
    /// Of the ended frame.
    pub seq: i64,
    pub ended_at: DateTime<Utc>,
    pub ended: Ended,
}

/// What is kept of a call beside its row.
#[derive(Debug, PartialEq)]
pub struct Capture {
    pub key: Key,
    pub org_id: Uuid,
    pub captured: Captured,
}

/// A batch of frames, folded.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    pub rows: Vec<Row>,
    pub captures: Vec<Capture>,
    /// Ends of calls whose decided frame is not in this batch.
    pub ends: Vec<(Key, End)>,
    /// Records that nodes left out.
    pub missing: Vec<Missing>,
    /// Frames that could not be read.
    pub unreadable: u64,
}

/// Records that a node left out, of one organisation or of those that it does not tell apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    pub id: Uuid,
    pub org: Option<Uuid>,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub access: i64,
    pub audit: i64,
}

/// Folds frames in order.
pub fn fold(frames: &[AuditFrame]) -> Batch {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    let mut ends: BTreeMap<Key, End> = BTreeMap::new();
    let (mut captures, mut missing, mut unreadable) = (Vec::new(), Vec::new(), 0);
    for frame in frames {
        match AuditEvent::decode(frame.payload.clone()).ok().and_then(|event| event.event) {
            Some(Event::Decided(decided)) => match row(frame.seq, decided) {
                // A second decided frame under one id is a broken node; the first stands.
                Some(row) => drop(rows.entry(row.key).or_insert(row)),
                None => unreadable += 1,
            },
            Some(Event::Ended(ended)) => match end(frame.seq, ended) {
                Some((key, end)) => match rows.entry(key) {
                    Entry::Occupied(mut row) => row.get_mut().end = Some(end),
                    Entry::Vacant(_) => drop(ends.insert(key, end)),
                },
                None => unreadable += 1,
            },
            Some(Event::Captured(captured)) => match capture(captured) {
                Some(capture) => captures.push(capture),
                None => unreadable += 1,
            },
            Some(Event::Gap(said)) => match gap(&said) {
                Some(parts) => missing.extend(parts),
                None => unreadable += 1,
            },
            None => unreadable += 1,
        }
    }
    Batch { rows: rows.into_values().collect(), captures, ends: ends.into_iter().collect(), missing, unreadable }
}

fn row(seq: u64, mut decided: Decided) -> Option<Row> {
    let key = key(&decided.request_id, decided.decided_at_us)?;
    if !matches!(decided.decision(), Decision::Allow | Decision::Deny) {
        return None;
    }
    for text in [
        &mut decided.server,
        &mut decided.subject,
        &mut decided.credential_id,
        &mut decided.client_address,
        &mut decided.method,
        &mut decided.client_protocol_version,
        &mut decided.client_transport,
        &mut decided.client_era,
        &mut decided.server_transport,
        &mut decided.server_era,
        &mut decided.rule_id,
        &mut decided.rule,
        &mut decided.mode,
        &mut decided.session,
        &mut decided.shadow_rule_id,
    ] {
        fit(text, SHORT);
    }
    fit(&mut decided.name, LONG);
    fit(&mut decided.reason, LONG);
    for list in [&mut decided.roles, &mut decided.groups] {
        list.truncate(ELEMENTS);
        list.iter_mut().for_each(|text| fit(text, SHORT));
    }
    for digest in [&mut decided.org_digest, &mut decided.arguments_digest] {
        *digest = digest.slice(..digest.len().min(64));
    }
    let (org_id, server_id) = (id(&decided.org_id), id(&decided.server_id));
    Some(Row { key, seq: number(seq), decided, org_id, server_id, end: None })
}

fn end(seq: u64, mut ended: Ended) -> Option<(Key, End)> {
    let key = key(&ended.request_id, ended.decided_at_us)?;
    let ended_at = DateTime::from_timestamp_micros(ended.ended_at_us).filter(is_storable)?;
    fit(&mut ended.upstream, LONG);
    ended.stage_us.truncate(ELEMENTS);
    Some((key, End { seq: number(seq), ended_at, ended }))
}

fn capture(mut captured: Captured) -> Option<Capture> {
    let key = key(&captured.request_id, captured.decided_at_us)?;
    let org_id = id(&captured.org_id)?;
    match captured.kind() {
        PayloadKind::Unspecified => return None,
        PayloadKind::Arguments | PayloadKind::Result => {}
    }
    let most = MOST_BYTES as usize;
    captured.cut |= captured.text.len() > most;
    captured.text.truncate(captured.text.floor_char_boundary(most));
    if captured.text.contains('\0') {
        captured.text = captured.text.replace('\0', "\u{fffd}");
    }
    Some(Capture { key, org_id, captured })
}

/// A gap by organisation; what it does not tell apart is nobody's.
fn gap(said: &Gap) -> Option<Vec<Missing>> {
    let gap_id = id(&said.gap_id)?;
    let from = DateTime::from_timestamp_micros(said.from_us).filter(is_storable)?;
    let until = DateTime::from_timestamp_micros(said.until_us).filter(is_storable)?;
    let (mut access, mut audit) = (said.access, said.audit);
    let mut parts = Vec::new();
    for of in said.orgs.iter().take(ELEMENTS) {
        let Some(org) = id(&of.org_id) else { continue };
        access = access.saturating_sub(of.access);
        audit = audit.saturating_sub(of.audit);
        parts.push((Some(org), of.access, of.audit));
    }
    parts.push((None, access, audit));
    let part = |(org, access, audit): (Option<Uuid>, u64, u64)| {
        let hash = Sha256::new().chain_update(gap_id).chain_update(org.unwrap_or_default()).finalize();
        let row = Uuid::from_slice(&hash[..16]).ok()?;
        Some(Missing { id: row, org, from, until, access: number(access), audit: number(audit) })
    };
    Some(parts.into_iter().filter(|(_, access, audit)| (*access, *audit) != (0, 0)).filter_map(part).collect())
}

fn key(request_id: &str, decided_at_us: i64) -> Option<Key> {
    Some((DateTime::from_timestamp_micros(decided_at_us).filter(is_storable)?, id(request_id)?))
}

/// Within what Postgres can hold and what no clock that ever worked can say.
fn is_storable(moment: &DateTime<Utc>) -> bool {
    (0..=253_402_300_799).contains(&moment.timestamp())
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

/// Numbers that do not fit the column become the largest that does.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Cuts at a character, and replaces what could end a line of whatever shows it; nodes have escaped what they let in.
fn fit(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, "\u{fffd}");
    }
}

/// A Postgres array as text, for casts: there are no arrays of arrays to unnest.
pub fn array_literal<T: AsRef<str>>(elements: &[T]) -> String {
    let quoted: Vec<_> =
        elements.iter().map(|element| format!("\"{}\"", element.as_ref().replace('\\', r"\\").replace('"', "\\\""))).collect();
    format!("{{{}}}", quoted.join(","))
}

/// For the columns of type `bytea[]`.
pub fn octets(bytes: &Bytes) -> Vec<u8> {
    bytes.to_vec()
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::node::v1::OrgGap;

    use super::*;

    const ID: &str = "019a8f00-0000-7000-8000-000000000001";

    fn decided() -> Decided {
        Decided { request_id: ID.into(), decided_at_us: 1_700_000_000_000_001, decision: 1, ..Decided::default() }
    }

    fn ended() -> Ended {
        Ended {
            request_id: ID.into(),
            decided_at_us: 1_700_000_000_000_001,
            ended_at_us: 1_700_000_000_500_000,
            status: 200,
            ..Ended::default()
        }
    }

    fn frame(seq: u64, event: Event) -> AuditFrame {
        AuditFrame { seq, previous_hash: Bytes::new(), payload: AuditEvent { event: Some(event) }.encode_to_vec().into() }
    }

    #[test]
    fn both_frames_of_a_call_fold_into_one_row() {
        let batch = fold(&[frame(1, Event::Decided(decided())), frame(2, Event::Ended(ended()))]);
        assert_eq!((batch.rows.len(), batch.ends.len(), batch.unreadable), (1, 0, 0));
        assert_eq!(batch.rows[0].end.as_ref().unwrap().ended.status, 200);
        assert_eq!(batch.rows[0].seq, 1);
    }

    #[test]
    fn an_end_without_its_beginning_stands_alone() {
        let batch = fold(&[frame(2, Event::Ended(ended()))]);
        assert_eq!((batch.rows.len(), batch.ends.len(), batch.unreadable), (0, 1, 0));
    }

    #[test]
    fn the_first_of_two_decided_frames_under_one_id_stands() {
        let second = Decided { method: "second".into(), ..decided() };
        let batch = fold(&[frame(1, Event::Decided(decided())), frame(2, Event::Decided(second))]);
        assert_eq!(batch.rows.len(), 1);
        assert_eq!(batch.rows[0].decided.method, "");
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let rubbish = AuditFrame { payload: vec![0xff].into(), ..AuditFrame::default() };
        let empty = AuditFrame::default();
        let frames = [
            rubbish,
            empty,
            frame(1, Event::Decided(Decided { request_id: "x".into(), ..decided() })),
            frame(1, Event::Decided(Decided { decision: 0, ..decided() })),
            frame(1, Event::Decided(Decided { decision: 99, ..decided() })),
            frame(1, Event::Decided(Decided { decided_at_us: i64::MAX, ..decided() })),
            frame(1, Event::Ended(Ended { ended_at_us: i64::MIN, ..ended() })),
        ];
        let batch = fold(&frames);
        assert_eq!((batch.rows.len(), batch.ends.len(), batch.unreadable), (0, 0, 7));
    }

    #[test]
    fn what_is_kept_beside_a_row_is_made_to_fit_or_is_unreadable() {
        let good = Captured {
            request_id: ID.into(),
            decided_at_us: 1_700_000_000_000_001,
            org_id: ID.into(),
            kind: PayloadKind::Result.into(),
            text: "é\0".repeat(MOST_BYTES as usize),
            ..Captured::default()
        };
        let bad = [
            Captured { kind: 0, ..good.clone() },
            Captured { kind: 9, ..good.clone() },
            Captured { org_id: "x".into(), ..good.clone() },
            Captured { request_id: String::new(), ..good.clone() },
        ];
        let frames: Vec<_> = bad.into_iter().chain([good]).map(|it| frame(1, Event::Captured(it))).collect();
        let batch = fold(&frames);
        assert_eq!((batch.captures.len(), batch.unreadable), (1, 4));
        let kept = &batch.captures[0].captured;
        assert!(kept.cut && !kept.text.contains('\0') && kept.text.len() <= 2 * MOST_BYTES as usize, "{}", kept.text.len());
    }

    #[test]
    fn a_gap_is_one_row_for_each_organisation_and_one_for_the_rest() {
        let of = |org_id: &str, access| OrgGap { org_id: org_id.into(), access, audit: 0 };
        let (from_us, until_us) = (1_700_000_000_000_000, 1_700_000_001_000_000);
        let said = Gap { from_us, until_us, access: 10, audit: 2, orgs: vec![of(ID, 7), of("no id", 1)], gap_id: ID.into() };
        let batch = fold(&[frame(1, Event::Gap(said.clone())), frame(2, Event::Gap(said.clone()))]);
        let found: Vec<_> = batch.missing[..2].iter().map(|it| (it.org, it.access, it.audit)).collect();
        assert_eq!(found, [(id(ID), 7, 0), (None, 3, 2)]);
        assert_eq!(batch.missing[..2], batch.missing[2..], "the same gap is the same rows");
        let bad = [Gap { gap_id: String::new(), ..said.clone() }, Gap { from_us: i64::MIN, ..said }];
        let batch = fold(&bad.map(|gap| frame(1, Event::Gap(gap))));
        assert_eq!((batch.missing.len(), batch.unreadable), (0, 2));
    }

    #[test]
    fn text_is_made_to_fit() {
        let hostile = Decided {
            name: "\0\né".repeat(LONG),
            subject: "é".repeat(SHORT),
            roles: vec!["x\0".into(); 1000],
            org_id: "not an id".into(),
            org_digest: vec![1; 1000].into(),
            ..decided()
        };
        let batch = fold(&[frame(u64::MAX, Event::Decided(hostile))]);
        let row = &batch.rows[0];
        assert!(row.decided.name.len() <= 2 * LONG && !row.decided.name.contains(char::is_control));
        assert_eq!(row.decided.subject.len(), SHORT);
        assert_eq!((row.decided.roles.len(), row.decided.roles[0].as_str()), (ELEMENTS, "x\u{fffd}"));
        assert_eq!((row.org_id, row.decided.org_digest.len(), row.seq), (None, 64, i64::MAX));
    }

    #[test]
    fn array_literals_quote_what_postgres_would_read() {
        assert_eq!(array_literal::<&str>(&[]), "{}");
        assert_eq!(array_literal(&["a", r#"b"\,{}"#, ""]), r#"{"a","b\"\\,{}",""}"#);
    }
}
