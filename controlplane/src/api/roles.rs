//! THE table of who may call what. One row per RPC; an RPC without a row is refused.
//!
//! Says which roles, not which organisation: that is `Caller::organization`. Read by the access layer for every call.

use mcp_gateway::proto::admin::v1::Role;

/// Who may make a call. Platform administrators may make every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Without a credential.
    Anyone,
    /// Only platform administrators.
    Platform,
    /// Whoever is signed in, about itself; the handler sees to that.
    Oneself,
    /// Members of the token's organisation with one of these roles.
    Roles(&'static [Role]),
}

use Role::{Admin, Auditor, Member, Operator, Owner, ServiceAccount};

/// Everybody in the organisation.
const ALL: Who = Who::Roles(&[Owner, Admin, Operator, Auditor, Member, ServiceAccount]);
/// Who reads the configuration.
const READ: Who = Who::Roles(&[Owner, Admin, Operator, Auditor]);
/// Who changes the configuration.
const WRITE: Who = Who::Roles(&[Owner, Admin]);
/// Who acts on what runs, without changing the configuration.
const OPERATE: Who = Who::Roles(&[Owner, Admin, Operator]);
/// Who reads what administrators did.
const AUDIT: Who = Who::Roles(&[Owner, Admin, Auditor]);
/// Who reads what was said in calls.
const PAYLOADS: Who = Who::Roles(&[Owner, Auditor]);
/// Who changes the organisation itself.
const OWN: Who = Who::Roles(&[Owner]);

/// Path of the RPC, and who may call it.
pub const TABLE: &[(&str, Who)] = &[
    ("/mcpgw.admin.v1.AuthService/Login", Who::Anyone),
    ("/mcpgw.admin.v1.AuthService/Refresh", Who::Anyone),
    ("/mcpgw.admin.v1.AuthService/Logout", Who::Anyone),
    ("/mcpgw.admin.v1.OrganizationService/CreateOrganization", Who::Platform),
    ("/mcpgw.admin.v1.OrganizationService/GetOrganization", READ),
    ("/mcpgw.admin.v1.OrganizationService/ListOrganizations", READ),
    ("/mcpgw.admin.v1.OrganizationService/UpdateOrganization", OWN),
    ("/mcpgw.admin.v1.OrganizationService/DeleteOrganization", OWN),
    ("/mcpgw.admin.v1.UserService/CreateUser", Who::Platform),
    ("/mcpgw.admin.v1.UserService/GetUser", Who::Oneself),
    ("/mcpgw.admin.v1.UserService/ListUsers", Who::Platform),
    ("/mcpgw.admin.v1.UserService/UpdateUser", Who::Oneself),
    ("/mcpgw.admin.v1.UserService/DeleteUser", Who::Platform),
    ("/mcpgw.admin.v1.UserService/SetPassword", Who::Oneself),
    ("/mcpgw.admin.v1.MembershipService/CreateMembership", WRITE),
    ("/mcpgw.admin.v1.MembershipService/GetMembership", READ),
    ("/mcpgw.admin.v1.MembershipService/ListMemberships", READ),
    ("/mcpgw.admin.v1.MembershipService/UpdateMembership", WRITE),
    ("/mcpgw.admin.v1.MembershipService/DeleteMembership", WRITE),
    ("/mcpgw.admin.v1.ApiKeyService/CreateApiKey", WRITE),
    ("/mcpgw.admin.v1.ApiKeyService/GetApiKey", READ),
    ("/mcpgw.admin.v1.ApiKeyService/ListApiKeys", READ),
    ("/mcpgw.admin.v1.ApiKeyService/UpdateApiKey", WRITE),
    ("/mcpgw.admin.v1.ApiKeyService/DeleteApiKey", WRITE),
    ("/mcpgw.admin.v1.ApiKeyService/RevokeApiKey", WRITE),
    ("/mcpgw.admin.v1.ServerService/CreateServer", WRITE),
    ("/mcpgw.admin.v1.ServerService/GetServer", ALL),
    ("/mcpgw.admin.v1.ServerService/ListServers", ALL),
    ("/mcpgw.admin.v1.ServerService/UpdateServer", WRITE),
    ("/mcpgw.admin.v1.ServerService/DeleteServer", WRITE),
    ("/mcpgw.admin.v1.ServerService/SetEndpointState", OPERATE),
    ("/mcpgw.admin.v1.PolicyService/CreatePolicy", WRITE),
    ("/mcpgw.admin.v1.PolicyService/GetPolicy", READ),
    ("/mcpgw.admin.v1.PolicyService/ListPolicies", READ),
    ("/mcpgw.admin.v1.PolicyService/UpdatePolicy", WRITE),
    ("/mcpgw.admin.v1.PolicyService/DeletePolicy", WRITE),
    ("/mcpgw.admin.v1.RateLimitService/CreateRateLimit", WRITE),
    ("/mcpgw.admin.v1.RateLimitService/GetRateLimit", READ),
    ("/mcpgw.admin.v1.RateLimitService/ListRateLimits", READ),
    ("/mcpgw.admin.v1.RateLimitService/UpdateRateLimit", WRITE),
    ("/mcpgw.admin.v1.RateLimitService/DeleteRateLimit", WRITE),
    ("/mcpgw.admin.v1.RateLimitService/ListLimitUsage", READ),
    ("/mcpgw.admin.v1.DocumentService/ExportOrganization", WRITE),
    ("/mcpgw.admin.v1.DocumentService/ApplyOrganization", WRITE),
    ("/mcpgw.admin.v1.LogService/ListAuditLogs", AUDIT),
    ("/mcpgw.admin.v1.LogService/ListRequestLogs", READ),
    ("/mcpgw.admin.v1.LogService/GetRequestLog", READ),
    ("/mcpgw.admin.v1.LogService/GetRequestPayload", PAYLOADS),
    ("/mcpgw.admin.v1.LogService/FollowRequestLogs", READ),
    ("/mcpgw.admin.v1.LogService/FollowAuditLogs", AUDIT),
    ("/mcpgw.admin.v1.LogService/ListErrorGroups", READ),
    ("/mcpgw.admin.v1.EvidenceService/VerifyLogs", AUDIT),
    ("/mcpgw.admin.v1.EvidenceService/ListCheckpoints", AUDIT),
    ("/mcpgw.admin.v1.LogService/ListRecordGaps", READ),
    ("/mcpgw.admin.v1.StatsService/GetStats", READ),
    ("/mcpgw.admin.v1.StatsService/WatchStats", READ),
    ("/mcpgw.admin.v1.ConfigStatusService/GetConfigStatus", READ),
    ("/mcpgw.admin.v1.ConfigStatusService/WatchConfigStatus", READ),
    ("/mcpgw.admin.v1.ConfigVersionService/GetConfigVersion", READ),
    ("/mcpgw.admin.v1.ConfigVersionService/ListConfigVersions", READ),
    ("/mcpgw.admin.v1.ConfigVersionService/WaitConfigVersion", READ),
    ("/mcpgw.admin.v1.ConfigVersionService/DiffConfigVersions", READ),
    ("/mcpgw.admin.v1.ConfigVersionService/RollbackConfig", WRITE),
    ("/mcpgw.admin.v1.RolloutService/CreateRollout", WRITE),
    ("/mcpgw.admin.v1.RolloutService/GetRollout", READ),
    ("/mcpgw.admin.v1.RolloutService/ListRollouts", READ),
    ("/mcpgw.admin.v1.RolloutService/ResumeRollout", WRITE),
    ("/mcpgw.admin.v1.RolloutService/AbortRollout", WRITE),
    ("/mcpgw.admin.v1.ConfigVersionService/AcceptConfig", Who::Platform),
    ("/mcpgw.admin.v1.ConfigVersionService/BumpEpoch", Who::Platform),
    ("/mcpgw.admin.v1.NodeService/GetNode", Who::Platform),
    ("/mcpgw.admin.v1.NodeService/ListNodes", Who::Platform),
    ("/mcpgw.admin.v1.NodeService/UpdateNode", Who::Platform),
    ("/mcpgw.admin.v1.NodeService/DeleteNode", Who::Platform),
    ("/mcpgw.admin.v1.JoinTokenService/CreateJoinToken", Who::Platform),
    ("/mcpgw.admin.v1.JoinTokenService/GetJoinToken", Who::Platform),
    ("/mcpgw.admin.v1.JoinTokenService/ListJoinTokens", Who::Platform),
    ("/mcpgw.admin.v1.JoinTokenService/DeleteJoinToken", Who::Platform),
    ("/mcpgw.admin.v1.CustodyService/ListCustodyKeys", Who::Platform),
    ("/mcpgw.admin.v1.CustodyService/RotateCustodyKey", Who::Platform),
    ("/grpc.health.v1.Health/Check", Who::Anyone),
    ("/grpc.health.v1.Health/Watch", Who::Anyone),
    ("/grpc.health.v1.Health/List", Who::Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Who::Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Who::Anyone),
];

/// The row of a path.
pub fn of(path: &str) -> Option<(&'static str, Who)> {
    TABLE.iter().find(|(row, _)| *row == path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_admin_rpc_of_the_contract_has_exactly_one_row() {
        let pool = prost_reflect::DescriptorPool::decode(mcp_gateway::proto::DESCRIPTORS).unwrap();
        let admin = pool.services().filter(|service| service.package_name() == "mcpgw.admin.v1");
        let methods: Vec<String> = admin
            .flat_map(|service| service.methods().map(|m| format!("/{}/{}", service.full_name(), m.name())).collect::<Vec<_>>())
            .collect();
        let rows: BTreeSet<&str> = TABLE.iter().map(|(path, _)| *path).collect();
        assert_eq!(rows.len(), TABLE.len(), "a path has two rows");
        let missing: Vec<&String> = methods.iter().filter(|method| !rows.contains(method.as_str())).collect();
        assert!(missing.is_empty(), "without a row: {missing:?}");
        let known: BTreeSet<&str> = methods.iter().map(String::as_str).collect();
        let stray: Vec<&&str> = rows.iter().filter(|row| row.starts_with("/mcpgw.") && !known.contains(**row)).collect();
        assert!(stray.is_empty(), "rows of methods that are not in the contract: {stray:?}");
    }

    #[test]
    fn what_has_no_row_is_nobodys() {
        assert_eq!(of("/mcpgw.admin.v1.ServerService/Explode"), None);
    }
}
