//! ApiKeyService, over gRPC, on a real database; and what publishers then read.

use chrono::Utc;
use mcp_gateway::proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, CreateMembershipRequest, DeleteApiKeyRequest, DeleteMembershipRequest,
    GetApiKeyRequest, ListApiKeysRequest, Membership, RevokeApiKeyRequest, Role, UpdateApiKeyRequest,
};
use prost_types::Timestamp;
use tonic::{Code, Status};
use uuid::Uuid;

use super::admin::{Admin, Person, email, mask, refused};
use crate::{domain::ids, store};

const ACME: &str = "organizations/acme";

fn key() -> ApiKey {
    ApiKey {
        display_name: "CI".into(),
        policy_roles: vec!["engineer".into()],
        groups: vec!["platform".into()],
        ..Default::default()
    }
}

fn of(user: Uuid) -> ApiKey {
    ApiKey { user: format!("users/{user}"), ..Default::default() }
}

fn create(key: ApiKey) -> CreateApiKeyRequest {
    CreateApiKeyRequest { parent: ACME.into(), api_key: Some(key), ..Default::default() }
}

fn update(key: ApiKey, paths: &[&str]) -> UpdateApiKeyRequest {
    UpdateApiKeyRequest { api_key: Some(key), update_mask: mask(paths), ..Default::default() }
}

async fn made(person: &Person, key: ApiKey) -> Result<CreateApiKeyResponse, Status> {
    person.api_keys().create_api_key(create(key)).await.map(tonic::Response::into_inner)
}

async fn read(person: &Person, name: &str) -> ApiKey {
    person.api_keys().get_api_key(GetApiKeyRequest { name: name.into() }).await.unwrap().into_inner()
}

fn id_of(key: &ApiKey) -> &str {
    key.name.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn a_secret_is_shown_once_and_only_its_hash_is_kept() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let before = admin.version().await;
    let answer = made(&person, key()).await.unwrap();
    let made = answer.api_key.unwrap();
    let [prefix, id, secret] = answer.secret.split('_').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((prefix, id, secret.len()), ("mcpgw", id_of(&made), 52));
    assert!(ids::is_public_id(id), "{id}");
    assert_eq!((made.config_version, admin.version().await), (before + 1, before + 1));
    assert_eq!(Uuid::parse_str(&made.uid).unwrap().get_version_num(), 7);
    assert_eq!(read(&person, &made.name).await, made);

    let published = store::publish::api_keys(&mut admin.sql, acme).await.unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!((published[0].key_id.as_str(), published[0].subject.as_str()), (id, format!("key:{id}").as_str()));
    assert_eq!(published[0].secret_sha256.as_ref(), ids::sha256(secret).as_slice());
    assert_eq!((&published[0].roles, &published[0].groups), (&made.policy_roles, &made.groups));

    let state = admin.state().await;
    assert!(!state.contains(secret) && !state.contains(&hex::encode(secret)));
    let (actor, action, resource, version, _) = admin.newest_audit().await;
    assert_eq!((actor, action, resource), (email(person.user), "api_key.create".into(), made.name));
    assert_eq!(version.unsigned_abs(), before + 1);
}

#[tokio::test]
async fn a_key_of_a_user_has_what_the_membership_gives_and_only_owners_make_keys_of_owners() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let member = admin.member(acme, Role::Member).await;
    let made_one = made(&person, of(member.user)).await.unwrap().api_key.unwrap();
    assert_eq!(made_one.user, format!("users/{}", member.user));
    let query = sqlx::query("UPDATE memberships SET policy_roles = '{engineer}', groups = '{platform}' WHERE user_id = $1");
    query.bind(member.user).execute(&mut admin.sql).await.unwrap();
    let published = store::publish::api_keys(&mut admin.sql, acme).await.unwrap();
    assert_eq!((published[0].subject.clone(), published[0].roles.len()), (member.user.to_string(), 2));
    assert_eq!(published[0].groups, ["platform"]);

    let owner = admin.member(acme, Role::Owner).await;
    let outsider = admin.user(false).await;
    let roles = ApiKey { policy_roles: vec!["engineer".into()], groups: vec!["g".into()], ..of(member.user) };
    let before = admin.state().await;
    for (case, key, code, fields) in [
        ("of an owner, by an administrator", of(owner.user), Code::PermissionDenied, vec![]),
        ("of somebody else's user", of(outsider), Code::InvalidArgument, vec!["api_key.user"]),
        ("of nobody", of(Uuid::nil()), Code::InvalidArgument, vec!["api_key.user"]),
        ("not a user", ApiKey { user: "users/me".into(), ..key() }, Code::InvalidArgument, vec!["api_key.user"]),
        ("not a name", ApiKey { user: "me".into(), ..key() }, Code::InvalidArgument, vec!["api_key.user"]),
        ("with roles of its own", roles, Code::InvalidArgument, vec!["api_key.policy_roles", "api_key.groups"]),
    ] {
        refused(case, made(&person, key).await, code, &fields);
    }
    let change = ApiKey { name: made_one.name, policy_roles: vec!["engineer".into()], ..Default::default() };
    let answer = person.api_keys().update_api_key(update(change, &["policy_roles"])).await;
    refused("roles later", answer, Code::InvalidArgument, &["api_key.policy_roles"]);
    refused("by a member", made(&member, of(member.user)).await, Code::PermissionDenied, &[]);
    assert_eq!(admin.state().await, before);
    made(&owner, of(owner.user)).await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_is_void_at_once_and_for_good() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let key = made(&person, key()).await.unwrap().api_key.unwrap();
    let before = admin.version().await;
    let revoke = |etag: &str| RevokeApiKeyRequest { name: key.name.clone(), etag: etag.into() };
    refused("stale", person.api_keys().revoke_api_key(revoke("AAAA")).await, Code::Aborted, &[]);
    assert_eq!(store::publish::api_keys(&mut admin.sql, acme).await.unwrap().len(), 1);

    let revoked = person.api_keys().revoke_api_key(revoke(&key.etag)).await.unwrap().into_inner();
    assert!(revoked.revoke_time.is_some());
    assert_eq!((revoked.config_version, admin.version().await), (before + 1, before + 1));
    assert_eq!(store::publish::api_keys(&mut admin.sql, acme).await.unwrap(), []);
    let (_, action, resource, ..) = admin.newest_audit().await;
    assert_eq!((action, resource), ("api_key.revoke".into(), key.name.clone()));

    let state = admin.state().await;
    let again = person.api_keys().revoke_api_key(revoke(&key.etag)).await.unwrap().into_inner();
    assert_eq!((again, admin.state().await), (revoked.clone(), state));
    assert_eq!(read(&person, &key.name).await, revoked);
    let missing = RevokeApiKeyRequest { name: format!("{ACME}/apiKeys/aaaaaaaaaaaaaaaa"), ..Default::default() };
    refused("unknown", person.api_keys().revoke_api_key(missing).await, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_member_who_leaves_leaves_no_key_behind_not_even_for_coming_back() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let member = admin.member(acme, Role::Member).await;
    let of_member = made(&person, of(member.user)).await.unwrap().api_key.unwrap();
    let of_nobody = made(&person, key()).await.unwrap().api_key.unwrap();
    let name = format!("{ACME}/memberships/{}", member.user);
    let leave = DeleteMembershipRequest { name, ..Default::default() };
    person.memberships().delete_membership(leave).await.unwrap();
    assert!(read(&person, &of_member.name).await.revoke_time.is_some());
    assert_eq!(read(&person, &of_nobody.name).await, of_nobody);

    let membership = Some(Membership { user: format!("users/{}", member.user), role: Role::Member.into(), ..Default::default() });
    let back = CreateMembershipRequest { parent: ACME.into(), membership, ..Default::default() };
    person.memberships().create_membership(back).await.unwrap();
    let published = store::publish::api_keys(&mut admin.sql, acme).await.unwrap();
    assert_eq!(published.iter().map(|key| key.key_id.as_str()).collect::<Vec<_>>(), [id_of(&of_nobody)]);
}

#[tokio::test]
async fn a_key_is_changed_in_what_may_change_and_deleted() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let key = made(&person, key()).await.unwrap().api_key.unwrap();
    let before = admin.version().await;
    let groups = vec!["b".to_owned(), "a".to_owned(), "b".to_owned()];
    let change = ApiKey { groups, policy_roles: vec!["ignored".into()], ..key.clone() };
    let changed = person.api_keys().update_api_key(update(change, &["groups"])).await.unwrap().into_inner();
    assert_eq!((changed.groups.clone(), &changed.policy_roles), (vec!["a".to_owned(), "b".to_owned()], &key.policy_roles));
    assert_eq!(changed.config_version, before + 1);

    let state = admin.state().await;
    let later = Some(Timestamp { seconds: Utc::now().timestamp() + 60, nanos: 0 });
    for (case, key, paths, code, fields) in [
        ("stale etag", ApiKey { etag: key.etag.clone(), ..changed.clone() }, vec!["groups"], Code::Aborted, vec![]),
        ("the user", changed.clone(), vec!["user"], Code::InvalidArgument, vec!["update_mask"]),
        ("the end", changed.clone(), vec!["expire_time"], Code::InvalidArgument, vec!["update_mask"]),
        ("the revocation", changed.clone(), vec!["revoke_time"], Code::InvalidArgument, vec!["update_mask"]),
        (
            "another user and end",
            ApiKey { expire_time: later, user: "users/x".into(), ..changed.clone() },
            vec![],
            Code::InvalidArgument,
            vec!["api_key.user", "api_key.expire_time"],
        ),
        (
            "a role of the administration",
            ApiKey { policy_roles: vec!["owner".into()], ..changed.clone() },
            vec!["policy_roles"],
            Code::InvalidArgument,
            vec!["api_key.policy_roles"],
        ),
    ] {
        refused(case, person.api_keys().update_api_key(update(key, &paths)).await, code, &fields);
    }
    let delete = |etag: &str| DeleteApiKeyRequest { name: key.name.clone(), etag: etag.into(), ..Default::default() };
    refused("stale delete", person.api_keys().delete_api_key(delete(&key.etag)).await, Code::Aborted, &[]);
    assert_eq!(admin.state().await, state);

    let gone = person.api_keys().delete_api_key(delete(&changed.etag)).await.unwrap().into_inner();
    assert_eq!(gone.config_version, before + 2);
    assert_eq!(store::publish::api_keys(&mut admin.sql, acme).await.unwrap(), []);
    let answer = person.api_keys().get_api_key(GetApiKeyRequest { name: key.name }).await;
    refused("deleted", answer, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_bad_key_is_refused_by_field_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let now = Utc::now().timestamp();
    let end = |seconds, nanos| ApiKey { expire_time: Some(Timestamp { seconds, nanos }), ..key() };
    let roles = |role: &str| ApiKey { policy_roles: vec![role.into()], ..key() };
    let before = admin.state().await;
    for (case, key, fields) in [
        ("ended", end(now - 1, 0), vec!["api_key.expire_time"]),
        ("no moment", end(i64::MAX, 0), vec!["api_key.expire_time"]),
        ("negative nanos", end(now + 60, -1), vec!["api_key.expire_time"]),
        ("a role of the administration", roles("admin"), vec!["api_key.policy_roles"]),
        ("every role", roles("*"), vec!["api_key.policy_roles[0]"]),
        ("zero byte", roles("a\0"), vec!["api_key.policy_roles[0]"]),
        ("empty group", ApiKey { groups: vec![String::new()], ..key() }, vec!["api_key.groups[0]"]),
        ("101 groups", ApiKey { groups: vec!["g".into(); 101], ..key() }, vec!["api_key.groups"]),
        ("long display name", ApiKey { display_name: "x".repeat(201), ..key() }, vec!["api_key.display_name"]),
    ] {
        refused(case, made(&person, key).await, Code::InvalidArgument, &fields);
    }
    let none = CreateApiKeyRequest { api_key: None, ..create(key()) };
    refused("nothing", person.api_keys().create_api_key(none).await, Code::InvalidArgument, &["api_key"]);
    let elsewhere = CreateApiKeyRequest { parent: "organizations/nobody".into(), ..create(key()) };
    refused("elsewhere", person.api_keys().create_api_key(elsewhere).await, Code::NotFound, &[]);
    let dry = CreateApiKeyRequest { validate_only: true, ..create(key()) };
    let answer = person.api_keys().create_api_key(dry).await.unwrap().into_inner();
    assert_eq!((answer.secret.as_str(), answer.api_key.unwrap().config_version), ("", 0));
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_secret_and_makes_no_second_key() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let request = CreateApiKeyRequest { request_id: Uuid::now_v7().to_string(), ..create(key()) };
    let first = person.api_keys().create_api_key(request.clone()).await.unwrap().into_inner();
    let state = admin.state().await;
    assert_eq!(person.api_keys().create_api_key(request.clone()).await.unwrap().into_inner(), first);
    let secret = first.secret.rsplit('_').next().unwrap();
    assert!(!state.contains(secret) && !state.contains(&hex::encode(secret)));
    let other = CreateApiKeyRequest { api_key: Some(ApiKey::default()), ..request };
    refused("another request", person.api_keys().create_api_key(other).await, Code::InvalidArgument, &["request_id"]);
    assert_eq!(admin.state().await, state);
}

#[tokio::test]
async fn a_list_is_paged_and_other_organisations_see_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(made(&person, key()).await.unwrap().api_key.unwrap().name);
    }
    names.sort();
    let list = |page_token: &str| ListApiKeysRequest { parent: ACME.into(), page_size: 3, page_token: page_token.into() };
    let first = person.api_keys().list_api_keys(list("")).await.unwrap().into_inner();
    let second = person.api_keys().list_api_keys(list(&first.next_page_token)).await.unwrap().into_inner();
    let found: Vec<String> = first.api_keys.into_iter().chain(second.api_keys).map(|key| key.name).collect();
    assert_eq!((found, second.next_page_token.as_str()), (names.clone(), ""));
    refused("made up", person.api_keys().list_api_keys(list("AAAA")).await, Code::InvalidArgument, &["page_token"]);

    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let name = names[0].clone();
    refused("list", stranger.api_keys().list_api_keys(list("")).await, Code::NotFound, &[]);
    refused("get", stranger.api_keys().get_api_key(GetApiKeyRequest { name: name.clone() }).await, Code::NotFound, &[]);
    let elsewhere = format!("organizations/globex/apiKeys/{}", name.rsplit('/').next().unwrap());
    refused("through its own", stranger.api_keys().get_api_key(GetApiKeyRequest { name: elsewhere }).await, Code::NotFound, &[]);
    let revoke = RevokeApiKeyRequest { name, ..Default::default() };
    refused("revoke", stranger.api_keys().revoke_api_key(revoke).await, Code::NotFound, &[]);
}
