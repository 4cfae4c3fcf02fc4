//! History: what dry runs say, who changed what and why, differences between versions, taking changes back.

use mcp_gateway::proto::{
    admin::v1::{
        ConfigDiff, CreatePolicyRequest, CreateServerRequest, GetConfigVersionRequest, Policy, Server, UpdateServerRequest,
        UpstreamCredential,
    },
    config::v1::{Effect, Endpoint, Match, Subjects},
};
use prost::Message;
use tonic::{Code, Request, Response, metadata::MetadataMap};

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
    assert_eq!(super::history::told(&dry_run(answer.metadata()).unwrap()), expected);
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
