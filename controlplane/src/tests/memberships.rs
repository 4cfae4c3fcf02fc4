//! MembershipService, over gRPC, on a real database.

use mcp_gateway::proto::admin::v1::{
    CreateMembershipRequest, DeleteMembershipRequest, GetMembershipRequest, GetServerRequest, ListMembershipsRequest, Membership,
    Role, UpdateMembershipRequest,
};
use tonic::Code;
use uuid::Uuid;

use super::admin::{Admin, email, mask, refused};

const ACME: &str = "organizations/acme";

fn create(user: Uuid, role: Role) -> CreateMembershipRequest {
    let membership = Membership { user: format!("users/{user}"), role: role.into(), ..Default::default() };
    CreateMembershipRequest { parent: ACME.into(), membership: Some(membership), ..Default::default() }
}

fn update(membership: Membership, paths: &[&str]) -> UpdateMembershipRequest {
    UpdateMembershipRequest { membership: Some(membership), update_mask: mask(paths), ..Default::default() }
}

fn name(user: Uuid) -> String {
    format!("{ACME}/memberships/{user}")
}

#[tokio::test]
async fn a_membership_is_created_read_changed_and_deleted_and_what_it_gave_is_void() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let user = admin.user(false).await;
    let before = admin.version().await;
    let made = person.memberships().create_membership(create(user, Role::Member)).await.unwrap().into_inner();
    assert_eq!((made.name.clone(), made.email.clone(), made.role()), (name(user), email(user), Role::Member));
    assert_eq!(admin.version().await, before, "nodes know of members by tokens and keys, and there are none yet");
    let read = person.memberships().get_membership(GetMembershipRequest { name: name(user) }).await.unwrap().into_inner();
    assert_eq!(read, made);

    let member = admin.member(acme, Role::Member).await;
    let nothing = GetServerRequest { name: format!("{ACME}/servers/none") };
    refused("is let in", member.servers().get_server(nothing.clone()).await, Code::NotFound, &[]);
    let wish = Membership {
        name: name(member.user),
        policy_roles: vec!["engineer".into()],
        groups: vec!["b".into(), "a".into()],
        ..Default::default()
    };
    let changed = person.memberships().update_membership(update(wish, &["policy_roles", "groups"])).await.unwrap().into_inner();
    assert_eq!((changed.groups.join(","), changed.config_version), ("a,b".into(), before + 1));
    refused("void", member.servers().get_server(nothing).await, Code::Unauthenticated, &[]);

    let request = DeleteMembershipRequest { name: name(user), etag: made.etag, ..Default::default() };
    let gone = person.memberships().delete_membership(request).await.unwrap().into_inner();
    assert_eq!(gone.config_version, before + 2);
    let again = person.memberships().get_membership(GetMembershipRequest { name: name(user) }).await;
    refused("gone", again, Code::NotFound, &[]);
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_field_and_changes_nothing() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let member = admin.member(acme, Role::Member).await;
    let user = admin.user(false).await;
    let before = admin.state().await;
    let with = |edit: fn(&mut Membership)| {
        let mut request = create(user, Role::Member);
        edit(request.membership.as_mut().unwrap());
        request
    };
    let cases: [(&str, CreateMembershipRequest, Code, &[&str]); 7] = [
        ("nobody", create(Uuid::nil(), Role::Member), Code::InvalidArgument, &["membership.user"]),
        ("no user", with(|m| m.user = "x".into()), Code::InvalidArgument, &["membership.user"]),
        ("no role", create(user, Role::Unspecified), Code::InvalidArgument, &["membership.role"]),
        ("unknown role", with(|m| m.role = 99), Code::InvalidArgument, &["membership.role"]),
        ("reserved", with(|m| m.policy_roles = vec!["owner".into()]), Code::InvalidArgument, &["membership.policy_roles"]),
        ("group", with(|m| m.groups = vec!["a".into(), String::new()]), Code::InvalidArgument, &["membership.groups[1]"]),
        ("taken", create(member.user, Role::Member), Code::AlreadyExists, &[]),
    ];
    for (case, request, code, fields) in cases {
        refused(case, person.memberships().create_membership(request).await, code, fields);
    }
    let stale = Membership { name: name(member.user), role: Role::Auditor.into(), etag: "stale".into(), ..Default::default() };
    refused("stale", person.memberships().update_membership(update(stale, &["role"])).await, Code::Aborted, &[]);
    let moved = update(Membership { name: name(member.user), ..Default::default() }, &["user"]);
    refused("cannot change", person.memberships().update_membership(moved).await, Code::InvalidArgument, &["update_mask"]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn only_owners_make_touch_and_remove_owners_and_one_is_always_left() {
    let (mut admin, acme, administrator) = Admin::with_acme().await;
    let (owner, user) = (admin.member(acme, Role::Owner).await, admin.user(false).await);
    let to = |user: Uuid, role: Role| update(Membership { name: name(user), role: role.into(), ..Default::default() }, &["role"]);
    let remove = |user: Uuid| DeleteMembershipRequest { name: name(user), ..Default::default() };
    let mut low = administrator.memberships();
    refused("make", low.create_membership(create(user, Role::Owner)).await, Code::PermissionDenied, &[]);
    refused("become", low.update_membership(to(administrator.user, Role::Owner)).await, Code::PermissionDenied, &[]);
    refused("demote", low.update_membership(to(owner.user, Role::Member)).await, Code::PermissionDenied, &[]);
    refused("remove", low.delete_membership(remove(owner.user)).await, Code::PermissionDenied, &[]);
    let mut high = owner.memberships();
    refused("demote the last", high.update_membership(to(owner.user, Role::Member)).await, Code::FailedPrecondition, &[]);
    refused("remove the last", high.delete_membership(remove(owner.user)).await, Code::FailedPrecondition, &[]);
    high.create_membership(create(user, Role::Owner)).await.unwrap();
    high.delete_membership(remove(owner.user)).await.unwrap();
}

#[tokio::test]
async fn the_keys_of_a_member_who_leaves_are_revoked() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let member = admin.member(acme, Role::Member).await;
    let query = "INSERT INTO api_keys (id, uid, org_id, user_id, secret_sha256) VALUES ('aaaaaaaaaaaaaaaa', $1, $2, $3, '')";
    sqlx::query(query).bind(Uuid::now_v7()).bind(acme).bind(member.user).execute(&mut admin.sql).await.unwrap();
    let request = DeleteMembershipRequest { name: name(member.user), ..Default::default() };
    person.memberships().delete_membership(request).await.unwrap();
    let voids = admin.running.core.store.voids(std::time::Duration::from_secs(900)).await.unwrap();
    assert_eq!((voids.api_keys.len(), voids.login_sessions.len()), (1, 1));
}

#[tokio::test]
async fn lists_are_paged_within_one_organisation() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let other = admin.organization("other").await;
    admin.member(other, Role::Member).await;
    for _ in 0..2 {
        admin.member(acme, Role::Member).await;
    }
    let list = |page_token: String| ListMembershipsRequest { parent: ACME.into(), page_size: 2, page_token };
    let first = person.memberships().list_memberships(list(String::new())).await.unwrap().into_inner();
    let second = person.memberships().list_memberships(list(first.next_page_token.clone())).await.unwrap().into_inner();
    assert_eq!((first.memberships.len(), second.memberships.len()), (2, 1));
    let platform = admin.platform_admin().await;
    let elsewhere =
        ListMembershipsRequest { parent: "organizations/other".into(), page_size: 2, page_token: first.next_page_token };
    refused(
        "a token of another parent",
        platform.memberships().list_memberships(elsewhere).await,
        Code::InvalidArgument,
        &["page_token"],
    );
}
