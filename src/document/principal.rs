//! What a member's principal is called by policies: the same on every plane.

use crate::proto::admin::v1::Role;

/// The name of a role in tokens, policies and messages.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "none",
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
        Role::Member => "member",
        Role::ServiceAccount => "service_account",
    }
}

/// The role names of a member's principal: the membership's role, then those that policies made up. Sorted, each once.
#[must_use]
pub fn principal_roles(role: Role, policy_roles: &[String]) -> Vec<String> {
    let mut roles: Vec<String> = policy_roles.to_vec();
    roles.push(role_name(role).to_owned());
    roles.sort();
    roles.dedup();
    roles
}
