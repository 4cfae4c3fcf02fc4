//! One order to a gateway's own endpoints, which speak JSON and no JSON-RPC: see docs/TRANSPORTS.md, "For operators".
//! Never decides which gateway or as whom. Used by `commands/desk.rs`.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::answer::{collect, refused, request_id};
use super::error::Error;
use super::http::Http;

/// Gives the order; the whole answer, as it came.
pub async fn order(http: &Http, method: Method, body: Option<&Value>) -> Result<Vec<u8>, Error> {
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let work = async {
        let response = http.send(method, HeaderMap::new(), body).await?;
        if !response.status().is_success() {
            let request_id = request_id(&response);
            return Err(refused(response, request_id).await);
        }
        collect(response).await
    };
    http.within(work).await
}
