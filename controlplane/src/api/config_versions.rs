//! The history of the configuration: which version changed what, and what versions differ in. Read only; going back is in `rollback`.
//!
//! Members of an organisation see what touched it and nothing else. Waiting for the fleet is in `wait`.

use mcp_gateway::proto::admin::v1::{
    AcceptConfigRequest, AcceptConfigResponse, BumpEpochRequest, BumpEpochResponse, ConfigChange, ConfigVersion as Wire,
    DiffConfigVersionsRequest, DiffConfigVersionsResponse, GetConfigVersionRequest, ListConfigVersionsRequest,
    ListConfigVersionsResponse, RollbackConfigRequest, RollbackConfigResponse, WaitConfigVersionRequest,
    WaitConfigVersionResponse, config_version_service_server::ConfigVersionService,
};
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, admitted,
    aip::{self, Pages},
    caller::Caller,
    error::Error,
    recovery, rollback, wait,
};
use crate::{
    domain::diff::{self, Step},
    store::{
        self,
        config_versions::{self, ChangeRow, Filter},
    },
};

#[tonic::async_trait]
impl ConfigVersionService for Api {
    async fn get_config_version(&self, request: Request<GetConfigVersionRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(self.one_config_version(request).await?))
    }

    async fn list_config_versions(
        &self,
        request: Request<ListConfigVersionsRequest>,
    ) -> Result<Response<ListConfigVersionsResponse>, Status> {
        Ok(Response::new(self.page_of_config_versions(request).await?))
    }

    async fn wait_config_version(
        &self,
        request: Request<WaitConfigVersionRequest>,
    ) -> Result<Response<WaitConfigVersionResponse>, Status> {
        let (caller, request) = admitted(request)?;
        wait::for_version(&self.core, &caller, request).await.map(Response::new)
    }

    async fn diff_config_versions(
        &self,
        request: Request<DiffConfigVersionsRequest>,
    ) -> Result<Response<DiffConfigVersionsResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(difference(self, &caller, &request).await?))
    }

    async fn rollback_config(&self, request: Request<RollbackConfigRequest>) -> Result<Response<RollbackConfigResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(rollback::to_version(self, &caller, request).await?))
    }

    async fn accept_config(&self, request: Request<AcceptConfigRequest>) -> Result<Response<AcceptConfigResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(recovery::accept(self, &caller, request).await?))
    }

    async fn bump_epoch(&self, request: Request<BumpEpochRequest>) -> Result<Response<BumpEpochResponse>, Status> {
        let (caller, request) = admitted(request)?;
        Ok(Response::new(recovery::bump_epoch(self, &caller, request).await?))
    }
}

impl Api {
    async fn one_config_version(&self, request: Request<GetConfigVersionRequest>) -> Result<Wire, Error> {
        let (caller, request) = admitted(request)?;
        let [version] = aip::ids("name", &request.name, ["configVersions"])?;
        let version: i64 = version.parse().ok().ok_or_else(|| Error::NotFound(request.name.clone()))?;
        let mut connection = self.core.store.connection().await?;
        let rows = config_versions::get(&mut connection, version, only(&caller)).await?;
        versions(rows).pop().ok_or(Error::NotFound(request.name))
    }

    async fn page_of_config_versions(
        &self,
        request: Request<ListConfigVersionsRequest>,
    ) -> Result<ListConfigVersionsResponse, Error> {
        let (caller, request) = admitted(request)?;
        let filter = filter(&caller, &request.organization)?;
        let whose = filter.org_id.map(|id| id.to_string()).unwrap_or_default();
        let binding = ["configVersions", &whose, &request.organization];
        let pages = Pages::new(&self.core.custody, request.page_size, &binding)?;
        let before: Option<(i64, i64)> = pages.position(&request.page_token)?;
        let mut connection = self.core.store.connection().await?;
        let rows = config_versions::list(&mut connection, &filter, before, pages.size + 1).await?;
        let mut found = versions(rows);
        let next_page_token = pages.cut(&mut found, |v| (v.epoch.cast_signed(), v.version.cast_signed()))?;
        Ok(ListConfigVersionsResponse { config_versions: found, next_page_token })
    }
}

async fn difference(
    api: &Api,
    caller: &Caller,
    request: &DiffConfigVersionsRequest,
) -> Result<DiffConfigVersionsResponse, Error> {
    let filter = filter(caller, &request.organization)?;
    let mut connection = api.core.store.connection().await?;
    let head = store::publish::head(&mut connection).await?.version.version;
    let (from, to) = (known(request.from, head)?, if request.to == 0 { head } else { known(request.to, head)? });
    let folded = folded(&mut connection, &filter, from.min(to), from.max(to)).await?;
    let folded: Vec<Step> = if from <= to { folded } else { folded.into_iter().map(Step::inverse).collect() };
    Ok(DiffConfigVersionsResponse { from, to, diff: Some(diff::diff(&folded)) })
}

/// A version, if it has been made.
pub fn known(version: u64, head: u64) -> Result<u64, Error> {
    if version <= head { Ok(version) } else { Err(Error::NotFound(format!("configVersions/{version}"))) }
}

/// What changed after version `from` up to version `to`.
pub async fn folded(connection: &mut PgConnection, filter: &Filter, from: u64, to: u64) -> Result<Vec<Step>, Error> {
    let steps = config_versions::steps(connection, filter, from.cast_signed(), to.cast_signed()).await?;
    let steps = steps
        .ok_or_else(|| Error::Precondition(format!("the history does not reach back to version {from}: name a newer version")))?;
    Ok(diff::fold(steps))
}

/// What a caller asks for, within what it may see.
fn filter(caller: &Caller, organization: &str) -> Result<Filter, Error> {
    let org_slug = match organization {
        "" => None,
        name => Some(aip::organization("organization", name)?.to_owned()),
    };
    if let Some(slug) = &org_slug {
        caller.reaches(slug)?;
    }
    Ok(Filter { org_id: only(caller), org_slug })
}

/// The organisation whose changes the caller may see; none: every one's.
fn only(caller: &Caller) -> Option<Uuid> {
    (!caller.platform_admin).then(|| caller.org.as_ref().map(|org| org.id).unwrap_or_default())
}

/// Folds changes, which are in the order of their versions, into versions.
fn versions(rows: Vec<ChangeRow>) -> Vec<Wire> {
    let mut found: Vec<Wire> = Vec::new();
    for row in rows {
        let (epoch, version) = (row.epoch.cast_unsigned(), row.version.cast_unsigned());
        if found.last().is_none_or(|last| (last.epoch, last.version) != (epoch, version)) {
            found.push(Wire {
                name: format!("configVersions/{version}"),
                version,
                epoch,
                actor: row.actor,
                commit_time: Some(aip::timestamp(row.committed_at)),
                changes: Vec::new(),
                reason: row.reason,
            });
        }
        let organization = if row.org_slug.is_empty() { String::new() } else { format!("organizations/{}", row.org_slug) };
        let change = ConfigChange { organization, kind: row.kind, resource: row.resource, operation: row.operation };
        found.last_mut().expect("pushed above").changes.push(change);
    }
    found
}
