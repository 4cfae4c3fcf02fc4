//! History: what dry runs say, who changed what and why, differences between versions, taking changes back.

use mcp_gateway::proto::{
    admin::v1::{
        ApiKey, ConfigDiff, CreateApiKeyRequest, CreatePolicyRequest, CreateServerRequest, DeleteOrganizationRequest,
        DeletePolicyRequest, DeleteServerRequest, DiffConfigVersionsRequest, GetConfigVersionRequest, GetServerRequest,
        Organization, Policy, RevokeApiKeyRequest, Role, RollbackConfigRequest, RollbackConfigResponse, Server,
        UpdateOrganizationRequest, UpdatePolicyRequest, UpdateServerRequest, UpstreamCredential,
    },
    config::v1::{Effect, Endpoint, Match, Subjects},
};
use prost::Message;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use super::admin::{Admin, CANARY, Person, mask, refused};

pub const ACME: &str = "organizations/acme";

pub fn server() -> Server {
    let endpoints = vec![Endpoint { url: "http://a.example/mcp".into(), weight: 0 }];
    Server { endpoints, ..Default::default() }
}

pub fn policy(servers: &[&str]) -> Policy {
    Policy {
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: vec!["engineer".into()], ..Default::default() }),
        servers: servers.iter().map(|it| (*it).to_owned()).collect(),
        r#match: Some(Match { tools: vec!["*".into()], ..Default::default() }),
        ..Default::default()
    }
}

pub async fn add_server(who: &Person, id: &str) -> Server {
    let request = CreateServerRequest { parent: ACME.into(), server_id: id.into(), server: Some(server()), ..Default::default() };
    who.servers().create_server(request).await.unwrap().into_inner()
}

pub async fn add_policy(who: &Person, id: &str, servers: &[&str]) -> Policy {
    let request =
        CreatePolicyRequest { parent: ACME.into(), policy_id: id.into(), policy: Some(policy(servers)), ..Default::default() };
    who.policies().create_policy(request).await.unwrap().into_inner()
}

/// What the metadata of a dry run's answer says.
pub fn dry_run(metadata: &MetadataMap) -> Option<ConfigDiff> {
    let bytes = metadata.get_bin("mcpgw-config-diff-bin")?.to_bytes().unwrap();
    Some(ConfigDiff::decode(bytes).unwrap())
}

/// Operation and name of each resource, with path, old and new text of each field.
pub fn told(diff: &ConfigDiff) -> Vec<String> {
    let fields = |r: &mcp_gateway::proto::admin::v1::ResourceDiff| {
        r.fields.iter().map(|f| format!(" {}:{}->{}", f.field, f.before, f.after)).collect::<String>()
    };
    diff.resources.iter().map(|r| format!("{} {}{}", r.operation, r.resource, fields(r))).collect()
}

fn with_reason<T>(request: T, reason: &str) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("mcpgw-reason", reason.parse().unwrap());
    request
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_a_change_does_not() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let before = admin.state().await;
    let create = CreateServerRequest {
        parent: ACME.into(),
        server_id: "time".into(),
        server: Some(Server {
            upstream_credential: Some(UpstreamCredential { header: "authorization".into(), value: CANARY.into() }),
            ..server()
        }),
        validate_only: true,
        ..Default::default()
    };
    let answer: Response<Server> = person.servers().create_server(create.clone()).await.unwrap();
    let diff = dry_run(answer.metadata()).expect("a dry run says its difference");
    assert_eq!((diff.resources[0].organization.as_str(), diff.resources[0].kind.as_str()), (ACME, "server"));
    let told = told(&diff).remove(0);
    assert!(told.starts_with("create organizations/acme/servers/time endpoints[0].url:->\"http://a.example/mcp\""), "{told}");
    assert!(told.contains(" upstreamCredential.value:->\"set 2") && !told.contains(CANARY), "{told}");
    assert_eq!(admin.state().await, before);

    let answer = person.servers().create_server(CreateServerRequest { validate_only: false, ..create }).await.unwrap();
    assert_eq!(dry_run(answer.metadata()), None);
    assert!(!admin.state().await.contains(CANARY));
    // Without a value the credential stays what it is, whatever else changes.
    let server = Server { display_name: "Time".into(), ..answer.into_inner() };
    let update = UpdateServerRequest {
        server: Some(server),
        update_mask: mask(&["display_name", "upstream_credential"]),
        validate_only: true,
        ..Default::default()
    };
    let answer = person.servers().update_server(update).await.unwrap();
    let expected = ["update organizations/acme/servers/time displayName:->\"Time\""];
    assert_eq!(self::told(&dry_run(answer.metadata()).unwrap()), expected);
}

#[tokio::test]
async fn a_version_says_why_it_was_made_and_so_does_the_audit_log() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let request =
        CreateServerRequest { parent: ACME.into(), server_id: "time".into(), server: Some(server()), ..Default::default() };
    let wrong = person.servers().create_server(with_reason(request.clone(), "%zz")).await;
    refused("not percent-encoded", wrong, Code::InvalidArgument, &["mcpgw-reason"]);
    let made = person.servers().create_server(with_reason(request, "caf%C3%A9 opens")).await.unwrap().into_inner();
    let name = format!("configVersions/{}", made.config_version);
    let version = person.config_versions().get_config_version(GetConfigVersionRequest { name }).await.unwrap().into_inner();
    assert_eq!(version.reason, "café opens");
    assert_eq!(admin.newest_audit().await.4["change_reason"], "café opens");
}

async fn differ(who: &Person, from: u64, to: u64) -> Result<Vec<String>, Status> {
    let request = DiffConfigVersionsRequest { from, to, organization: String::new() };
    Ok(told(&who.config_versions().diff_config_versions(request).await?.into_inner().diff.unwrap()))
}

async fn delete_policy(who: &Person, id: &str) -> u64 {
    let request = DeletePolicyRequest { name: format!("{ACME}/policies/{id}"), ..Default::default() };
    who.policies().delete_policy(request).await.unwrap().into_inner().config_version
}

async fn delete_server(who: &Person, id: &str) -> u64 {
    let request = DeleteServerRequest { name: format!("{ACME}/servers/{id}"), ..Default::default() };
    who.servers().delete_server(request).await.unwrap().into_inner().config_version
}

async fn rename(who: &Person, policy: &Policy, display_name: &str) -> Policy {
    let policy = Some(Policy { display_name: display_name.into(), etag: String::new(), ..policy.clone() });
    let request = UpdatePolicyRequest { policy, update_mask: mask(&["display_name"]), ..Default::default() };
    who.policies().update_policy(request).await.unwrap().into_inner()
}

fn back_to(version: u64) -> RollbackConfigRequest {
    RollbackConfigRequest { organization: ACME.into(), version, ..Default::default() }
}

async fn roll_back(who: &Person, request: Request<RollbackConfigRequest>) -> Result<RollbackConfigResponse, Status> {
    Ok(who.config_versions().rollback_config(request).await?.into_inner())
}

fn forced<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("mcpgw-force", "true".parse().unwrap());
    request
}

#[tokio::test]
async fn two_versions_differ_in_what_changed_between_them_in_either_order() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let server = add_server(&person, "time").await;
    let policy = add_policy(&person, "all", &["time"]).await;
    let named = rename(&person, &policy, "All").await;
    rename(&person, &named, "Everybody").await;
    let gone = delete_policy(&person, "all").await;
    let changed = "update organizations/acme/policies/all displayName:->\"Everybody\"";
    assert_eq!(differ(&person, policy.config_version, gone - 1).await.unwrap(), [changed]);
    let undone = "update organizations/acme/policies/all displayName:\"Everybody\"->";
    assert_eq!(differ(&person, gone - 1, policy.config_version).await.unwrap(), [undone]);
    // What came and went again is no difference.
    assert_eq!(differ(&person, server.config_version, 0).await.unwrap(), Vec::<String>::new());
    assert_eq!(differ(&person, gone, gone).await.unwrap(), Vec::<String>::new());
    refused("to come", differ(&person, gone, gone + 1).await, Code::NotFound, &[]);

    // Members see what touched their organisation, and nothing else.
    let other = admin.organization("other").await;
    let stranger = admin.member(other, Role::Auditor).await;
    assert_eq!(differ(&stranger, server.config_version - 1, 0).await.unwrap(), Vec::<String>::new());
    let platform = admin.platform_admin().await;
    assert_eq!(differ(&platform, server.config_version - 1, server.config_version).await.unwrap().len(), 1);

    sqlx::query("UPDATE config_change SET before = NULL, after = NULL").execute(&mut admin.sql).await.unwrap();
    refused("before documents", differ(&person, gone - 1, gone).await, Code::FailedPrecondition, &[]);
    sqlx::query("DELETE FROM config_change WHERE version = $1").bind(gone.cast_signed()).execute(&mut admin.sql).await.unwrap();
    refused("cut off", differ(&stranger, gone - 1, gone).await, Code::FailedPrecondition, &[]);
}

#[tokio::test]
async fn a_rollback_brings_back_what_was_there_with_ids_and_credential_as_one_version() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let owner = admin.member(acme, Role::Owner).await;
    let credential = UpstreamCredential { header: "authorization".into(), value: CANARY.into() };
    let create = CreateServerRequest {
        parent: ACME.into(),
        server_id: "time".into(),
        server: Some(Server { upstream_credential: Some(credential), ..server() }),
        ..Default::default()
    };
    let time = person.servers().create_server(create).await.unwrap().into_inner();
    let all = add_policy(&person, "all", &["time"]).await;
    let good = all.config_version;

    delete_policy(&person, "all").await;
    delete_server(&person, "time").await;
    add_server(&person, "time").await; // another one of that name
    add_server(&person, "later").await;
    let organization = Some(Organization { name: ACME.into(), display_name: "Acme!".into(), ..Default::default() });
    owner.organizations().update_organization(UpdateOrganizationRequest { organization, ..Default::default() }).await.unwrap();

    let before = admin.state().await;
    let dry = RollbackConfigRequest { validate_only: true, ..back_to(good) };
    let would = roll_back(&person, forced(dry)).await.unwrap();
    assert_eq!((would.config_version, admin.state().await), (0, before));
    let done = roll_back(&person, forced(back_to(good))).await.unwrap();
    assert_eq!((done.config_version, done.notes.as_slice(), &done.diff), (admin.version().await, &[][..], &would.diff));
    let told = told(&done.diff.unwrap());
    assert!(told[0].starts_with("update organizations/acme displayName:"), "{told:?}");
    assert!(told[1].starts_with("create organizations/acme/policies/all") && told[2].starts_with("delete"), "{told:?}");
    assert_eq!(differ(&person, good, done.config_version).await.unwrap(), Vec::<String>::new());

    let get = GetServerRequest { name: time.name.clone() };
    let found = person.servers().get_server(get).await.unwrap().into_inner();
    assert_eq!((&found.uid, &found.upstream_credential, found.disabled), (&time.uid, &time.upstream_credential, false));
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT credential_wrapped FROM mcp_servers WHERE id::text = $1")
        .bind(&time.uid)
        .fetch_one(&mut admin.sql)
        .await
        .unwrap();
    let value = admin.running.core.custody.open(&["server", &time.uid], &wrapped).unwrap();
    assert_eq!(value.as_slice(), CANARY.as_bytes());
    assert!(!admin.state().await.contains(CANARY));
    let (_, action, _, version, detail) = admin.newest_audit().await;
    assert_eq!(
        (action.as_str(), version.unsigned_abs(), &detail["version"]),
        ("config.rollback", done.config_version, &good.into())
    );

    let again = roll_back(&person, Request::new(back_to(good))).await.unwrap();
    assert_eq!((again.config_version, again.diff.unwrap().resources.len()), (0, 0));
}

#[tokio::test]
async fn a_rollback_leaves_identity_and_credentials_alone_and_says_what_is_not_as_it_was() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let credential = |value: &str| Some(UpstreamCredential { header: "authorization".into(), value: value.into() });
    let create = |id: &str| CreateServerRequest {
        parent: ACME.into(),
        server_id: id.into(),
        server: Some(Server { upstream_credential: credential("old"), ..server() }),
        ..Default::default()
    };
    let time = person.servers().create_server(create("time")).await.unwrap().into_inner();
    person.servers().create_server(create("lost")).await.unwrap();
    let key = CreateApiKeyRequest { parent: ACME.into(), api_key: Some(ApiKey::default()), ..Default::default() };
    let key = person.api_keys().create_api_key(key).await.unwrap().into_inner().api_key.unwrap();

    let revoke = RevokeApiKeyRequest { name: key.name.clone(), ..Default::default() };
    person.api_keys().revoke_api_key(revoke).await.unwrap();
    let changed = Server { upstream_credential: credential("new"), display_name: "Time".into(), ..time.clone() };
    let update = UpdateServerRequest { server: Some(Server { etag: String::new(), ..changed }), ..Default::default() };
    person.servers().update_server(update).await.unwrap();
    delete_server(&person, "lost").await;
    let spoil = "UPDATE config_change SET credential_wrapped = '\\x00' WHERE credential_wrapped IS NOT NULL";
    sqlx::query(spoil).execute(&mut admin.sql).await.unwrap();

    let wrapped =
        |n: &'static str| sqlx::query_scalar::<_, Vec<u8>>("SELECT credential_wrapped FROM mcp_servers WHERE slug = $1").bind(n);
    let kept = wrapped("time").fetch_one(&mut admin.sql).await.unwrap();
    let done = roll_back(&person, Request::new(back_to(key.config_version))).await.unwrap();
    assert_eq!(done.notes.len(), 2, "{:?}", done.notes);
    assert!(done.notes[0].contains("servers/lost: comes back disabled"), "{:?}", done.notes);
    assert!(done.notes[1].contains("servers/time: its credential was changed"), "{:?}", done.notes);
    assert_eq!(wrapped("time").fetch_one(&mut admin.sql).await.unwrap(), kept);
    let get = GetServerRequest { name: format!("{ACME}/servers/lost") };
    let lost = person.servers().get_server(get).await.unwrap().into_inner();
    assert!(lost.disabled && lost.upstream_credential.is_none());
    let revoked: bool =
        sqlx::query_scalar("SELECT revoked_at IS NOT NULL FROM api_keys").fetch_one(&mut admin.sql).await.unwrap();
    assert!(revoked);
}

#[tokio::test]
async fn a_rollback_is_refused_where_the_past_is_out_of_reach() {
    let mut admin = Admin::start().await;
    let platform = admin.platform_admin().await;
    let create =
        mcp_gateway::proto::admin::v1::CreateOrganizationRequest { organization_id: "acme".into(), ..Default::default() };
    let made = platform.organizations().create_organization(create).await.unwrap().into_inner().config_version;
    refused("younger", roll_back(&platform, Request::new(back_to(made - 1))).await, Code::FailedPrecondition, &[]);
    refused("to come", roll_back(&platform, Request::new(back_to(made + 1))).await, Code::NotFound, &[]);
}

#[tokio::test]
async fn what_removes_most_of_an_organisation_must_be_forced() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let owner = admin.member(acme, Role::Owner).await;
    add_server(&person, "time").await;
    let one = admin.version().await;
    for id in ["a", "b", "c"] {
        add_policy(&person, id, &["time"]).await;
    }
    let before = admin.state().await;
    let most = roll_back(&person, Request::new(back_to(one))).await;
    let status = most.clone().unwrap_err();
    assert!(status.message().contains("3 of the 4") && status.message().contains("--force"), "{status:?}");
    refused("most of it", most, Code::FailedPrecondition, &[]);
    assert_eq!(admin.state().await, before);
    // One by one, or not more than half, is everyday.
    delete_policy(&person, "c").await;
    roll_back(&person, Request::new(back_to(one + 1))).await.unwrap();
    for id in ["b", "c"] {
        add_policy(&person, id, &["time"]).await;
    }
    roll_back(&person, forced(back_to(one))).await.unwrap();

    for id in ["a", "b"] {
        add_policy(&person, id, &["*"]).await;
    }
    delete_server(&person, "time").await;
    let delete = DeleteOrganizationRequest { name: ACME.into(), ..Default::default() };
    refused("all of it", owner.organizations().delete_organization(delete.clone()).await, Code::FailedPrecondition, &[]);
    owner.organizations().delete_organization(forced(delete)).await.unwrap();
}
