//! What is kept of a request beside its record. Whoever reads it is on record before the answer leaves.

use mcp_gateway::proto::{
    admin::v1::{CapturedPayload, RequestPayload},
    node::v1::PayloadKind,
};
use serde_json::json;
use sqlx::Connection as _;
use uuid::Uuid;

use super::super::{Api, aip, caller::Caller, error::Error};
use crate::store::{
    audit::{self, Entry},
    captures,
};

/// The payload of a request of the caller's organisation, or of any for platform administrators.
pub async fn read(api: &Api, caller: &Caller, id: Uuid) -> Result<RequestPayload, Error> {
    let own = caller.org.as_ref().map(|org| org.id).unwrap_or_default();
    let mut connection = api.core.store.connection().await?;
    let mut tx = connection.begin().await.map_err(crate::store::Error::from)?;
    let found = captures::of(&mut tx, id, (!caller.platform_admin).then_some(own)).await?;
    let Some(first) = found.first() else {
        return Err(Error::NotFound(format!("a payload of the request {id}: nothing of it is kept, any more or yet")));
    };
    let name = format!("organizations/{}/requestLogs/{id}", first.org_slug);
    let kinds: Vec<&str> = found.iter().map(|row| if is(row, PayloadKind::Arguments) { "arguments" } else { "result" }).collect();
    let entry = Entry {
        org_id: Some(first.org_id),
        org_slug: first.org_slug.clone(),
        actor: &caller.actor(),
        action: "request_log.read_payload",
        resource: &name,
        outcome: "ok",
        config_version: 0,
        detail: &json!({ "payloads": kinds }),
    };
    audit::insert(&mut tx, &entry, api.core.store.signer()).await?;
    tx.commit().await.map_err(crate::store::Error::from)?;
    let payload = |kind| found.iter().find(|row| is(row, kind)).map(wire);
    Ok(RequestPayload {
        request_id: id.to_string(),
        name,
        decide_time: Some(aip::timestamp(first.decided_at)),
        arguments: payload(PayloadKind::Arguments),
        result: payload(PayloadKind::Result),
    })
}

fn is(row: &captures::CapturedPayload, kind: PayloadKind) -> bool {
    i32::from(row.kind) == i32::from(kind)
}

fn wire(row: &captures::CapturedPayload) -> CapturedPayload {
    CapturedPayload {
        text: row.text.clone(),
        bytes: row.bytes.unsigned_abs(),
        cut: row.cut,
        redactions: row.redactions.unsigned_abs(),
    }
}
