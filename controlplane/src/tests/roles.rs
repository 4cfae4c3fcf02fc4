//! Every role × RPC pair of the role table, tried over the wire; and what one organisation learns of another: nothing.

use mcp_gateway::proto::admin::v1::{
    AbortRolloutRequest, DeleteMembershipRequest, DeleteOrganizationRequest, DeletePolicyRequest, DeleteRateLimitRequest,
    DeleteServerRequest, DiffConfigVersionsRequest, GetMembershipRequest, GetOrganizationRequest, GetPolicyRequest,
    GetRateLimitRequest, GetRolloutRequest, GetServerRequest, ListAuditLogsRequest, ListConfigVersionsRequest,
    ListMembershipsRequest, ListPoliciesRequest, ListRateLimitsRequest, ListRequestLogsRequest, ListRolloutsRequest,
    ListServersRequest, Organization, ResumeRolloutRequest, Role, RollbackConfigRequest, SetEndpointStateRequest,
    UpdateOrganizationRequest,
};
use prost::Message;
use tonic::{Code, Status, client::Grpc};
use tonic_prost::ProstCodec;

use super::admin::Admin;
use crate::{
    api::roles::{TABLE, Who},
    testing::Client,
};

const ROLES: [Role; 6] = [Role::Owner, Role::Admin, Role::Operator, Role::Auditor, Role::Member, Role::ServiceAccount];
/// What the access layer says to a role that has no part in a call; handlers have other words.
const NO_ROLE: &str = "your role does not permit this call";

/// Calls any method with an encoded request, and waits for the first message of its answer; neither it nor what follows is read.
async fn call<M: Message + Default + 'static>(client: &Client, path: &'static str, request: M) -> Result<(), Status> {
    let mut grpc = Grpc::new(client.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<M, ()>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let mut answer = grpc.server_streaming(tonic::Request::new(request), path, codec).await?.into_inner();
    answer.message().await.map(drop)
}

fn admitted(answer: &Result<(), Status>) -> bool {
    match answer {
        Ok(()) => true,
        Err(status) => {
            assert_ne!(status.code(), Code::Unauthenticated, "{status:?}");
            !(status.code() == Code::PermissionDenied && status.message() == NO_ROLE)
        }
    }
}

#[tokio::test]
async fn each_role_may_make_exactly_the_calls_of_its_rows() {
    let mut admin = Admin::start().await;
    let acme = admin.organization("acme").await;
    for role in ROLES {
        let person = admin.member(acme, role).await;
        for (path, who) in TABLE.iter().filter(|(path, _)| path.starts_with("/mcpgw.")) {
            let expected = match who {
                Who::Anyone => continue,
                Who::Oneself => true,
                Who::Platform => false,
                Who::Roles(roles) => roles.contains(&role),
            };
            assert_eq!(admitted(&call(&person.client(), path, ()).await), expected, "{role:?} {path}");
        }
    }
    let refused = TABLE.iter().filter(|(path, _)| path.starts_with("/mcpgw.")).map(|(_, who)| match who {
        Who::Anyone | Who::Oneself => 0,
        Who::Platform => ROLES.len(),
        Who::Roles(roles) => ROLES.len() - roles.len(),
    });
    let on_record: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_logs WHERE action = 'api.call' AND outcome = 'denied'")
        .fetch_one(&mut admin.sql)
        .await
        .unwrap();
    assert_eq!(usize::try_from(on_record).unwrap(), refused.sum::<usize>(), "each refusal is on record");
    let platform = admin.platform_admin().await;
    let anonymous = admin.running.anonymous().await;
    for (path, who) in TABLE.iter().filter(|(path, who)| path.starts_with("/mcpgw.") && *who != Who::Anyone) {
        assert!(admitted(&call(&platform.client(), path, ()).await), "platform administrator {path} {who:?}");
        let refused = call(&anonymous, path, ()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "anonymous {path}");
    }
}

/// The table, said a second time in the words of the contract (`Role` in common.proto).
#[test]
fn the_table_says_what_the_contract_says_of_the_roles() {
    let calls = |role: Role| {
        let may = TABLE.iter().filter(|(_, who)| matches!(who, Who::Roles(roles) if roles.contains(&role)));
        may.filter_map(|(path, _)| path.rsplit('/').next()).collect::<Vec<_>>()
    };
    for role in [Role::Member, Role::ServiceAccount] {
        assert_eq!(calls(role), ["GetServer", "ListServers"]);
    }
    let reads =
        |name: &&str| ["Get", "List", "Wait", "Watch", "Follow", "Diff", "Verify"].iter().any(|verb| name.starts_with(verb));
    let operates = |name: &str| name == "SetEndpointState";
    assert!(calls(Role::Operator).iter().all(|name| (reads(name) || operates(name)) && !name.ends_with("AuditLogs")));
    assert!(calls(Role::Operator).contains(&"SetEndpointState"));
    assert!(calls(Role::Auditor).iter().all(reads) && calls(Role::Auditor).contains(&"ListAuditLogs"));
    let (owner, administrator) = (calls(Role::Owner), calls(Role::Admin));
    let more: Vec<&&str> = owner.iter().filter(|name| !administrator.contains(name)).collect();
    assert_eq!(more, [&"UpdateOrganization", &"DeleteOrganization", &"GetRequestPayload"]);
}

/// What a caller is told of another organisation's thing and of one that never was.
async fn told<M: Message + Default + 'static>(
    client: &Client,
    path: &'static str,
    with: impl Fn(&str) -> M,
) -> [(Code, String); 2] {
    let mut told = Vec::new();
    for slug in ["other", "never"] {
        let status = call(client, path, with(slug)).await.expect_err(path);
        assert!(status.details().is_empty(), "{path}");
        told.push((status.code(), status.message().replace(slug, "*")));
    }
    told.try_into().unwrap()
}

#[tokio::test]
async fn another_organisation_looks_like_one_that_never_was() {
    let mut admin = Admin::start().await;
    let (acme, other) = (admin.organization("acme").await, admin.organization("other").await);
    let (owner, stranger) = (admin.member(acme, Role::Owner).await, admin.member(other, Role::Owner).await);
    let client = owner.client();
    let org = |slug: &str| format!("organizations/{slug}");
    let server = |slug: &str| format!("organizations/{slug}/servers/s");
    let policy = |slug: &str| format!("organizations/{slug}/policies/p");
    let limit = |slug: &str| format!("organizations/{slug}/rateLimits/l");
    let rollout = |slug: &str| format!("organizations/{slug}/rollouts/{}", uuid::Uuid::nil());
    let member = |slug: &str| format!("organizations/{slug}/memberships/{}", stranger.user);
    let of = |service: &str, method: &str| -> &'static str {
        let path = format!("/mcpgw.admin.v1.{service}Service/{method}");
        TABLE.iter().find(|(row, _)| *row == path).expect("a row").0
    };
    let before = admin.state().await;
    let told = [
        told(&client, of("Organization", "GetOrganization"), |s| GetOrganizationRequest { name: org(s) }).await,
        told(&client, of("Organization", "UpdateOrganization"), |s| UpdateOrganizationRequest {
            organization: Some(Organization { name: org(s), display_name: "x".into(), ..Default::default() }),
            ..Default::default()
        })
        .await,
        told(&client, of("Organization", "DeleteOrganization"), |s| DeleteOrganizationRequest {
            name: org(s),
            ..Default::default()
        })
        .await,
        told(&client, of("Membership", "GetMembership"), |s| GetMembershipRequest { name: member(s) }).await,
        told(&client, of("Membership", "DeleteMembership"), |s| DeleteMembershipRequest {
            name: member(s),
            ..Default::default()
        })
        .await,
        told(&client, of("Membership", "ListMemberships"), |s| ListMembershipsRequest { parent: org(s), ..Default::default() })
            .await,
        told(&client, of("Server", "GetServer"), |s| GetServerRequest { name: server(s) }).await,
        told(&client, of("Server", "DeleteServer"), |s| DeleteServerRequest { name: server(s), ..Default::default() }).await,
        told(&client, of("Server", "ListServers"), |s| ListServersRequest { parent: org(s), ..Default::default() }).await,
        told(&client, of("Server", "SetEndpointState"), |s| SetEndpointStateRequest {
            name: server(s),
            state: 1,
            ..Default::default()
        })
        .await,
        told(&client, of("Policy", "GetPolicy"), |s| GetPolicyRequest { name: policy(s) }).await,
        told(&client, of("Policy", "DeletePolicy"), |s| DeletePolicyRequest { name: policy(s), ..Default::default() }).await,
        told(&client, of("Policy", "ListPolicies"), |s| ListPoliciesRequest { parent: org(s), ..Default::default() }).await,
        told(&client, of("RateLimit", "GetRateLimit"), |s| GetRateLimitRequest { name: limit(s) }).await,
        told(&client, of("RateLimit", "DeleteRateLimit"), |s| DeleteRateLimitRequest { name: limit(s), ..Default::default() })
            .await,
        told(&client, of("RateLimit", "ListRateLimits"), |s| ListRateLimitsRequest { parent: org(s), ..Default::default() })
            .await,
        told(&client, of("ConfigVersion", "ListConfigVersions"), |s| ListConfigVersionsRequest {
            organization: org(s),
            ..Default::default()
        })
        .await,
        told(&client, of("ConfigVersion", "DiffConfigVersions"), |s| DiffConfigVersionsRequest {
            organization: org(s),
            ..Default::default()
        })
        .await,
        told(&client, of("ConfigVersion", "RollbackConfig"), |s| RollbackConfigRequest {
            organization: org(s),
            ..Default::default()
        })
        .await,
        told(&client, of("Rollout", "GetRollout"), |s| GetRolloutRequest { name: rollout(s) }).await,
        told(&client, of("Rollout", "ListRollouts"), |s| ListRolloutsRequest { parent: org(s), ..Default::default() }).await,
        told(&client, of("Rollout", "ResumeRollout"), |s| ResumeRolloutRequest { name: rollout(s), ..Default::default() }).await,
        told(&client, of("Rollout", "AbortRollout"), |s| AbortRolloutRequest { name: rollout(s), ..Default::default() }).await,
        told(&client, of("Log", "ListAuditLogs"), |s| ListAuditLogsRequest { parent: org(s), ..Default::default() }).await,
        told(&client, of("Log", "ListRequestLogs"), |s| ListRequestLogsRequest { parent: org(s), ..Default::default() }).await,
    ];
    for [theirs, never] in told {
        assert_eq!(theirs, never);
        assert!(matches!(theirs.0, Code::NotFound | Code::PermissionDenied | Code::Unimplemented), "{theirs:?}");
    }
    assert_eq!(admin.state().await, before);
}
