//! An API key as the admin API writes it, to and from the row; what is expected of each field, all violations at once.

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1 as admin;
use serde_json::json;
use uuid::Uuid;

use super::super::{aip, error::Error};
use crate::domain::{
    ApiKey, Meta, ids,
    rules::{self, Rules},
};

/// What a change may name.
pub const ALL: [&str; 3] = ["display_name", "policy_roles", "groups"];

/// A new key of which nothing is said yet but what its secret's hash is.
pub fn new(org_id: Uuid, secret_sha256: [u8; 32]) -> ApiKey {
    ApiKey {
        id: ids::public_id(),
        uid: Uuid::now_v7(),
        org_id,
        user_id: None,
        display_name: String::new(),
        secret_sha256: secret_sha256.to_vec(),
        policy_roles: Vec::new(),
        groups: Vec::new(),
        expires_at: None,
        revoked_at: None,
        meta: Meta::default(),
    }
}

/// `organizations/{org}/apiKeys/{key id}`.
pub fn name(org: &str, id: &str) -> String {
    format!("organizations/{org}/apiKeys/{id}")
}

/// The key as callers see it.
pub fn message(org: &str, key: &ApiKey) -> admin::ApiKey {
    let uid = key.uid.to_string();
    admin::ApiKey {
        name: name(org, &key.id),
        display_name: key.display_name.clone(),
        user: user(key),
        policy_roles: key.policy_roles.clone(),
        groups: key.groups.clone(),
        expire_time: key.expires_at.map(aip::timestamp),
        revoke_time: key.revoked_at.map(aip::timestamp),
        etag: aip::etag(&uid, &key.meta),
        create_time: Some(aip::timestamp(key.meta.created_at)),
        update_time: Some(aip::timestamp(key.meta.updated_at)),
        config_version: key.meta.config_version.unsigned_abs(),
        uid,
    }
}

/// The key as records show it.
pub fn record(key: &ApiKey, changed: &[&str]) -> serde_json::Value {
    json!({
        "fields": changed,
        "user": user(key),
        "policy_roles": key.policy_roles,
        "groups": key.groups,
        "expire_time": key.expires_at,
    })
}

/// What only a new key takes over from a request: whose it is, and when it ends.
pub fn owner_and_end(key: &mut ApiKey, given: &admin::ApiKey, now: DateTime<Utc>) -> Result<(), Error> {
    if !given.user.is_empty() {
        let [user] = aip::ids("api_key.user", &given.user, ["users"])?;
        let user = Uuid::try_parse(user).ok().ok_or_else(|| Error::invalid("api_key.user", "expected users/{uid}"))?;
        key.user_id = Some(user);
    }
    if let Some(at) = &given.expire_time {
        let at = aip::moment("api_key.expire_time", at)?;
        if at <= now {
            return Err(Error::invalid("api_key.expire_time", "expected a moment that is still to come, or nothing for never"));
        }
        key.expires_at = Some(at);
    }
    Ok(())
}

/// A change may repeat what cannot change, as it was read; another value is a mistake.
pub fn same_owner_and_end(key: &ApiKey, given: &admin::ApiKey) -> Result<(), Error> {
    let mut rules = Rules::default();
    let same_user = given.user.is_empty() || given.user == user(key);
    rules.expect(same_user, "api_key.user", "cannot change: make another key");
    let same_end = given.expire_time.is_none() || given.expire_time == key.expires_at.map(aip::timestamp);
    rules.expect(same_end, "api_key.expire_time", "cannot change: make another key");
    rules.check().map_err(Error::Invalid)
}

/// Takes the named fields over from a request.
pub fn apply(key: &mut ApiKey, given: &admin::ApiKey, fields: &[&str]) -> Result<(), Error> {
    let mut rules = Rules::default();
    for field in fields {
        match *field {
            "display_name" => {
                rules.display_name("api_key.display_name", &given.display_name);
                key.display_name.clone_from(&given.display_name);
            }
            "policy_roles" => {
                rules.policy_roles("api_key.policy_roles", &given.policy_roles);
                key.policy_roles = rules::set(given.policy_roles.clone());
            }
            "groups" => {
                rules.names("api_key.groups", &given.groups);
                key.groups = rules::set(given.groups.clone());
            }
            other => return Err(Error::invalid("update_mask", format!("{other:?} cannot be changed"))),
        }
    }
    if key.user_id.is_some() {
        let expected = "expected nothing: a key of a user has what the user's membership gives";
        rules.expect(key.policy_roles.is_empty(), "api_key.policy_roles", expected);
        rules.expect(key.groups.is_empty(), "api_key.groups", expected);
    }
    rules.check().map_err(Error::Invalid)
}

fn user(key: &ApiKey) -> String {
    key.user_id.map(|id| format!("users/{id}")).unwrap_or_default()
}
