//! Who may read what is kept of calls, that it is on record, and what is not kept whatever a node says.

use mcp_gateway::proto::{
    admin::v1::{GetRequestPayloadRequest, RequestPayload, Role},
    node::v1::{Captured, PayloadKind},
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::admin::{Admin, Person, email, refused};
use crate::{ingest::record::Capture, store::captures};

async fn read(person: &Person, id: Uuid) -> Result<RequestPayload, Status> {
    let request = GetRequestPayloadRequest { request_id: id.to_string() };
    person.logs().get_request_payload(request).await.map(tonic::Response::into_inner)
}

fn captured(id: Uuid, org_id: Uuid, kind: PayloadKind, text: &str) -> Capture {
    let captured = Captured { kind: kind.into(), text: text.into(), bytes: 9, cut: true, redactions: 2, ..Captured::default() };
    Capture { key: (chrono::Utc::now(), id), org_id, captured }
}

#[tokio::test]
async fn owners_and_auditors_read_payloads_of_their_own_organisation_and_leave_a_record() {
    let (mut admin, acme, _) = Admin::with_acme().await;
    let owner = admin.member(acme, Role::Owner).await;
    let rival = admin.organization("rival").await;
    let keep =
        "UPDATE organizations SET capture_arguments = true, capture_results = slug = 'acme' WHERE slug IN ('acme', 'rival')";
    sqlx::query(keep).execute(&mut admin.sql).await.unwrap();
    let [id, theirs, unwanted, nobodys] = [(); 4].map(|()| Uuid::now_v7());
    let batch = [
        captured(id, acme, PayloadKind::Arguments, "{\"a\":1}"),
        captured(id, acme, PayloadKind::Result, "{\"b\":2}"),
        captured(id, acme, PayloadKind::Result, "another end of the same call"),
        captured(theirs, rival, PayloadKind::Arguments, "{}"),
        captured(unwanted, rival, PayloadKind::Result, "{}"),
        captured(nobodys, Uuid::now_v7(), PayloadKind::Arguments, "{}"),
    ];
    captures::insert(&mut admin.sql, &batch).await.unwrap();
    captures::insert(&mut admin.sql, &batch).await.unwrap();

    let auditor = admin.member(acme, Role::Auditor).await;
    for reader in [&owner, &auditor] {
        let payload = read(reader, id).await.unwrap();
        let (arguments, result) = (payload.arguments.unwrap(), payload.result.unwrap());
        assert_eq!((arguments.text.as_str(), result.text.as_str()), ("{\"a\":1}", "{\"b\":2}"));
        assert_eq!((result.bytes, result.cut, result.redactions), (9, true, 2));
        let (actor, action, resource, _, detail) = admin.newest_audit().await;
        assert_eq!((actor, action.as_str()), (email(reader.user), "request_log.read_payload"));
        assert_eq!(resource, format!("organizations/acme/requestLogs/{id}"));
        assert_eq!(detail["payloads"], serde_json::json!(["arguments", "result"]));
    }
    for role in [Role::Admin, Role::Operator, Role::Member] {
        let person = admin.member(acme, role).await;
        refused("role", read(&person, id).await, Code::PermissionDenied, &[]);
        assert_eq!(admin.newest_audit().await.1, "api.call", "the attempt is on record");
    }
    for (case, other) in
        [("another organisation's", theirs), ("unwanted", unwanted), ("nobody's", nobodys), ("none", Uuid::now_v7())]
    {
        refused(case, read(&owner, other).await, Code::NotFound, &[]);
    }
    let request = GetRequestPayloadRequest { request_id: "x".into() };
    refused("no id", owner.logs().get_request_payload(request).await, Code::InvalidArgument, &["request_id"]);
    let platform = admin.platform_admin().await;
    assert!(read(&platform, theirs).await.is_ok());
    assert_eq!(admin.newest_audit().await.2, format!("organizations/rival/requestLogs/{theirs}"));
}
