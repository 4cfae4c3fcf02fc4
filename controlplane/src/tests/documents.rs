//! DocumentService, over gRPC, on a real database.

use mcp_gateway::document::Document;
use mcp_gateway::proto::admin::v1::{
    ApplyOrganizationRequest, ApplyOrganizationResponse, ExportOrganizationRequest, OrganizationDocument, Role,
};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::admin::{Admin, CANARY, Person, email};
use crate::domain::{bundle, ids};

const ACME: &str = "\
organization: acme
displayName: Acme
allowedOrigins: ['https://b.example.com', 'https://a.example.com']
servers:
  github:
    endpoints: [{ url: 'https://mcp.example.com/mcp', weight: 2 }]
    callTimeout: 2.5s
    upstreamCredential: { header: Authorization, value: 'Bearer CANARY' }
  time: { endpoints: [{ url: 'http://127.0.0.1:9/mcp' }], allowAnonymous: true }
policies:
  engineers:
    effect: allow
    subjects: { roles: [engineer], users: [ann@example.com, somebody-elses] }
    servers: [github]
    match: { tools: ['search_*', get_issue] }
  all-times: { effect: allow, subjects: { anonymous: true }, servers: [time], match: { tools: ['*'] } }
limits:
  searches:
    per: [user, endpoint]
    subjects: { users: [ann@example.com] }
    servers: [github]
    match: { tools: ['search_*'] }
    windows: [{ limit: 100, seconds: 60 }, { limit: 1000, seconds: 3600 }]
    costs: [{ tools: search_all, cost: 10 }]
    whenAway: closed
members:
  ann@example.com: { role: owner, policyRoles: [engineer] }
  bob@example.com: { role: member, groups: [b, a] }
apiKeys:
  abcdefghijklmnop: { user: bob@example.com, secretSha256: SHA }
  abcdefghijklmnoq: { policyRoles: [robot], secretSha256: SHA, expireTime: '2093-01-01T00:00:00.123456Z' }
";

fn read(text: &str) -> OrganizationDocument {
    let text = text.replace("CANARY", CANARY).replace("SHA", &hex::encode(ids::sha256("a secret")));
    Document::parse(&text, &mut |_| Err("nothing lies elsewhere".into())).unwrap().resource
}

async fn try_apply(person: &Person, document: OrganizationDocument) -> Result<ApplyOrganizationResponse, tonic::Status> {
    let request = ApplyOrganizationRequest { document: Some(document), ..Default::default() };
    person.documents().apply_organization(request).await.map(tonic::Response::into_inner)
}

async fn forced(person: &Person, document: OrganizationDocument) -> ApplyOrganizationResponse {
    let mut request = Request::new(ApplyOrganizationRequest { document: Some(document), ..Default::default() });
    request.metadata_mut().insert("mcpgw-force", "true".parse().unwrap());
    person.documents().apply_organization(request).await.unwrap().into_inner()
}

async fn export(person: &Person) -> OrganizationDocument {
    let request = ExportOrganizationRequest { name: "organizations/acme".into() };
    person.documents().export_organization(request).await.unwrap().into_inner()
}

/// `create policies/engineers`, in order.
fn changes(answer: &ApplyOrganizationResponse) -> Vec<String> {
    let resources = &answer.diff.as_ref().unwrap().resources;
    let short = |name: &str| name.trim_start_matches("organizations/acme/").to_owned();
    let named = resources.iter().filter(|it| !matches!(it.kind.as_str(), "membership" | "user"));
    named.map(|it| format!("{} {}", it.operation, short(&it.resource))).collect()
}

fn violations(refused: &tonic::Status) -> Vec<String> {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(!refused.message().contains(CANARY));
    let details = refused.get_error_details();
    details.bad_request().unwrap().field_violations.iter().map(|violation| violation.field.clone()).collect()
}

#[tokio::test]
async fn an_organisation_is_created_whole_as_one_version_and_applying_again_or_its_export_changes_nothing() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let before = admin.version().await;
    let made = try_apply(&platform, read(ACME)).await.unwrap();
    assert_eq!((made.config_version, admin.version().await), (before + 1, before + 1));
    let all = ["create apiKeys/abcdefghijklmnop", "create apiKeys/abcdefghijklmnoq", "create organizations/acme"];
    let more = ["create policies/all-times", "create policies/engineers", "create rateLimits/searches"];
    let more = [more.as_slice(), &["create servers/github", "create servers/time"]].concat();
    let mut found = changes(&made);
    found.sort();
    assert_eq!(found, [all.as_slice(), &more].concat());
    assert_eq!(made.diff.as_ref().unwrap().resources.len(), 8 + 2 + 2, "with two members who are new users");
    assert!(!format!("{made:?}").contains(CANARY));
    let (_, action, _, version, detail) = admin.newest_audit().await;
    assert_eq!((action.as_str(), version.unsigned_abs()), ("organization.apply", before + 1));
    assert!(detail.to_string().contains("create organizations/acme/servers/github"), "{detail}");

    let state = admin.state().await;
    let again = try_apply(&platform, read(ACME)).await.unwrap();
    assert_eq!((again.config_version, changes(&again)), (0, vec![]));
    let exported = export(&platform).await;
    let again = try_apply(&platform, exported.clone()).await.unwrap();
    assert_eq!((again.config_version, changes(&again)), (0, vec![]));
    assert_eq!(admin.state().await, state);
    assert_eq!(export(&platform).await, exported);

    assert!(!format!("{exported:?}").contains(CANARY));
    assert_eq!(exported.servers["github"].upstream_credential.as_ref().unwrap().header, "authorization");
    assert_eq!(exported.policies["engineers"].subjects.as_ref().unwrap().users, ["ann@example.com", "somebody-elses"]);
    assert_eq!(exported.limits["searches"].subjects.as_ref().unwrap().users, ["ann@example.com"]);
    assert_eq!(exported.api_keys["abcdefghijklmnop"].user, "bob@example.com");
    assert_eq!(exported.members["bob@example.com"].groups, ["a", "b"]);
}

#[tokio::test]
async fn what_a_document_does_not_name_is_removed_and_what_it_names_anew_is_there_in_any_order() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    try_apply(&platform, read(ACME)).await.unwrap();
    // The server that a policy names goes, with the policy; the one that it names now is new.
    let moved = ACME.replace("  time: {", "  clock: {").replace("servers: [time]", "servers: [clock]");
    let answer = try_apply(&platform, read(&moved)).await.unwrap();
    let mut found = changes(&answer);
    found.sort();
    assert_eq!(found, ["create servers/clock", "delete servers/time", "update policies/all-times"]);

    let mut kept = read(&moved);
    kept.servers.remove("clock");
    kept.policies.remove("all-times");
    kept.limits.clear();
    kept.members.remove("bob@example.com"); // whose key it names
    let request = ApplyOrganizationRequest { document: Some(kept.clone()), keep_unlisted: true, ..Default::default() };
    let answer = platform.documents().apply_organization(request).await.unwrap().into_inner();
    assert_eq!(changes(&answer), [""; 0]);
    kept.members.clear();
    kept.limits.clone_from(&read(&moved).limits);
    let state = admin.state().await;
    let dry = ApplyOrganizationRequest { document: Some(kept.clone()), validate_only: true, ..Default::default() };
    let answer = platform.documents().apply_organization(dry).await.unwrap().into_inner();
    assert_eq!((answer.config_version, answer.diff.unwrap().resources.len()), (0, 2));
    assert_eq!(admin.state().await, state);

    kept.policies.clear();
    let refused = try_apply(&platform, kept.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(changes(&forced(&platform, kept).await).len(), 3);
}

#[tokio::test]
async fn a_credential_without_a_value_stays_and_one_with_another_value_is_another() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    try_apply(&platform, read(ACME)).await.unwrap();
    let value = async |admin: &mut Admin| {
        let row = sqlx::query_as("SELECT id, credential_wrapped FROM mcp_servers WHERE slug = 'github'");
        let (id, wrapped): (uuid::Uuid, Vec<u8>) = row.fetch_one(&mut admin.sql).await.unwrap();
        let opened = admin.running.core.custody.open(&bundle::credential_context(&id.to_string()), &wrapped).unwrap();
        String::from_utf8(opened.to_vec()).unwrap()
    };
    let without = ACME.replace(", value: 'Bearer CANARY'", "");
    assert_eq!(changes(&try_apply(&platform, read(&without)).await.unwrap()), [""; 0]);
    assert_eq!(value(&mut admin).await, format!("Bearer {CANARY}"));
    let other = read(&ACME.replace("Bearer CANARY", "Bearer other"));
    assert_eq!(changes(&try_apply(&platform, other).await.unwrap()), ["update servers/github"]);
    assert_eq!(value(&mut admin).await, "Bearer other");
    let new = without.replace("organization: acme", "organization: elsewhere").replace("abcdefghijklmn", "bbcdefghijklmn");
    let refused = try_apply(&platform, read(&new)).await.unwrap_err();
    assert_eq!(violations(&refused), ["servers.github.upstream_credential.value"]);
    assert!(refused.message().contains("none is stored"), "{refused:?}");
}

#[tokio::test]
async fn everything_wrong_is_told_by_its_path_and_nothing_is_changed() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    try_apply(&platform, read(ACME)).await.unwrap();
    let state = admin.state().await;
    let mut wrong = read(ACME);
    wrong.request_log_retention_days = -1;
    wrong.allowed_origins.push("nonsense".into());
    let github = wrong.servers.get_mut("github").unwrap();
    github.endpoints[0].url = "ftp://x".into();
    github.display_name = "\u{1b}".into();
    github.upstream_credential.as_mut().unwrap().header = "mcp-session-id".into();
    wrong.servers.insert("No Slug".into(), wrong.servers["time"].clone());
    let engineers = wrong.policies.get_mut("engineers").unwrap();
    engineers.servers = vec!["gone".into()];
    engineers.r#match = None;
    engineers.effect = 0;
    let searches = wrong.limits.get_mut("searches").unwrap();
    searches.servers = vec!["gone".into()];
    searches.windows[0].seconds = 0;
    searches.display_name = "\u{1b}".into();
    let named = searches.clone();
    wrong.limits.insert("No Slug".into(), named);
    wrong.members.get_mut("ann@example.com").unwrap().role = Role::Member.into();
    wrong.members.get_mut("bob@example.com").unwrap().policy_roles = vec!["owner".into()];
    wrong.api_keys.get_mut("abcdefghijklmnop").unwrap().secret_sha256 = "00".repeat(32);
    wrong.api_keys.get_mut("abcdefghijklmnoq").unwrap().expire_time = None;
    let refused = try_apply(&platform, wrong).await.unwrap_err();
    let mut found = violations(&refused);
    found.sort();
    let expected = [
        "allowed_origins[2]",
        "api_keys.abcdefghijklmnop.secret_sha256",
        "api_keys.abcdefghijklmnoq.expire_time",
        "limits.No Slug",
        "limits.No Slug.display_name",
        "limits.No Slug.servers[0]",
        "limits.No Slug.windows[0].seconds",
        "limits.searches.display_name",
        "limits.searches.servers[0]",
        "limits.searches.windows[0].seconds",
        "members",
        "members.bob@example.com.policy_roles",
        "policies.engineers.effect",
        "policies.engineers.match",
        "policies.engineers.servers[0]",
        "request_log_retention_days",
        "servers.No Slug",
        "servers.github.display_name",
        "servers.github.endpoints[0].url",
        "servers.github.upstream_credential.header",
    ];
    assert_eq!(found, expected, "{refused:?}");
    assert_eq!(admin.state().await, state);
}

#[tokio::test]
async fn a_revoked_key_stays_void_and_one_that_a_document_leaves_out_is_revoked() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    try_apply(&platform, read(ACME)).await.unwrap();
    let mut fewer = read(ACME);
    fewer.api_keys.remove("abcdefghijklmnoq");
    assert_eq!(changes(&try_apply(&platform, fewer).await.unwrap()), ["update apiKeys/abcdefghijklmnoq"]);
    let revoked: bool = sqlx::query_scalar("SELECT revoked_at IS NOT NULL FROM api_keys WHERE id = 'abcdefghijklmnoq'")
        .fetch_one(&mut admin.sql)
        .await
        .unwrap();
    assert!(revoked);
    assert_eq!(export(&platform).await.api_keys.len(), 1);
    let refused = try_apply(&platform, read(ACME)).await.unwrap_err();
    assert_eq!(violations(&refused), ["api_keys.abcdefghijklmnoq"]);
    let other = ACME.replace("organization: acme", "organization: other").replace("ann@", "eve@");
    let refused = try_apply(&platform, read(&other)).await.unwrap_err();
    assert_eq!(violations(&refused), ["api_keys.abcdefghijklmnop", "api_keys.abcdefghijklmnoq"], "ids are taken");
}

#[tokio::test]
async fn a_document_does_no_more_than_its_caller_may() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let owner = admin.member(acme, Role::Owner).await;
    admin.member(acme, Role::Owner).await;
    let stranger = admin.user(false).await;
    let as_it_is = export(&person).await;
    let with = |change: &dyn Fn(&mut OrganizationDocument)| {
        let mut document = as_it_is.clone();
        change(&mut document);
        document
    };
    let server = read(ACME).servers["time"].clone();
    let answer = try_apply(&person, with(&|it| drop(it.servers.insert("time".into(), server.clone())))).await.unwrap();
    assert_eq!(changes(&answer), ["create servers/time"]);
    let state = admin.state().await;
    let as_it_is = export(&person).await;
    let with = |change: &dyn Fn(&mut OrganizationDocument)| {
        let mut document = as_it_is.clone();
        change(&mut document);
        document
    };
    let mine = email(person.user);
    let denied = [
        ("settings", with(&|it| it.display_name = "Mine".into())),
        ("an owner", with(&|it| drop(it.members.remove(&email(owner.user))))),
        ("to be owner", with(&|it| it.members.get_mut(&mine).unwrap().role = Role::Owner.into())),
        ("pool", with(&|it| it.pool = "other".into())),
        (
            "a key of an owner",
            with(&|it| {
                let key = read(ACME).api_keys["abcdefghijklmnop"].clone();
                it.api_keys.insert(
                    "abcdefghijklmnop".into(),
                    mcp_gateway::proto::admin::v1::DocumentKey { user: email(owner.user), ..key },
                );
            }),
        ),
    ];
    for (what, document) in denied {
        let refused = try_apply(&person, document).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{what}: {refused:?}");
    }
    // Whether somebody has an account is told to nobody: known or not, the answer is the same.
    let mut told = Vec::new();
    for email in [email(stranger), "nobody@example.com".to_owned()] {
        let added = with(&|it| drop(it.members.insert(email.clone(), read(ACME).members["bob@example.com"].clone())));
        let refused = try_apply(&owner, added).await.unwrap_err();
        assert_eq!(violations(&refused), [format!("members.{email}")]);
        told.push(refused.message().replace(&email, "*"));
    }
    assert_eq!(told[0], told[1]);
    let elsewhere = with(&|it| it.organization = "other".into());
    let refused = try_apply(&owner, elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    assert_eq!(admin.state().await, state);
    let moved = try_apply(&owner, with(&|it| it.display_name = "Ours".into())).await.unwrap();
    assert_eq!(changes(&moved), ["update organizations/acme"]);
}
