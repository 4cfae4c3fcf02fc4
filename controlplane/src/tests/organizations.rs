//! OrganizationService, over gRPC, on a real database.

use mcp_gateway::proto::{
    admin::v1::{
        CreateOrganizationRequest, DeleteOrganizationRequest, GetOrganizationRequest, ListOrganizationsRequest, Organization,
        Role, UpdateOrganizationRequest,
    },
    config::v1::{AuditFullAction, Capture},
};
use tonic::Code;

use super::admin::{Admin, Person, mask, refused};

fn create(id: &str, organization: Organization) -> CreateOrganizationRequest {
    CreateOrganizationRequest { organization_id: id.into(), organization: Some(organization), ..Default::default() }
}

fn update(organization: Organization, paths: &[&str]) -> UpdateOrganizationRequest {
    UpdateOrganizationRequest { organization: Some(organization), update_mask: mask(paths), ..Default::default() }
}

async fn read(person: &Person, name: &str) -> Organization {
    person.organizations().get_organization(GetOrganizationRequest { name: name.into() }).await.unwrap().into_inner()
}

#[tokio::test]
async fn an_organisation_is_created_read_changed_and_deleted_each_change_with_its_version() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let before = admin.version().await;
    let made = platform.organizations().create_organization(create("acme", Organization::default())).await.unwrap().into_inner();
    assert_eq!((made.name.as_str(), made.pool.as_str()), ("organizations/acme", "default"));
    assert_eq!((made.audit_full(), made.request_log_retention_days), (AuditFullAction::Block, 90));
    assert_eq!((made.config_version, admin.version().await), (before + 1, before + 1));
    assert_eq!(read(&platform, &made.name).await, made);

    let wish = Organization {
        display_name: "Acme".into(),
        allowed_origins: vec!["https://b.example".into(), "https://a.example".into()],
        ..made.clone()
    };
    let changed = platform.organizations().update_organization(update(wish, &["display_name", "allowed_origins"])).await;
    let changed = changed.unwrap().into_inner();
    assert_eq!(changed.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!((changed.display_name.as_str(), changed.config_version), ("Acme", before + 2));
    assert_ne!(changed.etag, made.etag);
    let (_, action, resource, version, detail) = admin.newest_audit().await;
    assert_eq!((action.as_str(), resource), ("organization.update", made.name.clone()));
    assert_eq!((version.unsigned_abs(), detail["fields"][1].as_str()), (before + 2, Some("allowed_origins")));

    let request = DeleteOrganizationRequest { name: made.name.clone(), etag: changed.etag, ..Default::default() };
    let gone = platform.organizations().delete_organization(request).await.unwrap().into_inner();
    assert_eq!(gone.config_version, before + 3);
    let again = platform.organizations().get_organization(GetOrganizationRequest { name: made.name }).await;
    refused("gone", again, Code::NotFound, &[]);
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_field_and_changes_nothing() {
    let mut admin = Admin::start().await;
    let acme = admin.organization("acme").await;
    let (platform, owner) = (admin.platform_admin().await, admin.member(acme, Role::Owner).await);
    let before = admin.state().await;
    let capture = |redact: &[&str], max_bytes, retention_days| {
        let redact = redact.iter().map(|rule| (*rule).to_owned()).collect();
        Organization {
            capture: Some(Capture { arguments: true, redact, max_bytes, retention_days, ..Default::default() }),
            ..Default::default()
        }
    };
    let cases: [(&str, &str, Organization, &[&str]); 9] = [
        ("sync", "a", Organization { audit_sync: 9, ..Default::default() }, &["organization.audit_sync"]),
        (
            "rule",
            "a",
            capture(&["fine", "$.a[", "a.b"], 0, 0),
            &["organization.capture.redact[1]", "organization.capture.redact[2]"],
        ),
        ("bounds", "a", capture(&[], 65_537, 366), &["organization.capture.max_bytes", "organization.capture.retention_days"]),
        ("upper case", "Acme", Organization::default(), &["organization_id"]),
        ("no id", "", Organization::default(), &["organization_id"]),
        ("pool", "a", Organization { pool: "../x".into(), ..Default::default() }, &["organization.pool"]),
        ("action", "a", Organization { audit_full: 9, ..Default::default() }, &["organization.audit_full"]),
        (
            "several",
            "a",
            Organization { display_name: "x".repeat(201), request_log_retention_days: -1, ..Default::default() },
            &["organization.display_name", "organization.request_log_retention_days"],
        ),
        (
            "origin",
            "a",
            Organization { allowed_origins: vec!["https://a.example/path".into()], ..Default::default() },
            &["organization.allowed_origins[0]"],
        ),
    ];
    for (case, id, organization, fields) in cases {
        let answer = platform.organizations().create_organization(create(id, organization)).await;
        refused(case, answer, Code::InvalidArgument, fields);
    }
    let zero = GetOrganizationRequest { name: "organizations/a\0".into() };
    refused("zero byte", platform.organizations().get_organization(zero).await, Code::InvalidArgument, &["name"]);
    let taken = platform.organizations().create_organization(create("acme", Organization::default())).await;
    refused("taken", taken, Code::AlreadyExists, &[]);
    let named = Organization { name: "organizations/acme".into(), ..Default::default() };
    let mut orgs = owner.organizations();
    let stale = Organization { display_name: "x".into(), etag: "stale".into(), ..named.clone() };
    refused("stale", orgs.update_organization(update(stale, &["display_name"])).await, Code::Aborted, &[]);
    let moved = Organization { pool: "other".into(), ..named.clone() };
    refused("pool", orgs.update_organization(update(moved, &["pool"])).await, Code::PermissionDenied, &[]);
    refused("mask", orgs.update_organization(update(named, &["uid"])).await, Code::InvalidArgument, &["update_mask"]);
    let request = DeleteOrganizationRequest { name: "organizations/acme".into(), etag: "stale".into(), ..Default::default() };
    refused("stale delete", orgs.delete_organization(request).await, Code::Aborted, &[]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn an_organisation_with_servers_is_not_deleted() {
    let (mut admin, acme, _) = Admin::with_acme().await;
    let owner = admin.member(acme, Role::Owner).await;
    let query = sqlx::query("INSERT INTO mcp_servers (id, org_id, slug, transport, endpoints) VALUES ($1, $2, 's', 1, '[]')");
    query.bind(uuid::Uuid::now_v7()).bind(acme).execute(&mut admin.sql).await.unwrap();
    let request = DeleteOrganizationRequest { name: "organizations/acme".into(), ..Default::default() };
    refused("servers", owner.organizations().delete_organization(request).await, Code::FailedPrecondition, &[]);
}

#[tokio::test]
async fn lists_are_paged_and_show_members_only_their_own() {
    let mut admin = Admin::start().await;
    for n in 0..4 {
        admin.organization(&format!("org{n}")).await;
    }
    let zoo = admin.organization("zoo").await;
    let (platform, owner) = (admin.platform_admin().await, admin.member(zoo, Role::Owner).await);
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListOrganizationsRequest { page_size: 2, page_token };
        let page = platform.organizations().list_organizations(request).await.unwrap().into_inner();
        seen.extend(page.organizations.into_iter().map(|org| org.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let names = ["default", "org0", "org1", "org2", "org3", "zoo"].map(|slug| format!("organizations/{slug}"));
    assert_eq!(seen, names);
    let own = owner.organizations().list_organizations(ListOrganizationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(own.organizations.len(), 1);

    let first = ListOrganizationsRequest { page_size: 2, ..Default::default() };
    let token = platform.organizations().list_organizations(first).await.unwrap().into_inner().next_page_token;
    for (case, page_token) in
        [("another's list", token.clone()), ("altered", token.replacen(&token[..1], "_", 1)), ("rubbish", "x".into())]
    {
        let request = ListOrganizationsRequest { page_size: 2, page_token };
        refused(case, owner.organizations().list_organizations(request).await, Code::InvalidArgument, &["page_token"]);
    }
    let negative = ListOrganizationsRequest { page_size: -1, ..Default::default() };
    refused("size", platform.organizations().list_organizations(negative).await, Code::InvalidArgument, &["page_size"]);
}
