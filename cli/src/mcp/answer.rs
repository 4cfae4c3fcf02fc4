//! Reads an HTTP answer until the JSON-RPC response in it: a JSON body, or server-sent events.
//! Never sends anything. Used by `legacy` and `modern`.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use sse_stream::SseStream;

use super::error::Error;

/// No answer that a command line can show is larger.
const LARGEST: usize = 64 * 1024 * 1024;

/// What came of reading.
pub enum Read {
    /// The result of our request.
    Result(Value),
    /// The stream ended first. Legacy servers may do so and be asked to go on.
    Ended { last_event_id: Option<String>, retry: Option<Duration> },
}

/// The id by which the gateway recorded the request.
pub fn request_id(response: &Response<Incoming>) -> Option<String> {
    response.headers().get("mcpgw-request-id")?.to_str().ok().map(str::to_owned)
}

/// Reads until the response to `id`; every other message goes to `other`.
pub async fn read(response: Response<Incoming>, id: i64, other: impl AsyncFn(Value) -> Result<(), Error>) -> Result<Read, Error> {
    let status = response.status();
    let request_id = request_id(&response);
    if !status.is_success() {
        return Err(refused(response, request_id).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        let bytes = collect(response).await?;
        let message: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Nonsense(format!("the answer is neither JSON nor an event stream: {error}")))?;
        return outcome(message, id, status, request_id)?
            .map(Read::Result)
            .ok_or_else(|| Error::Nonsense("the answer is not the response to our request".into()));
    }
    let mut events = SseStream::new(response.into_body());
    let (mut last_event_id, mut retry) = (None, None);
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| Error::BrokeOff(error.to_string()))?;
        last_event_id = event.id.or(last_event_id);
        retry = event.retry.map(Duration::from_millis).or(retry);
        let Some(data) = event.data.filter(|it| !it.is_empty()) else { continue };
        let message: Value = serde_json::from_str(&data)
            .map_err(|error| Error::Nonsense(format!("an event of the answer is not JSON: {error}")))?;
        if message["method"].is_string() {
            other(message).await?;
        } else if let Some(result) = outcome(message, id, status, request_id.clone())? {
            return Ok(Read::Result(result));
        }
    }
    Ok(Read::Ended { last_event_id, retry })
}

/// The result or error in a response; `None` if it answers something else.
fn outcome(mut message: Value, id: i64, status: StatusCode, request_id: Option<String>) -> Result<Option<Value>, Error> {
    if message["id"] != id {
        return Ok(None);
    }
    if let Some(error) = rpc_error(&message, status, request_id) {
        return Err(error);
    }
    Ok(message.get_mut("result").map(Value::take))
}

fn rpc_error(message: &Value, status: StatusCode, request_id: Option<String>) -> Option<Error> {
    let error = message.get("error")?;
    Some(Error::Rpc {
        status,
        code: error["code"].as_i64()?,
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        data: error["data"].clone(),
        request_id,
    })
}

/// What an answer of 300 and above says: a JSON-RPC error if it has one, else the start of its text.
pub async fn refused(response: Response<Incoming>, request_id: Option<String>) -> Error {
    let status = response.status();
    let bytes = collect(response).await.unwrap_or_default();
    let message: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if let Some(error) = rpc_error(&message, status, request_id.clone()) {
        return error;
    }
    let said: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(300).collect();
    Error::Http { status, said, request_id }
}

/// The whole body, if it is not too large.
pub async fn collect(response: Response<Incoming>) -> Result<Vec<u8>, Error> {
    let collected = Limited::new(response.into_body(), LARGEST).collect().await;
    collected.map(|it| it.to_bytes().to_vec()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return Error::Nonsense(format!("the answer is larger than {LARGEST} bytes"));
        }
        Error::BrokeOff(error.to_string())
    })
}

/// What a notification or a server's request says to people; `None` for what is only protocol.
pub fn spoken(message: &Value) -> Option<String> {
    let params = &message["params"];
    match message["method"].as_str()? {
        "notifications/progress" => {
            let total = params["total"].as_f64().map(|it| format!("/{it}")).unwrap_or_default();
            let said = params["message"].as_str().unwrap_or_default();
            Some(format!("progress {}{total} {said}", params["progress"]).trim_end().to_owned())
        }
        "notifications/message" => {
            let data = params["data"].as_str().map_or_else(|| params["data"].to_string(), str::to_owned);
            Some(format!("{}: {data}", params["level"].as_str().unwrap_or("log")))
        }
        _ => None,
    }
}
