//! UserService, over gRPC, on a real database.

use mcp_gateway::proto::admin::v1::{
    CreateUserRequest, DeleteUserRequest, GetUserRequest, ListUsersRequest, LoginRequest, RefreshRequest, Role,
    SetPasswordRequest, TokenResponse, UpdateUserRequest, User, auth_service_client::AuthServiceClient,
};
use tonic::{Code, Status};

use super::admin::{Admin, CANARY, Person, mask, refused};
use crate::testing::Running;

fn create(email: &str, password: &str) -> CreateUserRequest {
    let user = User { email: email.into(), ..Default::default() };
    CreateUserRequest { user: Some(user), password: password.into(), ..Default::default() }
}

fn update(user: User, paths: &[&str]) -> UpdateUserRequest {
    UpdateUserRequest { user: Some(user), update_mask: mask(paths), ..Default::default() }
}

async fn created(platform: &Person, email: &str, password: &str) -> User {
    platform.users().create_user(create(email, password)).await.unwrap().into_inner()
}

async fn login(running: &Running, email: &str, password: &str) -> Result<TokenResponse, Status> {
    let request = LoginRequest { email: email.into(), password: password.into(), ..Default::default() };
    AuthServiceClient::new(running.anonymous().await).login(request).await.map(tonic::Response::into_inner)
}

/// Makes the user a member of the organisation `default`.
async fn join(admin: &mut Admin, user: &User) {
    let query =
        "INSERT INTO memberships (org_id, user_id, role) SELECT id, $1::uuid, 5 FROM organizations WHERE slug = 'default'";
    sqlx::query(query).bind(uuid::Uuid::parse_str(&user.uid).unwrap()).execute(&mut admin.sql).await.unwrap();
}

#[tokio::test]
async fn a_user_is_created_with_a_password_that_is_shown_once_and_works() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let made = created(&platform, "Ann@example.com", "").await;
    assert!(made.initial_password.len() >= 26);
    let read = platform.users().get_user(GetUserRequest { name: made.name.clone() }).await.unwrap().into_inner();
    assert_eq!(read, User { initial_password: String::new(), ..made.clone() });
    assert!(!admin.state().await.contains(&made.initial_password));
    let homeless = login(&admin.running, "ann@EXAMPLE.com", &made.initial_password).await;
    refused("no organisation yet", homeless, Code::FailedPrecondition, &[]);
    join(&mut admin, &made).await;
    let tokens = login(&admin.running, "ann@EXAMPLE.com", &made.initial_password).await.unwrap();
    assert_eq!((tokens.user, tokens.organization.as_str()), (made.name, "organizations/default"));
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_field_and_changes_nothing() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let made = created(&platform, "ann@example.com", "a password of hers").await;
    let before = admin.state().await;
    let cases: [(&str, CreateUserRequest, Code, &[&str]); 5] = [
        ("no user", CreateUserRequest::default(), Code::InvalidArgument, &["user"]),
        ("no email", create("", "a password of hers"), Code::InvalidArgument, &["user.email"]),
        ("short", create("bob@example.com", CANARY), Code::Ok, &[]),
        ("too short", create("bob", "canary"), Code::InvalidArgument, &["user.email", "password"]),
        ("taken in another case", create("ANN@example.com", "a password of hers"), Code::AlreadyExists, &[]),
    ];
    for (case, request, code, fields) in cases.into_iter().filter(|case| case.2 != Code::Ok) {
        refused(case, platform.users().create_user(request).await, code, fields);
    }
    let stale = User { display_name: "x".into(), etag: "stale".into(), ..made.clone() };
    refused("stale", platform.users().update_user(update(stale, &["display_name"])).await, Code::Aborted, &[]);
    let nobody = User { name: format!("users/{}", uuid::Uuid::nil()), ..Default::default() };
    refused("nobody", platform.users().update_user(update(nobody, &["display_name"])).await, Code::NotFound, &[]);
    let secret = update(made, &["initial_password"]);
    refused("output only", platform.users().update_user(secret).await, Code::InvalidArgument, &["update_mask"]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_the_nodes_are_told() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let made = created(&platform, "ann@example.com", "a password of hers").await;
    join(&mut admin, &made).await;
    let tokens = login(&admin.running, "ann@example.com", "a password of hers").await.unwrap();
    let before = admin.version().await;
    let disabled = User { disabled: true, ..made.clone() };
    let changed = platform.users().update_user(update(disabled, &["disabled"])).await.unwrap().into_inner();
    assert_eq!((changed.config_version, admin.version().await), (before + 1, before + 1));
    let client = admin.running.anonymous().await;
    let refresh = RefreshRequest { refresh_token: tokens.refresh_token, audience: 0 };
    refused("refresh", AuthServiceClient::new(client).refresh(refresh).await, Code::Unauthenticated, &[]);
    refused("login", login(&admin.running, "ann@example.com", "a password of hers").await, Code::Unauthenticated, &[]);
    let voids = admin.running.core.store.voids(std::time::Duration::from_secs(900)).await.unwrap();
    assert_eq!((voids.login_sessions.len(), voids.subjects.len()), (1, 1));
}

#[tokio::test]
async fn a_name_for_people_needs_no_version() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let made = created(&platform, "ann@example.com", "a password of hers").await;
    let before = admin.version().await;
    let renamed = User { display_name: "Ann".into(), ..made };
    platform.users().update_user(update(renamed, &["display_name"])).await.unwrap();
    assert_eq!(admin.version().await, before);
    assert_eq!(admin.newest_audit().await.1, "user.update");
}

#[tokio::test]
async fn one_sees_and_renames_oneself_and_no_more() {
    let (mut admin, acme, _) = Admin::with_acme().await;
    let (ann, bob) = (admin.member(acme, Role::Owner).await, admin.member(acme, Role::Member).await);
    let me = ann.users().get_user(GetUserRequest { name: "users/me".into() }).await.unwrap().into_inner();
    assert_eq!(me.uid, ann.user.to_string());
    let other = GetUserRequest { name: format!("users/{}", bob.user) };
    refused("another", ann.users().get_user(other).await, Code::NotFound, &[]);
    let renamed = User { display_name: "Ann".into(), ..me.clone() };
    ann.users().update_user(update(renamed, &["display_name"])).await.unwrap();
    let mightier = User { platform_admin: true, ..me };
    refused("mightier", ann.users().update_user(update(mightier, &["platform_admin"])).await, Code::PermissionDenied, &[]);
    let password =
        SetPasswordRequest { name: format!("users/{}", bob.user), new_password: "a new password".into(), ..Default::default() };
    refused("another's password", ann.users().set_password(password).await, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_every_session() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let made = created(&platform, "ann@example.com", "a password of hers").await;
    join(&mut admin, &made).await;
    let tokens = login(&admin.running, "ann@example.com", "a password of hers").await.unwrap();
    let ann = admin.running.anonymous().await.with_token(&tokens.access_token);
    let mut users = mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient::new(ann);
    let set = |current: &str, new: &str| SetPasswordRequest {
        name: "users/me".into(),
        current_password: current.into(),
        new_password: new.into(),
    };
    let before = admin.state().await;
    let wrong = users.set_password(set(CANARY, "another password")).await;
    refused("wrong", wrong, Code::InvalidArgument, &["current_password"]);
    refused("short", users.set_password(set("a password of hers", "short")).await, Code::InvalidArgument, &["new_password"]);
    assert_eq!(admin.state().await, before);
    users.set_password(set("a password of hers", "another password")).await.unwrap();
    let void = users.get_user(GetUserRequest { name: "users/me".into() }).await;
    refused("void", void, Code::Unauthenticated, &[]);
    refused("old", login(&admin.running, "ann@example.com", "a password of hers").await, Code::Unauthenticated, &[]);
    login(&admin.running, "ann@example.com", "another password").await.unwrap();
    assert_eq!(admin.newest_audit().await.1, "auth.login");
}

#[tokio::test]
async fn somebody_is_left_to_administer_the_installation() {
    let mut admin = Admin::start().await;
    let owner = admin.running.owner().await;
    let mut users = mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient::new(owner.clone());
    let me = users.get_user(GetUserRequest { name: "users/me".into() }).await.unwrap().into_inner();
    let before = admin.state().await;
    for (field, user) in
        [("disabled", User { disabled: true, ..me.clone() }), ("platform_admin", User { platform_admin: false, ..me.clone() })]
    {
        refused(field, users.update_user(update(user, &[field])).await, Code::FailedPrecondition, &[]);
    }
    let delete = DeleteUserRequest { name: me.name.clone(), ..Default::default() };
    refused("delete", users.delete_user(delete.clone()).await, Code::FailedPrecondition, &[]);
    assert_eq!(admin.state().await, before);
    admin.platform_admin().await;
    users.delete_user(delete).await.unwrap();
    let voids = admin.running.core.store.voids(std::time::Duration::from_secs(900)).await.unwrap();
    assert_eq!(voids.login_sessions.len(), 1, "a session outlives its user as revoked");
}

#[tokio::test]
async fn lists_are_paged() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    for n in 0..3 {
        created(&platform, &format!("user{n}@example.com"), "a password of theirs").await;
    }
    let request = ListUsersRequest { page_size: 3, ..Default::default() };
    let first = platform.users().list_users(request).await.unwrap().into_inner();
    let request = ListUsersRequest { page_size: 3, page_token: first.next_page_token.clone() };
    let second = platform.users().list_users(request).await.unwrap().into_inner();
    assert_eq!((first.users.len(), second.users.len(), second.next_page_token.as_str()), (3, 2, ""));
    let request = mcp_gateway::proto::admin::v1::ListOrganizationsRequest { page_size: 3, page_token: first.next_page_token };
    let of_another = platform.organizations().list_organizations(request).await;
    refused("a token of another list", of_another, Code::InvalidArgument, &["page_token"]);
}
