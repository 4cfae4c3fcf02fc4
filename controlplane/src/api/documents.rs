//! DocumentService: a whole organisation as one document. Reads a request, plans, writes, seals once, commits.
//!
//! What a document asks for is judged in `plan` and written in `write`, which any change can call; the form of documents is the
//! contract's. Who may call is in `roles`.

use mcp_gateway::proto::admin::v1::{
    ApplyOrganizationRequest, ApplyOrganizationResponse, ExportOrganizationRequest, OrganizationDocument,
    document_service_server::DocumentService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Api, Begun, admitted, aip, caller::Hold, error::Error};
use crate::{domain::diff, store::change::Change};

mod current;
mod export;
mod people;
mod plan;
mod write;

pub use plan::{Authority, How};
pub use write::write;

const APPLY: &str = "/mcpgw.admin.v1.DocumentService/ApplyOrganization";
/// Of a difference in an answer, in bytes: clients take 4 MiB by default.
const LARGEST_DIFF: usize = 2 << 20;
/// Of the changes in an audit entry.
const MOST_NAMED: usize = 200;

#[tonic::async_trait]
impl DocumentService for Api {
    async fn export_organization(
        &self,
        request: Request<ExportOrganizationRequest>,
    ) -> Result<Response<OrganizationDocument>, Status> {
        let (caller, request) = admitted(request)?;
        let slug = aip::organization("name", &request.name)?;
        let mut moment = self.core.store.one_moment().await.map_err(Error::from)?;
        let org = caller.organization(&mut moment, slug, Hold::Read).await?;
        Ok(Response::new(export::document(&mut moment, org).await?))
    }

    async fn apply_organization(
        &self,
        request: Request<ApplyOrganizationRequest>,
    ) -> Result<Response<ApplyOrganizationResponse>, Status> {
        Ok(Response::new(self.apply(request).await?))
    }
}

impl Api {
    async fn apply(&self, request: Request<ApplyOrganizationRequest>) -> Result<ApplyOrganizationResponse, Error> {
        let (caller, request) = admitted(request)?;
        let document = aip::present("document", request.document.as_ref())?;
        if document.organization.is_empty() {
            return Err(Error::invalid("organization", crate::domain::SLUG_RULE));
        }
        caller.reaches(&document.organization)?;
        let mut change = match self.begin(&caller, APPLY, &request).await? {
            Begun::Fresh(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        if !caller.platform_admin {
            caller.organization(change.connection(), &document.organization, Hold::Change).await?;
        }
        let how = How { keep_unlisted: request.keep_unlisted, authority: Authority::of(&caller) };
        let notes = write(self, &mut change, document, &how).await?;
        let found = change.diff();
        if change.is_empty() {
            return Ok(ApplyOrganizationResponse { config_version: 0, diff: Some(found), notes });
        }
        record(&mut change, &document.organization);
        let sealed = change.seal().await?;
        let diff = Some(diff::cut(found, LARGEST_DIFF));
        let answer = ApplyOrganizationResponse { config_version: sealed.version(), diff, notes };
        self.finish(sealed, answer).await
    }
}

/// What the audit entry says: one for the whole document.
pub fn record(change: &mut Change, slug: &str) {
    let found = change.diff().resources;
    let named: Vec<String> = found.iter().take(MOST_NAMED).map(|it| format!("{} {}", it.operation, it.resource)).collect();
    change.action("organization.apply");
    change.detail(json!({ "organization": slug, "changes": named, "count": found.len() }));
}
