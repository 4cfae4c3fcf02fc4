//! Memberships. Owners and administrators keep them; only owners make, change and unmake owners.

use mcp_gateway::proto::admin::v1::{
    CreateMembershipRequest, DeleteMembershipRequest, DeleteMembershipResponse, GetMembershipRequest, ListMembershipsRequest,
    ListMembershipsResponse, Membership as Wire, UpdateMembershipRequest, membership_service_server::MembershipService,
};
use serde_json::json;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::{Caller, Hold},
    error::Error,
};
use crate::{
    domain::{Membership, Meta, Organization, Role, document, ids, role_name, rules, rules::Rules},
    store::{
        change::{Change, Kind, Operation, Row, Touched},
        memberships, sessions, users,
    },
};

const CREATE: &str = "/mcpgw.admin.v1.MembershipService/CreateMembership";
const UPDATE: &str = "/mcpgw.admin.v1.MembershipService/UpdateMembership";
const DELETE: &str = "/mcpgw.admin.v1.MembershipService/DeleteMembership";
pub(super) const FIELDS: &[&str] = &["role", "policy_roles", "groups"];

#[tonic::async_trait]
impl MembershipService for Api {
    async fn create_membership(&self, request: Request<CreateMembershipRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.new_membership(request).await?))
    }

    async fn get_membership(&self, request: Request<GetMembershipRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        let mut connection = self.core.store.connection().await.map_err(Error::from)?;
        let (org, row) = find(&caller, &mut connection, ("name", &request.name), Hold::Read).await?;
        Ok(Response::new(wire(&org, &row)))
    }

    async fn list_memberships(
        &self,
        request: Request<ListMembershipsRequest>,
    ) -> Result<Response<ListMembershipsResponse>, Status> {
        Ok(Response::new(self.page_of_memberships(request).await?))
    }

    async fn update_membership(&self, request: Request<UpdateMembershipRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.change_membership(request).await?))
    }

    async fn delete_membership(
        &self,
        request: Request<DeleteMembershipRequest>,
    ) -> Result<Response<DeleteMembershipResponse>, Status> {
        Ok(Response::new(self.remove_membership(request).await?))
    }
}

impl Api {
    async fn new_membership(&self, request: Request<CreateMembershipRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let slug = aip::organization("parent", &request.parent)?;
        let given = aip::present("membership", request.membership.clone())?;
        let [user] = aip::ids("membership.user", &given.user, ["users"])?;
        let nobody = || Error::invalid("membership.user", "expected a user that exists");
        let user_id = Uuid::try_parse(user).ok().ok_or_else(nobody)?;
        let row = Membership { user_id, ..apply(blank(), &given, FIELDS)? };
        let mut change = match self.begin(&caller, CREATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let org = caller.organization(change.connection(), slug, Hold::Change).await?;
        may_touch(&caller, row.role)?;
        users::by_id(change.connection(), user_id).await?.ok_or_else(nobody)?;
        memberships::insert(change.connection(), &Membership { org_id: org.id, ..row.clone() }).await?;
        let row = stored(&mut change, &org, user_id).await?;
        // Nodes know of members only by tokens and keys, and there are none yet.
        change.touch(touched(&org, (None, Some(&row)), false));
        change.detail(json!({ "email": row.email, "role": role_name(row.role) }));
        self.finish(change.seal().await?, wire(&org, &row)).await
    }

    async fn page_of_memberships(&self, request: Request<ListMembershipsRequest>) -> Result<ListMembershipsResponse, Error> {
        let (caller, request) = admitted(request)?;
        let slug = aip::organization("parent", &request.parent)?;
        let mut connection = self.core.store.connection().await?;
        let org = caller.organization(&mut connection, slug, Hold::Read).await?;
        let pages = Pages::new(&self.core.custody, request.page_size, &["memberships", &org.id.to_string()])?;
        let after: Option<Uuid> = pages.position(&request.page_token)?;
        let mut found = memberships::list(&mut connection, org.id, after, pages.size + 1).await?;
        let next_page_token = pages.cut(&mut found, |row| row.user_id)?;
        Ok(ListMembershipsResponse { memberships: found.iter().map(|row| wire(&org, row)).collect(), next_page_token })
    }

    async fn change_membership(&self, request: Request<UpdateMembershipRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let given = aip::present("membership", request.membership.clone())?;
        let mask = Mask::read(request.update_mask.as_ref(), &given, FIELDS)?;
        let mut change = match self.begin(&caller, UPDATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let named = ("membership.name", given.name.as_str());
        let (org, old) = find(&caller, change.connection(), named, Hold::Change).await?;
        aip::check_etag(&given.name, &given.etag, &uid(&old), &old.meta)?;
        let row = apply(old.clone(), &given, mask.fields())?;
        may_touch(&caller, old.role)?;
        may_touch(&caller, row.role)?;
        if row.role != Role::Owner {
            keeps_an_owner(&caller, &mut change, &old).await?;
        }
        memberships::update(change.connection(), &row).await?;
        sessions::revoke_of_user(change.connection(), row.user_id, Some(org.id)).await?;
        let mut row = stored(&mut change, &org, row.user_id).await?;
        change.touch(touched(&org, (Some(&old), Some(&row)), true));
        change.detail(json!({ "fields": mask.fields(), "email": row.email, "role": role_name(row.role) }));
        let sealed = change.seal().await?;
        row.meta.config_version = sealed.version().cast_signed();
        self.finish(sealed, wire(&org, &row)).await
    }

    async fn remove_membership(&self, request: Request<DeleteMembershipRequest>) -> Result<DeleteMembershipResponse, Error> {
        let (caller, request) = admitted(request)?;
        let mut change = match self.begin(&caller, DELETE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let (org, row) = find(&caller, change.connection(), ("name", &request.name), Hold::Change).await?;
        aip::check_etag(&request.name, &request.etag, &uid(&row), &row.meta)?;
        may_touch(&caller, row.role)?;
        keeps_an_owner(&caller, &mut change, &row).await?;
        memberships::delete(change.connection(), org.id, row.user_id).await?;
        sessions::revoke_of_user(change.connection(), row.user_id, Some(org.id)).await?;
        change.touch(touched(&org, (Some(&row), None), true));
        change.detail(json!({ "email": row.email, "role": role_name(row.role) }));
        let sealed = change.seal().await?;
        let answer = DeleteMembershipResponse { config_version: sealed.version() };
        self.finish(sealed, answer).await
    }
}

/// The membership of a name, with its organisation.
async fn find(
    caller: &Caller,
    connection: &mut PgConnection,
    (field, name): (&str, &str),
    hold: Hold,
) -> Result<(Organization, Membership), Error> {
    let [slug, user] = aip::ids(field, name, ["organizations", "memberships"])?;
    let org = caller.organization(connection, slug, hold).await?;
    let user = aip::uuid(user, name)?;
    let row = memberships::get(connection, org.id, user).await?;
    Ok((org, row.ok_or_else(|| Error::NotFound(name.into()))?))
}

async fn stored(change: &mut Change, org: &Organization, user: Uuid) -> Result<Membership, Error> {
    let row = memberships::get(change.connection(), org.id, user).await?;
    row.ok_or_else(|| Error::NotFound(format!("organizations/{}/memberships/{user}", org.slug)))
}

/// Only owners, and platform administrators, make or touch owners.
fn may_touch(caller: &Caller, role: Role) -> Result<(), Error> {
    let may = role != Role::Owner || caller.platform_admin || caller.role() == Some(Role::Owner);
    if may { Ok(()) } else { Err(Error::Denied("only owners make, change and remove owners".into())) }
}

/// An organisation is not left without an owner, except by platform administrators, who can give it a new one.
async fn keeps_an_owner(caller: &Caller, change: &mut Change, leaving: &Membership) -> Result<(), Error> {
    if leaving.role != Role::Owner || caller.platform_admin {
        return Ok(());
    }
    if memberships::another_owner(change.connection(), leaving.org_id, leaving.user_id).await? {
        return Ok(());
    }
    Err(Error::Precondition("this is the organisation's last owner: make another one first".into()))
}

pub(super) fn blank() -> Membership {
    let at = chrono::DateTime::UNIX_EPOCH; // the database sets the times
    Membership {
        org_id: Uuid::nil(),
        user_id: Uuid::nil(),
        email: String::new(),
        role: Role::Unspecified,
        policy_roles: Vec::new(),
        groups: Vec::new(),
        meta: Meta { revision: 1, config_version: 0, created_at: at, updated_at: at },
    }
}

pub(super) fn apply(mut row: Membership, given: &Wire, fields: &[&str]) -> Result<Membership, Error> {
    for field in fields {
        match *field {
            "role" => row.role = Role::try_from(given.role).unwrap_or(Role::Unspecified), // refused below
            "policy_roles" => row.policy_roles.clone_from(&given.policy_roles),
            "groups" => row.groups.clone_from(&given.groups),
            _ => {} // `FIELDS` names no other
        }
    }
    Rules::default()
        .expect(row.role != Role::Unspecified, "membership.role", "expected a known role")
        .policy_roles("membership.policy_roles", &row.policy_roles)
        .names("membership.groups", &row.groups)
        .check()
        .map_err(Error::Invalid)?;
    row.policy_roles = rules::set(row.policy_roles);
    row.groups = rules::set(row.groups);
    Ok(row)
}

/// What became of a membership: new without the first, gone without the second. One of them is there.
pub fn touched(org: &Organization, (before, after): (Option<&Membership>, Option<&Membership>), reaches_nodes: bool) -> Touched {
    let user = after.or(before).map(|row| row.user_id).unwrap_or_default();
    Touched {
        kind: Kind::Membership,
        operation: Operation::between(before, after),
        resource: format!("organizations/{}/memberships/{user}", org.slug),
        org: Some((org.id, org.slug.clone())),
        row: after.map_or(Row::None, |row| Row::Membership(org.id, row.user_id)),
        reaches_nodes,
        before: before.map(|row| document::of(&wire(org, row))),
        after: after.map(|row| document::of(&wire(org, row))),
        credential: None,
    }
}

/// A membership has no id of its own: organisation and user make one.
fn uid(row: &Membership) -> String {
    let hash = ids::sha256_of(&[row.org_id.as_bytes().as_slice(), row.user_id.as_bytes()].concat());
    let bytes = hash.first_chunk().copied().unwrap_or_default(); // 32 bytes have a first 16
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

fn wire(org: &Organization, row: &Membership) -> Wire {
    let uid = uid(row);
    Wire {
        name: format!("organizations/{}/memberships/{}", org.slug, row.user_id),
        user: format!("users/{}", row.user_id),
        role: row.role.into(),
        policy_roles: row.policy_roles.clone(),
        groups: row.groups.clone(),
        email: row.email.clone(),
        etag: aip::etag(&uid, &row.meta),
        uid,
        create_time: Some(aip::timestamp(row.meta.created_at)),
        update_time: Some(aip::timestamp(row.meta.updated_at)),
        config_version: row.meta.config_version.cast_unsigned(),
    }
}
