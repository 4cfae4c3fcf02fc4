//! Organisations. Platform administrators make them; owners change and delete their own.

use mcp_gateway::proto::{
    admin::v1::{
        CreateOrganizationRequest, DeleteOrganizationRequest, DeleteOrganizationResponse, GetOrganizationRequest,
        ListOrganizationsRequest, ListOrganizationsResponse, Organization as Wire, UpdateOrganizationRequest,
        organization_service_server::OrganizationService,
    },
    config::v1::{AuditFullAction, AuditSync},
};
use serde_json::json;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    caller::Hold,
    error::Error,
    policies, rate_limits,
};
use crate::{
    domain::{Capture, Meta, Organization, bundle::OrgRows, document, is_slug, rules, rules::Rules},
    keys::DEFAULT_POOL,
    store::{
        self,
        change::{Kind, Operation, Row, Touched},
        organizations,
    },
};

const CREATE: &str = "/mcpgw.admin.v1.OrganizationService/CreateOrganization";
const UPDATE: &str = "/mcpgw.admin.v1.OrganizationService/UpdateOrganization";
const DELETE: &str = "/mcpgw.admin.v1.OrganizationService/DeleteOrganization";
pub(super) const FIELDS: &[&str] = &[
    "display_name",
    "allowed_origins",
    "audit_full",
    "pool",
    "request_log_retention_days",
    "audit_log_retention_days",
    "audit_sync",
    "capture",
];
const RETENTION_DAYS: i32 = 90;
/// How long administrative records are kept unless an organisation says otherwise.
const AUDIT_RETENTION_DAYS: i32 = 400;
const MOST_ORIGINS: usize = 100;

#[tonic::async_trait]
impl OrganizationService for Api {
    async fn create_organization(&self, request: Request<CreateOrganizationRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.new_organization(request).await?))
    }

    async fn get_organization(&self, request: Request<GetOrganizationRequest>) -> Result<Response<Wire>, Status> {
        let (caller, request) = admitted(request)?;
        let slug = aip::organization("name", &request.name)?;
        let mut connection = self.core.store.connection().await.map_err(Error::from)?;
        Ok(Response::new(wire(&caller.organization(&mut connection, slug, Hold::Read).await?)))
    }

    async fn list_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        Ok(Response::new(self.page_of_organizations(request).await?))
    }

    async fn update_organization(&self, request: Request<UpdateOrganizationRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.change_organization(request).await?))
    }

    async fn delete_organization(
        &self,
        request: Request<DeleteOrganizationRequest>,
    ) -> Result<Response<DeleteOrganizationResponse>, Status> {
        Ok(Response::new(self.remove_organization(request).await?))
    }
}

impl Api {
    async fn new_organization(&self, request: Request<CreateOrganizationRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        aip::new_id("organization_id", &request.organization_id)?;
        let given = request.organization.clone().unwrap_or_default();
        let row = Organization { id: Uuid::now_v7(), slug: request.organization_id.clone(), ..apply(blank(), given, FIELDS)? };
        let mut change = match self.begin(&caller, CREATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let mut row = organizations::insert(change.connection(), &row).await?;
        change.touch(touched(None, Some(&row)));
        let sealed = change.seal().await?;
        row.meta.config_version = sealed.version().cast_signed();
        self.finish(sealed, wire(&row)).await
    }

    async fn page_of_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<ListOrganizationsResponse, Error> {
        let (caller, request) = admitted(request)?;
        let own = if caller.platform_admin { None } else { Some(caller.org.map(|org| org.id).unwrap_or_default()) };
        let whose = own.map(|id| id.to_string()).unwrap_or_default();
        let pages = Pages::new(&self.core.custody, request.page_size, &["organizations", &whose])?;
        let after: Option<String> = pages.position(&request.page_token)?;
        let mut connection = self.core.store.connection().await?;
        let mut found = organizations::list(&mut connection, after, own, pages.size + 1).await?;
        let next_page_token = pages.cut(&mut found, |org| org.slug.clone())?;
        Ok(ListOrganizationsResponse { organizations: found.iter().map(wire).collect(), next_page_token })
    }

    async fn change_organization(&self, request: Request<UpdateOrganizationRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let given = aip::present("organization", request.organization.clone())?;
        let slug = aip::organization("organization.name", &given.name)?;
        let mask = Mask::read(request.update_mask.as_ref(), &given, FIELDS)?;
        let mut change = match self.begin(&caller, UPDATE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let old = caller.organization(change.connection(), slug, Hold::Change).await?;
        aip::check_etag(&given.name, &given.etag, &old.id.to_string(), &old.meta)?;
        let row = apply(old.clone(), given, mask.fields())?;
        if row.pool != old.pool && !caller.platform_admin {
            return Err(Error::Denied("only platform administrators move an organisation to another pool".into()));
        }
        let mut row = organizations::update(change.connection(), &row).await?;
        change.touch(touched(Some(&old), Some(&row)));
        change.detail(json!({ "fields": mask.fields() }));
        let sealed = change.seal().await?;
        row.meta.config_version = sealed.version().cast_signed();
        self.finish(sealed, wire(&row)).await
    }

    async fn remove_organization(
        &self,
        request: Request<DeleteOrganizationRequest>,
    ) -> Result<DeleteOrganizationResponse, Error> {
        let (caller, request) = admitted(request)?;
        let slug = aip::organization("name", &request.name)?;
        let mut change = match self.begin(&caller, DELETE, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let row = caller.organization(change.connection(), slug, Hold::Change).await?;
        aip::check_etag(&request.name, &request.etag, &row.id.to_string(), &row.meta)?;
        if organizations::has_servers(change.connection(), row.id).await? {
            return Err(Error::Precondition(format!("{} still has servers: delete them first", request.name)));
        }
        let within = store::orgs::rows(change.connection(), row.id).await?.unwrap_or_else(|| OrgRows::bare(row.clone()));
        organizations::delete(change.connection(), row.id).await?;
        change.touch(touched(Some(&row), None));
        within.policies.iter().for_each(|policy| policies::touch(&mut change, &row, Some(policy), None));
        within.limits.iter().for_each(|limit| rate_limits::touch(&mut change, &row, Some(limit), None));
        let sealed = change.seal().await?;
        let answer = DeleteOrganizationResponse { config_version: sealed.version() };
        self.finish(sealed, answer).await
    }
}

pub(super) fn blank() -> Organization {
    let at = chrono::DateTime::UNIX_EPOCH; // the database sets the times
    Organization {
        id: Uuid::nil(),
        slug: String::new(),
        display_name: String::new(),
        allowed_origins: Vec::new(),
        audit_full: AuditFullAction::Block.into(),
        pool: DEFAULT_POOL.into(),
        request_log_retention_days: RETENTION_DAYS,
        audit_sync: AuditSync::Write.into(),
        capture: Capture::default(),
        audit_log_retention_days: AUDIT_RETENTION_DAYS,
        meta: Meta { revision: 1, config_version: 0, created_at: at, updated_at: at },
    }
}

/// The row with the given fields taken over, if they are as expected.
pub(super) fn apply(mut row: Organization, given: Wire, fields: &[&str]) -> Result<Organization, Error> {
    for field in fields {
        match *field {
            "display_name" => row.display_name.clone_from(&given.display_name),
            "allowed_origins" => row.allowed_origins.clone_from(&given.allowed_origins),
            "audit_full" => row.audit_full = if given.audit_full == 0 { AuditFullAction::Block.into() } else { given.audit_full },
            "pool" if given.pool.is_empty() => row.pool = DEFAULT_POOL.into(),
            "pool" => row.pool.clone_from(&given.pool),
            "request_log_retention_days" if given.request_log_retention_days == 0 => {
                row.request_log_retention_days = RETENTION_DAYS;
            }
            "request_log_retention_days" => row.request_log_retention_days = given.request_log_retention_days,
            "audit_sync" => row.audit_sync = if given.audit_sync == 0 { AuditSync::Write.into() } else { given.audit_sync },
            "capture" => row.capture = given.capture.clone().unwrap_or_default().into(),
            "audit_log_retention_days" if given.audit_log_retention_days == 0 => {
                row.audit_log_retention_days = AUDIT_RETENTION_DAYS;
            }
            "audit_log_retention_days" => row.audit_log_retention_days = given.audit_log_retention_days,
            _ => {} // `FIELDS` names no other
        }
    }
    Rules::default()
        .display_name("organization.display_name", &row.display_name)
        .expect(is_slug(&row.pool), "organization.pool", crate::domain::SLUG_RULE)
        .expect(row.allowed_origins.len() <= MOST_ORIGINS, "organization.allowed_origins", "expected at most 100 origins")
        .expect(AuditFullAction::try_from(row.audit_full).is_ok(), "organization.audit_full", "expected a known action")
        .expect(AuditSync::try_from(row.audit_sync).is_ok(), "organization.audit_sync", "expected a known value")
        .expect(
            (1..=3650).contains(&row.request_log_retention_days),
            "organization.request_log_retention_days",
            "expected 1 to 3650, or 0 for 90",
        )
        .expect(
            (1..=3650).contains(&row.audit_log_retention_days),
            "organization.audit_log_retention_days",
            "expected 1 to 3650, or 0 for 400",
        )
        .check()
        .map_err(Error::Invalid)?;
    row.allowed_origins = rules::set(row.allowed_origins);
    Ok(row)
}

/// What became of an organisation: new without `before`, gone without `after`. One of them is there.
pub fn touched(before: Option<&Organization>, after: Option<&Organization>) -> Touched {
    let either = after.or(before);
    Touched {
        kind: Kind::Organization,
        operation: Operation::between(before, after),
        resource: either.map(|row| format!("organizations/{}", row.slug)).unwrap_or_default(),
        org: either.map(|row| (row.id, row.slug.clone())),
        row: after.map_or(Row::None, |row| Row::Organization(row.id)),
        reaches_nodes: true,
        before: before.map(|row| document::of(&wire(row))),
        after: after.map(|row| document::of(&wire(row))),
        credential: None,
    }
}

fn wire(row: &Organization) -> Wire {
    Wire {
        name: format!("organizations/{}", row.slug),
        display_name: row.display_name.clone(),
        allowed_origins: row.allowed_origins.clone(),
        audit_full: row.audit_full,
        pool: row.pool.clone(),
        request_log_retention_days: row.request_log_retention_days,
        audit_sync: row.audit_sync,
        capture: row.capture.clone().into(),
        audit_log_retention_days: row.audit_log_retention_days,
        uid: row.id.to_string(),
        etag: aip::etag(&row.id.to_string(), &row.meta),
        create_time: Some(aip::timestamp(row.meta.created_at)),
        update_time: Some(aip::timestamp(row.meta.updated_at)),
        config_version: row.meta.config_version.cast_unsigned(),
    }
}
