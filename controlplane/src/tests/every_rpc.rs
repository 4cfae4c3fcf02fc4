//! One administrator's walk through the whole API. Every RPC in the descriptor set must be on it: a new one without a call here
//! fails the test.

use std::collections::BTreeSet;

use mcp_gateway::proto::{
    admin::v1::{self as admin, *},
    config::v1::{Effect, Endpoint, EndpointState, LimitWindow, Match, Subjects},
};
use uuid::Uuid;

use crate::testing::{Client, Running};

const ACME: &str = "organizations/acme";
const PASSWORD: &str = "a password of hers";

#[tokio::test]
async fn every_rpc_of_the_contract_is_called_and_answers() {
    let running = Running::start().await;
    let client = running.owner().await;
    history(&client).await;
    people(&client).await;
    traffic(&running, &client).await;
    limits(&client).await;
    documents(&client).await;
    rollouts(&running, &client).await;
    fleet(&running, &client).await;
    recover(&running, &client).await;
    delete(&client).await;
    sign_out(&client).await;

    let pool = prost_reflect::DescriptorPool::decode(mcp_gateway::proto::DESCRIPTORS).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "mcpgw.admin.v1");
    let methods = services.flat_map(|s| s.methods().map(|m| format!("/{}/{}", s.full_name(), m.name())).collect::<Vec<_>>());
    let called = client.called();
    let missing: BTreeSet<String> = methods.filter(|method| !called.contains(method)).collect();
    assert!(missing.is_empty(), "no test calls {missing:#?}");
}

async fn history(client: &Client) {
    let mut orgs = organization_service_client::OrganizationServiceClient::new(client.clone());
    let create = CreateOrganizationRequest { organization_id: "acme".into(), ..Default::default() };
    let made = orgs.create_organization(create).await.unwrap().into_inner();
    orgs.get_organization(GetOrganizationRequest { name: ACME.into() }).await.unwrap();
    orgs.list_organizations(ListOrganizationsRequest::default()).await.unwrap();
    let organization = Some(Organization { display_name: "Acme".into(), ..made.clone() });
    orgs.update_organization(UpdateOrganizationRequest { organization, ..Default::default() }).await.unwrap();

    let mut status = config_status_service_client::ConfigStatusServiceClient::new(client.clone());
    status.get_config_status(GetConfigStatusRequest::default()).await.unwrap();
    let mut watched = status.watch_config_status(WatchConfigStatusRequest::default()).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());

    let mut versions = config_version_service_client::ConfigVersionServiceClient::new(client.clone());
    let name = format!("configVersions/{}", made.config_version);
    versions.get_config_version(GetConfigVersionRequest { name }).await.unwrap();
    versions.list_config_versions(ListConfigVersionsRequest::default()).await.unwrap();
    let compare = DiffConfigVersionsRequest { from: made.config_version, ..Default::default() };
    let differ = versions.diff_config_versions(compare).await.unwrap().into_inner().diff.unwrap();
    assert_eq!(differ.resources[0].fields[0].field, "displayName");
    let back = RollbackConfigRequest { organization: ACME.into(), version: made.config_version, ..Default::default() };
    assert_eq!(versions.rollback_config(back).await.unwrap().into_inner().diff.unwrap().resources.len(), 1);
    let wait = WaitConfigVersionRequest { version: made.config_version, timeout: None };
    assert_eq!(versions.wait_config_version(wait).await.unwrap().into_inner().nodes, []);
}

/// After rows vanished, and after a restore.
async fn recover(running: &Running, client: &Client) {
    let because = |reason: &str| {
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("mcpgw-reason", reason.parse().unwrap());
        metadata
    };
    let mut versions = config_version_service_client::ConfigVersionServiceClient::new(client.clone());
    let mut bump = tonic::Request::new(BumpEpochRequest::default());
    *bump.metadata_mut() = because("restored");
    assert_eq!(versions.bump_epoch(bump).await.unwrap().into_inner().epoch, 2);
    crate::nodes::client::published(running).await;
    let mut sql = running.sql().await;
    sqlx::query("CREATE TABLE copied AS TABLE mcp_servers").execute(&mut sql).await.unwrap();
    sqlx::query("TRUNCATE mcp_servers CASCADE").execute(&mut sql).await.unwrap();
    let mut bump = tonic::Request::new(BumpEpochRequest::default()); // any version will do
    *bump.metadata_mut() = because("again");
    versions.bump_epoch(bump).await.unwrap();
    let mut published = running.core.publications.watch();
    published.wait_for(|now| now.as_ref().is_some_and(|now| now.holds.contains_key("default"))).await.unwrap();
    let mut accept = tonic::Request::new(AcceptConfigRequest { pool: "default".into(), ..Default::default() });
    *accept.metadata_mut() = because("meant");
    assert!(versions.accept_config(accept).await.unwrap().into_inner().hold.contains("servers"));
    sqlx::query("INSERT INTO mcp_servers SELECT * FROM copied").execute(&mut sql).await.unwrap();
}

async fn people(client: &Client) {
    let mut users = user_service_client::UserServiceClient::new(client.clone());
    let user = Some(User { email: "ann@example.com".into(), ..Default::default() });
    let create = CreateUserRequest { user, password: PASSWORD.into(), ..Default::default() };
    let ann = users.create_user(create).await.unwrap().into_inner();
    users.get_user(GetUserRequest { name: ann.name.clone() }).await.unwrap();
    users.list_users(ListUsersRequest::default()).await.unwrap();
    let user = Some(User { display_name: "Ann".into(), ..ann.clone() });
    users.update_user(UpdateUserRequest { user, ..Default::default() }).await.unwrap();
    let password = SetPasswordRequest { name: ann.name.clone(), new_password: "another password".into(), ..Default::default() };
    users.set_password(password).await.unwrap();

    let mut members = membership_service_client::MembershipServiceClient::new(client.clone());
    let membership = Some(Membership { user: ann.name.clone(), role: Role::Member.into(), ..Default::default() });
    let create = CreateMembershipRequest { parent: ACME.into(), membership, ..Default::default() };
    let place = members.create_membership(create).await.unwrap().into_inner();
    members.get_membership(GetMembershipRequest { name: place.name.clone() }).await.unwrap();
    members.list_memberships(ListMembershipsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let membership = Some(Membership { role: Role::Auditor.into(), ..place.clone() });
    members.update_membership(UpdateMembershipRequest { membership, ..Default::default() }).await.unwrap();
    members.delete_membership(DeleteMembershipRequest { name: place.name, ..Default::default() }).await.unwrap();
    users.delete_user(DeleteUserRequest { name: ann.name, ..Default::default() }).await.unwrap();
}

async fn traffic(running: &Running, client: &Client) {
    let mut servers = server_service_client::ServerServiceClient::new(client.clone());
    let endpoints = vec![Endpoint { url: "https://mcp.example.com/mcp".into(), weight: 0 }];
    let server = Some(Server { endpoints, ..Default::default() });
    let create = CreateServerRequest { parent: ACME.into(), server_id: "github".into(), server, ..Default::default() };
    let server = servers.create_server(create).await.unwrap().into_inner();
    servers.get_server(GetServerRequest { name: server.name.clone() }).await.unwrap();
    servers.list_servers(ListServersRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let server = Some(Server { display_name: "GitHub".into(), ..server });
    let server = servers.update_server(UpdateServerRequest { server, ..Default::default() }).await.unwrap().into_inner();
    let (url, state) = (server.endpoints[0].url.clone(), EndpointState::Drained.into());
    servers.set_endpoint_state(SetEndpointStateRequest { name: server.name, url, state, ..Default::default() }).await.unwrap();

    let mut policies = policy_service_client::PolicyServiceClient::new(client.clone());
    let policy = Policy {
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: vec!["engineer".into()], ..Default::default() }),
        servers: vec!["github".into()],
        r#match: Some(Match { tools: vec!["search_*".into()], ..Default::default() }),
        ..Default::default()
    };
    let create =
        CreatePolicyRequest { parent: ACME.into(), policy_id: "engineers".into(), policy: Some(policy), ..Default::default() };
    let policy = policies.create_policy(create).await.unwrap().into_inner();
    policies.get_policy(GetPolicyRequest { name: policy.name.clone() }).await.unwrap();
    policies.list_policies(ListPoliciesRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let policy = Some(Policy { servers: vec!["*".into()], ..policy });
    policies.update_policy(UpdatePolicyRequest { policy, ..Default::default() }).await.unwrap();

    let mut keys = api_key_service_client::ApiKeyServiceClient::new(client.clone());
    let api_key = Some(ApiKey { policy_roles: vec!["engineer".into()], ..Default::default() });
    let create = CreateApiKeyRequest { parent: ACME.into(), api_key, ..Default::default() };
    let key = keys.create_api_key(create).await.unwrap().into_inner().api_key.unwrap();
    keys.get_api_key(GetApiKeyRequest { name: key.name.clone() }).await.unwrap();
    keys.list_api_keys(ListApiKeysRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let api_key = Some(ApiKey { display_name: "CI".into(), ..key.clone() });
    keys.update_api_key(UpdateApiKeyRequest { api_key, ..Default::default() }).await.unwrap();
    keys.revoke_api_key(RevokeApiKeyRequest { name: key.name.clone(), ..Default::default() }).await.unwrap();
    keys.delete_api_key(DeleteApiKeyRequest { name: key.name, ..Default::default() }).await.unwrap();

    let request_id = Uuid::now_v7();
    let row = "INSERT INTO request_logs (request_id, decided_at, node_id, boot_id, lane, seq, class, org_id, decision) \
               SELECT $1, now(), $1, $1, 0, 1, 1, id, 1 FROM organizations WHERE slug = 'acme'";
    sqlx::query(row).bind(request_id).execute(&mut running.sql().await).await.unwrap();
    let mut logs = log_service_client::LogServiceClient::new(client.clone());
    logs.list_audit_logs(ListAuditLogsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let listed = logs.list_request_logs(ListRequestLogsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    assert_eq!(listed.into_inner().request_logs.len(), 1);
    logs.get_request_log(GetRequestLogRequest { request_id: request_id.to_string() }).await.unwrap();
    let row = "UPDATE organizations SET capture_retention_days = 1 WHERE slug = 'acme' RETURNING id";
    let acme: Uuid = sqlx::query_scalar(row).fetch_one(&mut running.sql().await).await.unwrap();
    let row = "INSERT INTO captured_payloads (request_id, decided_at, kind, org_id, text, bytes, cut, redactions) \
               VALUES ($1, now(), 1, $2, '{}', 2, false, 0)";
    sqlx::query(row).bind(request_id).bind(acme).execute(&mut running.sql().await).await.unwrap();
    let payload = logs.get_request_payload(GetRequestPayloadRequest { request_id: request_id.to_string() }).await.unwrap();
    assert_eq!(payload.into_inner().arguments.unwrap().text, "{}");
    logs.list_error_groups(ListErrorGroupsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let follow = FollowRequestLogsRequest { parent: ACME.into(), ..Default::default() };
    logs.follow_request_logs(follow).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let follow = FollowAuditLogsRequest { parent: ACME.into(), ..Default::default() };
    logs.follow_audit_logs(follow).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let mut evidence = evidence_service_client::EvidenceServiceClient::new(client.clone());
    let verify = VerifyLogsRequest { parent: ACME.into(), ..Default::default() };
    evidence.verify_logs(verify).await.unwrap().into_inner().message().await.unwrap().unwrap();
    evidence.list_checkpoints(ListCheckpointsRequest::default()).await.unwrap();
    let mut stats = stats_service_client::StatsServiceClient::new(client.clone());
    stats.get_stats(GetStatsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let watch = WatchStatsRequest { parent: ACME.into(), ..Default::default() };
    stats.watch_stats(watch).await.unwrap().into_inner().message().await.unwrap().unwrap();
}

async fn limits(client: &Client) {
    let mut logs = log_service_client::LogServiceClient::new(client.clone());
    logs.list_record_gaps(ListRecordGapsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let mut limits = rate_limit_service_client::RateLimitServiceClient::new(client.clone());
    let limit = RateLimit { windows: vec![LimitWindow { limit: 5, seconds: 60 }], ..Default::default() };
    let create = CreateRateLimitRequest {
        parent: ACME.into(),
        rate_limit_id: "all".into(),
        rate_limit: Some(limit),
        ..Default::default()
    };
    let limit = limits.create_rate_limit(create).await.unwrap().into_inner();
    limits.get_rate_limit(GetRateLimitRequest { name: limit.name.clone() }).await.unwrap();
    limits.list_rate_limits(ListRateLimitsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    limits.list_limit_usage(ListLimitUsageRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    let rate_limit = Some(RateLimit { max_concurrent: 3, ..limit.clone() });
    limits.update_rate_limit(UpdateRateLimitRequest { rate_limit, ..Default::default() }).await.unwrap();
    limits.delete_rate_limit(DeleteRateLimitRequest { name: limit.name, ..Default::default() }).await.unwrap();
}

async fn documents(client: &Client) {
    let mut documents = document_service_client::DocumentServiceClient::new(client.clone());
    let document = documents.export_organization(ExportOrganizationRequest { name: ACME.into() }).await.unwrap().into_inner();
    let apply = ApplyOrganizationRequest { document: Some(document), ..Default::default() };
    assert_eq!(documents.apply_organization(apply).await.unwrap().into_inner().config_version, 0);
}

async fn rollouts(running: &Running, client: &Client) {
    let row = "INSERT INTO nodes (id, pool, spki_sha256, hpke_public_key, certificate_expires_at) \
               VALUES ($1, 'default', '', '', now() + interval '1 d')";
    sqlx::query(row).bind(Uuid::now_v7()).execute(&mut running.sql().await).await.unwrap();
    let mut documents = document_service_client::DocumentServiceClient::new(client.clone());
    let document = documents.export_organization(ExportOrganizationRequest { name: ACME.into() }).await.unwrap().into_inner();
    let document = Some(OrganizationDocument { display_name: "Acme, soon".into(), ..document });
    let mut rollouts = rollout_service_client::RolloutServiceClient::new(client.clone());
    let create = CreateRolloutRequest { document, ..Default::default() };
    let name = rollouts.create_rollout(create).await.unwrap().into_inner().name;
    rollouts.get_rollout(GetRolloutRequest { name: name.clone() }).await.unwrap();
    rollouts.list_rollouts(ListRolloutsRequest { parent: ACME.into(), ..Default::default() }).await.unwrap();
    sqlx::query("UPDATE rollouts SET state = 'halted'").execute(&mut running.sql().await).await.unwrap();
    rollouts.resume_rollout(ResumeRolloutRequest { name: name.clone(), ..Default::default() }).await.unwrap();
    rollouts.abort_rollout(AbortRolloutRequest { name, ..Default::default() }).await.unwrap();
    sqlx::query("DELETE FROM nodes").execute(&mut running.sql().await).await.unwrap();
}

async fn fleet(running: &Running, client: &Client) {
    let mut tokens = join_token_service_client::JoinTokenServiceClient::new(client.clone());
    let create = CreateJoinTokenRequest { join_token: Some(JoinToken::default()), ..Default::default() };
    let token = tokens.create_join_token(create).await.unwrap().into_inner().join_token.unwrap();
    tokens.get_join_token(GetJoinTokenRequest { name: token.name.clone() }).await.unwrap();
    tokens.list_join_tokens(ListJoinTokensRequest::default()).await.unwrap();
    tokens.delete_join_token(DeleteJoinTokenRequest { name: token.name, ..Default::default() }).await.unwrap();

    let id = Uuid::now_v7();
    let row = "INSERT INTO nodes (id, pool, spki_sha256, hpke_public_key, certificate_expires_at) \
               VALUES ($1, 'default', '', '', now() + interval '1 d')";
    sqlx::query(row).bind(id).execute(&mut running.sql().await).await.unwrap();
    let mut nodes = node_service_client::NodeServiceClient::new(client.clone());
    let node = nodes.get_node(GetNodeRequest { name: format!("nodes/{id}") }).await.unwrap().into_inner();
    let node = Some(Node { labels: [("ring".to_owned(), "canary".to_owned())].into(), ..node });
    nodes.update_node(UpdateNodeRequest { node, ..Default::default() }).await.unwrap();
    nodes.list_nodes(ListNodesRequest::default()).await.unwrap();
    nodes.delete_node(DeleteNodeRequest { name: format!("nodes/{id}"), ..Default::default() }).await.unwrap();

    let mut custody = custody_service_client::CustodyServiceClient::new(client.clone());
    custody.list_custody_keys(ListCustodyKeysRequest::default()).await.unwrap();
    let rotate = RotateCustodyKeyRequest { purpose: "jwt".into(), ..Default::default() };
    custody.rotate_custody_key(rotate).await.unwrap();
}

async fn delete(client: &Client) {
    let mut policies = policy_service_client::PolicyServiceClient::new(client.clone());
    let name = format!("{ACME}/policies/engineers");
    policies.delete_policy(DeletePolicyRequest { name, ..Default::default() }).await.unwrap();
    let mut servers = server_service_client::ServerServiceClient::new(client.clone());
    servers.delete_server(DeleteServerRequest { name: format!("{ACME}/servers/github"), ..Default::default() }).await.unwrap();
    let mut orgs = organization_service_client::OrganizationServiceClient::new(client.clone());
    orgs.delete_organization(DeleteOrganizationRequest { name: ACME.into(), ..Default::default() }).await.unwrap();
}

async fn sign_out(client: &Client) {
    let mut auth = auth_service_client::AuthServiceClient::new(client.clone());
    let refresh = RefreshRequest { refresh_token: client.tokens.refresh_token.clone(), audience: 0 };
    let fresh: admin::TokenResponse = auth.refresh(refresh).await.unwrap().into_inner();
    auth.logout(LogoutRequest { refresh_token: fresh.refresh_token }).await.unwrap();
}
