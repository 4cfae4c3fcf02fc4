//! An administrator over gRPC, with the few calls that most tests begin with. Everything else goes through the generated clients on
//! [`Admin::channel`], with [`Admin::request`] adding the credential.

use std::time::Duration;

use anyhow::Context as _;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;
use mcp_gateway::proto::admin::v1::config_version_service_client::ConfigVersionServiceClient;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{
    ApiKey, Audience, CreateApiKeyRequest, CreateApiKeyResponse, CreateJoinTokenRequest, CreateMembershipRequest,
    CreateOrganizationRequest, CreatePolicyRequest, CreateServerRequest, CreateUserRequest, GetRequestLogRequest, JoinToken,
    LoginRequest, Membership, Organization, Policy, RequestLog, Role, Server, User, WaitConfigVersionRequest,
    WaitConfigVersionResponse,
};
use mcp_gateway::proto::config::v1::{Effect, Endpoint, Match, Subjects};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// Longest wait for something that happens within milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of everybody that [`Admin::member`] makes.
pub const MEMBER_PASSWORD: &str = "a long enough password";

/// A signed-in administrator.
#[derive(Clone)]
pub struct Admin {
    pub channel: Channel,
    pub token: String,
}

/// An allow rule in a few words; an empty list of patterns leaves its kind out.
#[derive(Clone, Copy, Default)]
pub struct Rule<'a> {
    pub name: &'a str,
    pub server: &'a str,
    pub roles: &'a [&'a str],
    pub anonymous: bool,
    pub tools: &'a [&'a str],
    pub prompts: &'a [&'a str],
    pub resources: &'a [&'a str],
}

impl Admin {
    /// Signs in for the admin API.
    pub async fn login(channel: Channel, email: &str, password: &str, organization: &str) -> Result<Self, tonic::Status> {
        let request = LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            organization: organization.to_owned(),
            audience: Audience::Admin.into(),
        };
        let answer = AuthServiceClient::new(channel.clone()).login(request).await?.into_inner();
        Ok(Self { channel, token: answer.access_token })
    }

    /// A request with this administrator's credential.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let value: MetadataValue<_> = format!("Bearer {}", self.token).parse().expect("tokens are ASCII");
        request.metadata_mut().insert("authorization", value);
        request.set_timeout(PATIENCE);
        request
    }

    pub async fn create_org(&self, slug: &str) -> anyhow::Result<Organization> {
        let request = CreateOrganizationRequest {
            organization_id: slug.to_owned(),
            organization: Some(Organization { display_name: slug.to_owned(), ..Organization::default() }),
            ..CreateOrganizationRequest::default()
        };
        Ok(OrganizationServiceClient::new(self.channel.clone()).create_organization(self.request(request)).await?.into_inner())
    }

    /// A new user with a role in an organisation; a token of that user's for the gateway.
    pub async fn member(&self, org: &str, email: &str, role: Role) -> anyhow::Result<String> {
        let user = User { email: email.to_owned(), ..User::default() };
        let request =
            CreateUserRequest { user: Some(user), password: MEMBER_PASSWORD.to_owned(), ..CreateUserRequest::default() };
        let user = UserServiceClient::new(self.channel.clone()).create_user(self.request(request)).await?.into_inner();
        let membership = Membership { user: user.name, role: role.into(), ..Membership::default() };
        let request = CreateMembershipRequest {
            parent: format!("organizations/{org}"),
            membership: Some(membership),
            ..CreateMembershipRequest::default()
        };
        MembershipServiceClient::new(self.channel.clone()).create_membership(self.request(request)).await?;
        let request = LoginRequest {
            email: email.to_owned(),
            password: MEMBER_PASSWORD.to_owned(),
            organization: format!("organizations/{org}"),
            audience: Audience::Gateway.into(),
        };
        Ok(AuthServiceClient::new(self.channel.clone()).login(request).await?.into_inner().access_token)
    }

    pub async fn create_server(&self, org: &str, slug: &str, url: &str, allow_anonymous: bool) -> anyhow::Result<Server> {
        let endpoint = Endpoint { url: url.to_owned(), weight: 1 };
        self.register(org, slug, Server { endpoints: vec![endpoint], allow_anonymous, ..Server::default() }).await
    }

    /// Creates a server that is registered as `server` says.
    pub async fn register(&self, org: &str, slug: &str, server: Server) -> anyhow::Result<Server> {
        let request = CreateServerRequest {
            parent: format!("organizations/{org}"),
            server_id: slug.to_owned(),
            server: Some(server),
            ..CreateServerRequest::default()
        };
        Ok(ServerServiceClient::new(self.channel.clone()).create_server(self.request(request)).await?.into_inner())
    }

    pub async fn create_policy(&self, org: &str, rule: Rule<'_>) -> anyhow::Result<Policy> {
        let request = CreatePolicyRequest {
            parent: format!("organizations/{org}"),
            policy_id: rule.name.to_owned(),
            policy: Some(rule.policy()),
            ..CreatePolicyRequest::default()
        };
        Ok(PolicyServiceClient::new(self.channel.clone()).create_policy(self.request(request)).await?.into_inner())
    }

    pub async fn create_key(&self, org: &str, roles: &[&str]) -> anyhow::Result<CreateApiKeyResponse> {
        let request = CreateApiKeyRequest {
            parent: format!("organizations/{org}"),
            api_key: Some(ApiKey { policy_roles: owned(roles), ..ApiKey::default() }),
            ..CreateApiKeyRequest::default()
        };
        Ok(ApiKeyServiceClient::new(self.channel.clone()).create_api_key(self.request(request)).await?.into_inner())
    }

    /// The text of a one-time join token for the pool `default`.
    pub async fn join_token(&self) -> anyhow::Result<String> {
        let request = CreateJoinTokenRequest { join_token: Some(JoinToken::default()), ..CreateJoinTokenRequest::default() };
        let created = JoinTokenServiceClient::new(self.channel.clone()).create_join_token(self.request(request)).await?;
        Ok(created.into_inner().secret)
    }

    /// Returns when every connected node runs `version`.
    pub async fn wait(&self, version: u64) -> anyhow::Result<WaitConfigVersionResponse> {
        let patience = prost_types::Duration { seconds: 60, nanos: 0 };
        let request = WaitConfigVersionRequest { version, timeout: Some(patience) };
        let mut client = ConfigVersionServiceClient::new(self.channel.clone());
        Ok(client.wait_config_version(self.request(request)).await.with_context(|| format!("version {version}"))?.into_inner())
    }

    /// The record of a request, once both its frames have arrived.
    pub async fn record(&self, request_id: &str) -> anyhow::Result<RequestLog> {
        let mut client = LogServiceClient::new(self.channel.clone());
        let arrived = async {
            // Records are shipped behind the answer; the API offers no watch yet, so this asks until the end is folded in.
            let mut turn = tokio::time::interval(Duration::from_millis(20));
            loop {
                turn.tick().await;
                let request = self.request(GetRequestLogRequest { request_id: request_id.to_owned() });
                match client.get_request_log(request).await.map(tonic::Response::into_inner) {
                    Ok(record) if record.outcome != "pending" => return Ok(record),
                    Ok(_) => {}
                    Err(status) if status.code() == tonic::Code::NotFound => {}
                    Err(status) => return Err(status),
                }
            }
        };
        Ok(timeout(PATIENCE, arrived).await.with_context(|| format!("no record of {request_id}"))??)
    }
}

impl Rule<'_> {
    /// The rule as the API takes it.
    pub fn policy(&self) -> Policy {
        Policy {
            effect: Effect::Allow.into(),
            subjects: Some(Subjects { roles: owned(self.roles), anonymous: self.anonymous, ..Subjects::default() }),
            servers: vec![self.server.to_owned()],
            r#match: Some(Match {
                tools: owned(self.tools),
                prompts: owned(self.prompts),
                resources: owned(self.resources),
                methods: Vec::new(),
            }),
            ..Policy::default()
        }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
