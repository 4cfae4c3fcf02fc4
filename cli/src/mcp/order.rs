//! One order to a gateway's own endpoints, which speak JSON and no JSON-RPC: see docs/TRANSPORTS.md, "For operators".
//! Never decides which gateway or as whom. Used by `commands/desk.rs`.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Response};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sse_stream::SseStream;

use super::answer::{collect, refused, request_id};
use super::error::Error;
use super::http::Http;

/// An answer that goes on: one JSON value per event.
pub struct Events(SseStream<Incoming>);

/// Gives the order; the whole answer, as it came.
pub async fn order(http: &Http, method: Method, body: Option<&Value>) -> Result<Vec<u8>, Error> {
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    http.within(async { collect(accepted(http, method, body).await?).await }).await
}

/// Gives an order whose answer is a stream. Only its beginning has to come in time.
pub async fn events(http: &Http, method: Method) -> Result<Events, Error> {
    let response = http.within(accepted(http, method, Bytes::new())).await?;
    Ok(Events(SseStream::new(response.into_body())))
}

async fn accepted(http: &Http, method: Method, body: Bytes) -> Result<Response<Incoming>, Error> {
    let response = http.send(method, HeaderMap::new(), body).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let request_id = request_id(&response);
    Err(refused(response, request_id).await)
}

impl Events {
    /// The next event; none when the gateway ended the stream as it should.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        while let Some(event) = self.0.next().await {
            let event = event.map_err(|error| Error::BrokeOff(error.to_string()))?;
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            let read = serde_json::from_str(&data);
            return read.map(Some).map_err(|error| Error::Nonsense(format!("an event of the answer cannot be read: {error}")));
        }
        Ok(None)
    }
}
