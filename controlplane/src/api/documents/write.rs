//! Writes what a document asks for, inside a change of the caller's. Decides nothing: the plan has.

use mcp_gateway::proto::admin::v1::OrganizationDocument;

use super::super::{
    Api, aip, api_keys, error::Error, memberships, organizations, passwords, policies, rate_limits, servers, users,
};
use super::current::Current;
use super::plan::{Edit, How, Plan, plan};
use crate::{
    domain::{ApiKey, Membership, Organization, Policy, RateLimit, Server},
    store::{self, change::Change},
};

/// Makes an organisation what a document says; returns what is worth a note. Touches nothing where that is so already
/// ([`Change::is_empty`]); the caller seals and commits.
pub async fn write(api: &Api, change: &mut Change, document: &OrganizationDocument, how: &How) -> Result<Vec<String>, Error> {
    let slug = document.organization.as_str();
    let held = store::organizations::hold(change.connection(), slug).await?;
    let mut current = match held {
        Some(organization) => Current::of(change.connection(), organization).await?,
        None if how.authority.platform => {
            aip::new_id("organization", slug)?;
            Current::default()
        }
        None => return Err(Error::NotFound(format!("organizations/{slug}"))),
    };
    current.look_around(change.connection(), document, how.authority.platform).await?;
    let plan = plan(document, &current, how, &api.core.custody)?;
    let Plan { organization, organization_edit, users, members, keys, servers, policies, limits, notes } = plan;
    let org = match organization_edit {
        Some(edit) => self::organization(change, edit.before.as_ref(), organization).await?,
        None => organization,
    };
    if !users.is_empty() {
        // Nobody knows this password: they cannot sign in before they are given one.
        let nobodys = api.passwords.hash(&passwords::make_up()).await?;
        for user in users {
            let user = store::users::insert(change.connection(), &user, &nobodys).await?;
            change.touch(users::touched((None, Some(&user)), false));
        }
    }
    for edit in keys.iter().filter(|edit| edit.after.is_none()) {
        key(change, &org, edit).await?;
    }
    for edit in &members {
        member(change, &org, edit).await?;
    }
    for edit in keys.iter().filter(|edit| edit.after.is_some()) {
        key(change, &org, edit).await?;
    }
    for edit in &servers {
        server(change, &org, edit).await?;
    }
    for edit in &policies {
        policy(change, &org, edit).await?;
    }
    for edit in &limits {
        limit(change, &org, edit).await?;
    }
    Ok(notes)
}

async fn organization(change: &mut Change, before: Option<&Organization>, after: Organization) -> Result<Organization, Error> {
    let row = match before {
        None => store::organizations::insert(change.connection(), &after).await?,
        Some(_) => store::organizations::update(change.connection(), &after).await?,
    };
    change.touch(organizations::touched(before, Some(&row)));
    Ok(row)
}

async fn member(change: &mut Change, org: &Organization, edit: &Edit<Membership>) -> Result<(), Error> {
    let (before, after) = (edit.before.as_ref(), edit.after.as_ref());
    match (before, after) {
        (None, Some(row)) => store::memberships::insert(change.connection(), row).await?,
        (Some(_), Some(row)) => store::memberships::update(change.connection(), row).await?,
        (Some(row), None) => store::memberships::delete(change.connection(), org.id, row.user_id).await?,
        (None, None) => return Ok(()),
    }
    if let Some(row) = before {
        store::sessions::revoke_of_user(change.connection(), row.user_id, Some(org.id)).await?;
    }
    change.touch(memberships::touched(org, (before, after), true));
    Ok(())
}

async fn key(change: &mut Change, org: &Organization, edit: &Edit<ApiKey>) -> Result<(), Error> {
    let row = match (&edit.before, &edit.after) {
        (None, Some(key)) => store::api_keys::insert(change.connection(), key).await?,
        (Some(_), Some(key)) => store::api_keys::update(change.connection(), key).await?,
        (Some(key), None) => store::api_keys::revoke(change.connection(), &key.id).await?,
        (None, None) => return Ok(()),
    };
    api_keys::touch(change, org, edit.before.as_ref(), Some(&row));
    Ok(())
}

async fn server(change: &mut Change, org: &Organization, edit: &Edit<Server>) -> Result<(), Error> {
    let row = match (&edit.before, &edit.after) {
        (None, Some(server)) => Some(store::servers::insert(change.connection(), server).await?),
        (Some(_), Some(server)) => Some(store::servers::update(change.connection(), server).await?),
        (Some(server), None) => {
            store::servers::delete(change.connection(), server.id).await?;
            None
        }
        (None, None) => return Ok(()),
    };
    servers::touch(change, org, edit.before.as_ref(), row.as_ref());
    Ok(())
}

async fn policy(change: &mut Change, org: &Organization, edit: &Edit<Policy>) -> Result<(), Error> {
    let row = match (&edit.before, &edit.after) {
        (None, Some(policy)) => Some(store::policies::insert(change.connection(), policy).await?),
        (Some(_), Some(policy)) => Some(store::policies::update(change.connection(), policy).await?),
        (Some(policy), None) => {
            store::policies::delete(change.connection(), policy.id).await?;
            None
        }
        (None, None) => return Ok(()),
    };
    policies::touch(change, org, edit.before.as_ref(), row.as_ref());
    Ok(())
}

async fn limit(change: &mut Change, org: &Organization, edit: &Edit<RateLimit>) -> Result<(), Error> {
    let row = match (&edit.before, &edit.after) {
        (None, Some(limit)) => Some(store::rate_limits::insert(change.connection(), limit).await?),
        (Some(_), Some(limit)) => Some(store::rate_limits::update(change.connection(), limit).await?),
        (Some(limit), None) => {
            store::rate_limits::delete(change.connection(), limit.id).await?;
            None
        }
        (None, None) => return Ok(()),
    };
    rate_limits::touch(change, org, edit.before.as_ref(), row.as_ref());
    Ok(())
}
