//! CustodyService: the keys in custody without their secrets, and moving them on. Only platform administrators come here.
//!
//! What moving means is in [`crate::keys`]; snapshots hold keys, so it is a change with a version like any other.

use mcp_gateway::proto::admin::v1::{
    CustodyKey as Wire, CustodyKeyState, ListCustodyKeysRequest, ListCustodyKeysResponse, RotateCustodyKeyRequest,
    RotateCustodyKeyResponse, custody_service_server::CustodyService,
};
use serde_json::json;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::{
    Api, Begun, admitted,
    aip::{self, Pages},
    error::Error,
};
use crate::{
    keys::{self, Rotation},
    store::{
        change::{Kind, Operation, Touched},
        keys::Row as Key,
    },
};

const ROTATE: &str = "/mcpgw.admin.v1.CustodyService/RotateCustodyKey";
const PURPOSES: &str = "expected jwt, manifest, node-ca, session, credential or pool/{pool}";

#[tonic::async_trait]
impl CustodyService for Api {
    async fn list_custody_keys(
        &self,
        request: Request<ListCustodyKeysRequest>,
    ) -> Result<Response<ListCustodyKeysResponse>, Status> {
        Ok(Response::new(list(self, request).await?))
    }

    async fn rotate_custody_key(
        &self,
        request: Request<RotateCustodyKeyRequest>,
    ) -> Result<Response<RotateCustodyKeyResponse>, Status> {
        Ok(Response::new(rotate(self, request).await?))
    }
}

async fn list(api: &Api, request: Request<ListCustodyKeysRequest>) -> Result<ListCustodyKeysResponse, Error> {
    let (_, request) = admitted(request)?;
    let purpose = if request.purpose.is_empty() { None } else { Some(purpose(&request.purpose)?) };
    let pages = Pages::new(&api.core.custody, request.page_size, &["custodyKeys", &request.purpose])?;
    let after: String = pages.position(&request.page_token)?.unwrap_or_default();
    let mut found = api.core.store.custody_keys(purpose.as_deref(), &after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |key| key.id.clone())?;
    Ok(ListCustodyKeysResponse { custody_keys: found.iter().map(wire).collect(), next_page_token })
}

async fn rotate(api: &Api, request: Request<RotateCustodyKeyRequest>) -> Result<RotateCustodyKeyResponse, Error> {
    let (caller, request) = admitted(request)?;
    let stored = purpose(&request.purpose)?;
    let mut change = match api.begin(&caller, ROTATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let (custody, config) = (&api.core.custody, &api.core.config);
    let rows = match custody.rotate(change.connection(), &stored, config).await? {
        Rotation::Done(rows) => rows,
        Rotation::Unknown => return Err(Error::NotFound(request.purpose)),
        Rotation::TooSoon(at) => {
            let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let why = format!(
                "node-ca: the next authority is too new: a node learns of it when it renews its certificate, and one that has not \
                 could never connect again; rotate after {at}"
            );
            return Err(Error::Precondition(why));
        }
    };
    let of = |state: &str| rows.iter().find(|row| row.state == state).map(|row| row.id.clone()).unwrap_or_default();
    let resource = format!("custodyKeys/{}", of("current"));
    change.touch(Touched { reaches_nodes: true, ..Touched::aside(Kind::CustodyKey, Operation::Update, resource) });
    change.action("custody_key.rotate");
    change.detail(json!({ "purpose": request.purpose, "current": of("current"), "next": of("next") }));
    let sealed = change.seal().await?;
    let config_version = sealed.version();
    let answer = RotateCustodyKeyResponse { custody_keys: rows.iter().map(wire).collect(), config_version };
    let answer = api.finish(sealed, answer).await?;
    if !request.validate_only {
        info!(purpose = request.purpose, config.version = config_version, "rotated the keys of purpose {}", request.purpose);
        // This replica at once; the others read the keys with the version.
        if let Err(cause) = custody.load().await {
            warn!(cause = %crate::open::chain(&cause), "the rotated keys are not read yet; they will be with the version");
        }
    }
    Ok(answer)
}

fn purpose(written: &str) -> Result<String, Error> {
    keys::stored_purpose(written).ok_or_else(|| Error::invalid("purpose", PURPOSES))
}

fn wire(key: &Key) -> Wire {
    let state = match key.state.as_str() {
        "next" => CustodyKeyState::Next,
        "current" => CustodyKeyState::Current,
        "retiring" => CustodyKeyState::Retiring,
        _ => CustodyKeyState::Unspecified, // the table's own check allows no other
    };
    Wire {
        name: format!("custodyKeys/{}", key.id),
        purpose: keys::written_purpose(&key.purpose),
        state: state.into(),
        create_time: Some(aip::timestamp(key.created_at)),
        retire_time: key.retired_at.map(aip::timestamp),
    }
}
