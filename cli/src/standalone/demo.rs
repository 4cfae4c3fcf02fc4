//! Something to try the gateway with: an organisation, a server, a rule that allows everything on it, and a key.
//! Made through the admin API, and left alone where it exists already. Called by `standalone --demo`.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{
    ApiKey, CreateApiKeyRequest, CreateMembershipRequest, CreateOrganizationRequest, CreatePolicyRequest, CreateServerRequest,
    GetApiKeyRequest, GetServerRequest, Membership, Organization, Policy, Role, Server, UpdateServerRequest,
};
use mcp_gateway::proto::config::v1::{Effect, Endpoint, Match, Subjects};
use prost_types::FieldMask;
use serde::{Deserialize, Serialize};
use tonic::Code;
use uuid::Uuid;

use super::home::Home;
use crate::context::Context;
use crate::failure::Failure;

const ORG: &str = "demo";
const PARENT: &str = "organizations/demo";
const SERVER: &str = "demo";
const ROLE: &str = "demo";
const FILE: &str = "demo.json";

/// What to make.
#[derive(Debug, Clone, Flags)]
#[command(next_help_heading = "Something to try it with")]
pub struct DemoFlags {
    /// Create an organisation, a server, a policy and a key named demo, and say how to use them
    #[arg(long)]
    pub demo: bool,
    /// The MCP server to register
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090/mcp", requires = "demo")]
    pub demo_server: String,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The path of the server on the gateway.
    pub path: String,
    /// The key's secret.
    pub key: String,
    /// The configuration version that has all of it.
    pub version: u64,
}

/// The key, whose secret the API shows only once.
#[derive(Serialize, Deserialize)]
struct SavedKey {
    name: String,
    secret: String,
}

/// Makes what is missing.
pub async fn ensure(cx: &Context, home: &Home, server_url: &str) -> anyhow::Result<Demo> {
    let organization = created(create_organization(cx).await)?.map_or(0, |it| it.config_version);
    let membership = created(create_membership(cx).await)?.map_or(0, |it| it.config_version);
    let server = ensure_server(cx, server_url).await?;
    let policy = created(create_policy(cx).await)?.map_or(0, |it| it.config_version);
    let (key, secret) = ensure_key(cx, home).await?;
    let versions = [organization, membership, server.config_version, policy, key.config_version];
    let version = versions.into_iter().max().unwrap_or(0);
    Ok(Demo { path: format!("/o/{ORG}/servers/{SERVER}/mcp"), key: secret, version })
}

/// `None` if it exists already.
fn created<T>(result: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error) if code(&error) == Some(Code::AlreadyExists) => Ok(None),
        Err(error) => Err(error),
    }
}

fn code(error: &anyhow::Error) -> Option<Code> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(Failure::Rpc(status)) => Some(status.code()),
        _ => None,
    })
}

fn request_id() -> String {
    Uuid::new_v4().to_string()
}

async fn create_organization(cx: &Context) -> anyhow::Result<Organization> {
    let request = CreateOrganizationRequest {
        organization_id: ORG.into(),
        organization: Some(Organization { display_name: "Demo".into(), ..Organization::default() }),
        validate_only: false,
        request_id: request_id(),
    };
    cx.call(OrganizationServiceClient::new, request, async |c, r| c.create_organization(r).await).await
}

/// The owner as a member, so that a login to the organisation may call its tools.
async fn create_membership(cx: &Context) -> anyhow::Result<Membership> {
    let user = cx.saved()?.map(|it| it.user).unwrap_or_default();
    let membership = Membership { user, role: Role::Owner.into(), policy_roles: vec![ROLE.into()], ..Membership::default() };
    let request = CreateMembershipRequest {
        parent: PARENT.into(),
        membership: Some(membership),
        validate_only: false,
        request_id: request_id(),
    };
    cx.call(MembershipServiceClient::new, request, async |c, r| c.create_membership(r).await).await
}

async fn ensure_server(cx: &Context, url: &str) -> anyhow::Result<Server> {
    let endpoints = vec![Endpoint { url: url.into(), weight: 0 }];
    let server = Server { display_name: "Demo server".into(), endpoints: endpoints.clone(), ..Server::default() };
    let request = CreateServerRequest {
        parent: PARENT.into(),
        server_id: SERVER.into(),
        server: Some(server),
        validate_only: false,
        request_id: request_id(),
    };
    let made = cx.call(ServerServiceClient::new, request, async |c, r| c.create_server(r).await).await;
    if let Some(server) = created(made)? {
        return Ok(server);
    }
    let request = GetServerRequest { name: format!("{PARENT}/servers/{SERVER}") };
    let mut server = cx.call(ServerServiceClient::new, request, async |c, r| c.get_server(r).await).await?;
    if server.endpoints.iter().map(|it| &it.url).eq([url]) {
        return Ok(server);
    }
    // The demo server moved, such as to another port.
    server.endpoints = endpoints;
    let request = UpdateServerRequest {
        server: Some(server),
        update_mask: Some(FieldMask { paths: vec!["endpoints".into()] }),
        validate_only: false,
        request_id: request_id(),
    };
    cx.call(ServerServiceClient::new, request, async |c, r| c.update_server(r).await).await
}

async fn create_policy(cx: &Context) -> anyhow::Result<Policy> {
    let all = || vec!["*".to_owned()];
    let policy = Policy {
        display_name: "Everything on the demo server".into(),
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: vec![ROLE.into()], ..Subjects::default() }),
        servers: vec![SERVER.into()],
        r#match: Some(Match { tools: all(), prompts: all(), resources: all(), methods: Vec::new() }),
        ..Policy::default()
    };
    let request = CreatePolicyRequest {
        parent: PARENT.into(),
        policy_id: "demo-allow".into(),
        policy: Some(policy),
        validate_only: false,
        request_id: request_id(),
    };
    cx.call(PolicyServiceClient::new, request, async |c, r| c.create_policy(r).await).await
}

/// The saved key while it is good, else a new one.
async fn ensure_key(cx: &Context, home: &Home) -> anyhow::Result<(ApiKey, String)> {
    if let Ok(text) = std::fs::read_to_string(home.dir().join(FILE))
        && let Ok(saved) = serde_json::from_str::<SavedKey>(&text)
    {
        let request = GetApiKeyRequest { name: saved.name };
        let known = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.get_api_key(r).await).await;
        match known {
            Ok(key) if key.revoke_time.is_none() => return Ok((key, saved.secret)),
            Ok(_revoked) => {}
            Err(error) if code(&error) == Some(Code::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let key = ApiKey { display_name: "Demo".into(), policy_roles: vec![ROLE.into()], ..ApiKey::default() };
    let request =
        CreateApiKeyRequest { parent: PARENT.into(), api_key: Some(key), validate_only: false, request_id: request_id() };
    let made = cx.call(ApiKeyServiceClient::new, request, async |c, r| c.create_api_key(r).await).await?;
    let key = made.api_key.unwrap_or_default();
    let saved = SavedKey { name: key.name.clone(), secret: made.secret };
    home.write_secret(FILE, &serde_json::to_string_pretty(&saved)?)?;
    Ok((key, saved.secret))
}
