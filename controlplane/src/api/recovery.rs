//! AcceptConfig and BumpEpoch: what an operator says after rows were lost or the database was restored. Both make a version.
//!
//! Only platform administrators come here, and they say why. What is held is found by [`crate::publish`]; called by `config_versions`.

use mcp_gateway::proto::admin::v1::{AcceptConfigRequest, AcceptConfigResponse, BumpEpochRequest, BumpEpochResponse};
use serde_json::json;
use tracing::warn;

use super::{Api, Begun, caller::Caller, error::Error};
use crate::store::{
    self,
    change::{Kind, Operation, Touched},
};

const ACCEPT: &str = "/mcpgw.admin.v1.ConfigVersionService/AcceptConfig";
const BUMP: &str = "/mcpgw.admin.v1.ConfigVersionService/BumpEpoch";

/// Lets through what is held of a pool.
pub async fn accept(api: &Api, caller: &Caller, request: AcceptConfigRequest) -> Result<AcceptConfigResponse, Error> {
    says_why(caller)?;
    let mut change = match api.begin(caller, ACCEPT, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let pool = request.pool.as_str();
    let hold = api.core.publications.now().and_then(|now| now.holds.get(pool).cloned());
    let hold = hold.ok_or_else(|| Error::Precondition(format!("pool {pool} is not held: there is nothing to accept")))?;
    let touched = Touched::aside(Kind::Pool, Operation::Update, format!("pools/{pool}"));
    change.touch(Touched { reaches_nodes: true, ..touched });
    change.action("config.accept");
    change.detail(json!({ "hold": hold }));
    let sealed = change.seal().await?;
    let answer = AcceptConfigResponse { config_version: sealed.version(), hold };
    let answer = api.finish(sealed, answer).await?;
    if answer.config_version > 0 {
        warn!(pool, config.version = answer.config_version, "{} accepts for pool {pool}: {}", caller.email, answer.hold);
    }
    Ok(answer)
}

/// Begins an epoch.
pub async fn bump_epoch(api: &Api, caller: &Caller, request: BumpEpochRequest) -> Result<BumpEpochResponse, Error> {
    says_why(caller)?;
    let mut change = match api.begin(caller, BUMP, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    // Two at once are two epochs, each named after the other is over.
    store::hold(change.connection(), BUMP).await?;
    let epoch = store::publish::head(change.connection()).await?.version.epoch + 1;
    let touched = Touched::aside(Kind::Epoch, Operation::Create, format!("configEpochs/{epoch}"));
    change.touch(Touched { reaches_nodes: true, ..touched });
    change.begin_epoch();
    change.action("config.bump_epoch");
    let sealed = change.seal().await?;
    let config_version = sealed.version();
    let answer = BumpEpochResponse { epoch: if config_version == 0 { 0 } else { epoch }, config_version };
    api.finish(sealed, answer).await
}

fn says_why(caller: &Caller) -> Result<(), Error> {
    let said = !caller.said.reason.trim().is_empty();
    if said { Ok(()) } else { Err(Error::invalid("mcpgw-reason", "expected why (mcpgw: --reason TEXT)")) }
}
