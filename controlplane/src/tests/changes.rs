//! The one transaction per change: repetitions, checks without changes, the order of versions; the history that it leaves.

use mcp_gateway::proto::admin::v1::{
    CreateOrganizationRequest, CreateUserRequest, GetConfigVersionRequest, GetOrganizationRequest, ListConfigVersionsRequest,
    Organization, Role, UpdateOrganizationRequest, User,
};
use tonic::Code;
use uuid::Uuid;

use super::admin::{Admin, mask, refused};

fn create(id: &str, request_id: &str, validate_only: bool) -> CreateOrganizationRequest {
    CreateOrganizationRequest { organization_id: id.into(), organization: None, validate_only, request_id: request_id.into() }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_changes_nothing_more() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let id = Uuid::now_v7().to_string();
    let first = platform.organizations().create_organization(create("acme", &id, false)).await.unwrap().into_inner();
    let after = admin.state().await;
    let second = platform.organizations().create_organization(create("acme", &id, false)).await.unwrap().into_inner();
    assert_eq!((second, admin.state().await), (first, after));
    let other = platform.organizations().create_organization(create("another", &id, false)).await;
    refused("another request", other, Code::InvalidArgument, &["request_id"]);
    let rubbish = platform.organizations().create_organization(create("another", "x", false)).await;
    refused("rubbish", rubbish, Code::InvalidArgument, &["request_id"]);
    // Somebody else's id is somebody else's.
    let stranger = admin.platform_admin().await;
    let taken = stranger.organizations().create_organization(create("acme", &id, false)).await;
    refused("of another caller", taken, Code::AlreadyExists, &[]);
}

#[tokio::test]
async fn a_repeated_request_gets_its_secret_again_though_no_row_holds_it() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let user = Some(User { email: "ann@example.com".into(), ..Default::default() });
    let request = CreateUserRequest { user, request_id: Uuid::now_v7().to_string(), ..Default::default() };
    let first = platform.users().create_user(request.clone()).await.unwrap().into_inner();
    let second = platform.users().create_user(request).await.unwrap().into_inner();
    assert_eq!(second, first);
    let secret = hex::encode(&first.initial_password);
    let state = admin.state().await;
    assert!(!first.initial_password.is_empty() && !state.contains(&secret) && !state.contains(&first.initial_password));
}

#[tokio::test]
async fn two_copies_of_one_request_at_once_make_one_change() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let id = Uuid::now_v7().to_string();
    let before = admin.version().await;
    let ask = |mut client: mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient<_>| {
        let request = create("acme", &id, false);
        async move { client.create_organization(request).await.map(tonic::Response::into_inner) }
    };
    let (a, b) = tokio::join!(ask(platform.organizations()), ask(platform.organizations()));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(admin.version().await, before + 1);
}

#[tokio::test]
async fn checks_alone_leave_no_trace_and_find_what_a_change_would_find() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let before = admin.state().await;
    let id = Uuid::now_v7().to_string();
    let would = platform.organizations().create_organization(create("acme", &id, true)).await.unwrap().into_inner();
    assert_eq!((would.name.as_str(), would.config_version), ("organizations/acme", 0));
    let taken = platform.organizations().create_organization(create("default", "", true)).await;
    refused("taken", taken, Code::AlreadyExists, &[]);
    let user = Some(User { email: "ann@example.com".into(), ..Default::default() });
    let user = platform.users().create_user(CreateUserRequest { user, validate_only: true, ..Default::default() }).await.unwrap();
    assert_eq!(user.into_inner().initial_password, "");
    assert_eq!(admin.state().await, before);
    platform.organizations().create_organization(create("acme", &id, false)).await.unwrap();
}

#[tokio::test]
async fn changes_at_once_get_versions_without_gaps_and_one_of_two_with_one_etag_wins() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let before = admin.version().await;
    let changes = (0..12).map(|n| {
        let mut client = platform.organizations();
        async move { client.create_organization(create(&format!("org{n}"), "", false)).await.unwrap().into_inner().config_version }
    });
    let mut versions = futures_util::future::join_all(changes).await;
    versions.sort();
    assert_eq!(versions, (before + 1..=before + 12).collect::<Vec<_>>());
    let get = GetOrganizationRequest { name: "organizations/org0".into() };
    let read: Organization = platform.organizations().get_organization(get).await.unwrap().into_inner();
    let rename = |to: &str| {
        let organization = Some(Organization { display_name: to.into(), ..read.clone() });
        let request = UpdateOrganizationRequest { organization, update_mask: mask(&["display_name"]), ..Default::default() };
        let mut client = platform.organizations();
        async move { client.update_organization(request).await }
    };
    let (a, b) = tokio::join!(rename("a"), rename("b"));
    let lost: Vec<Code> = [a, b].into_iter().filter_map(Result::err).map(|status| status.code()).collect();
    assert_eq!(lost, [Code::Aborted]);
}

#[tokio::test]
async fn the_history_names_every_version_and_shows_each_organisation_only_its_own() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let platform = admin.platform_admin().await;
    let other = admin.organization("other").await;
    let stranger = admin.member(other, Role::Auditor).await;
    let rename = |to: &str| UpdateOrganizationRequest {
        organization: Some(Organization { name: "organizations/acme".into(), display_name: to.into(), ..Default::default() }),
        ..Default::default()
    };
    let mut versions = Vec::new();
    for to in ["a", "b", "c"] {
        versions.push(platform.organizations().update_organization(rename(to)).await.unwrap().into_inner().config_version);
    }
    let list = |page_size, page_token: String, organization: &str| ListConfigVersionsRequest {
        page_size,
        page_token,
        organization: organization.into(),
    };
    let first = person.config_versions().list_config_versions(list(2, String::new(), "")).await.unwrap().into_inner();
    let second =
        person.config_versions().list_config_versions(list(2, first.next_page_token.clone(), "")).await.unwrap().into_inner();
    let seen: Vec<u64> = first.config_versions.iter().chain(&second.config_versions).map(|v| v.version).collect();
    versions.reverse();
    assert_eq!(seen, versions);
    let newest = &first.config_versions[0];
    assert_eq!((newest.changes[0].kind.as_str(), newest.changes[0].operation.as_str()), ("organization", "update"));
    assert_eq!(newest.actor, super::admin::email(platform.user));

    let get = GetConfigVersionRequest { name: newest.name.clone() };
    let read = person.config_versions().get_config_version(get.clone()).await.unwrap().into_inner();
    assert_eq!(&read, newest);
    refused("a stranger's", stranger.config_versions().get_config_version(get).await, Code::NotFound, &[]);
    let none = stranger.config_versions().list_config_versions(list(0, String::new(), "")).await.unwrap().into_inner();
    assert_eq!(none.config_versions, []);
    for name in ["configVersions/999999", "configVersions/x", "configVersions/-1", "configVersions/99999999999999999999"] {
        let get = GetConfigVersionRequest { name: name.into() };
        refused(name, platform.config_versions().get_config_version(get).await, Code::NotFound, &[]);
    }
    let foreign = list(2, first.next_page_token, "");
    refused(
        "another's page",
        platform.config_versions().list_config_versions(foreign).await,
        Code::InvalidArgument,
        &["page_token"],
    );
    let all = platform.config_versions().list_config_versions(list(0, String::new(), "organizations/acme")).await.unwrap();
    assert_eq!(all.into_inner().config_versions.len(), 3);
    let _ = acme;
}
