//! Waiting until every connected node runs a version.

use mcp_gateway::proto::admin::v1::{WaitConfigVersionRequest, WaitConfigVersionResponse};
use tonic::Status;

use super::caller::Caller;
use crate::app::Core;

/// Returns when every connected node runs at least the version.
pub async fn for_version(
    _core: &Core,
    _caller: &Caller,
    _request: WaitConfigVersionRequest,
) -> Result<WaitConfigVersionResponse, Status> {
    Err(Status::unimplemented("the fleet is not watched yet"))
}
