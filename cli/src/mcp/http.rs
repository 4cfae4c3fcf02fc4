//! One HTTP request to an MCP server and its raw answer.
//! Owns the connection pool and the credential; knows nothing of eras. Used by `legacy`, `modern` and `answer`.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::error::Error;
use crate::failure::Failure;
use crate::tls::{self, Protocols};

const AGENT: &str = concat!("mcpgw/", env!("CARGO_PKG_VERSION"));

/// Where progress and log messages of the server go.
pub type Notice = Box<dyn Fn(&str) + Send + Sync>;

/// Where to, as whom, and how long to wait.
pub struct Http {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    uri: Uri,
    authorization: Option<HeaderValue>,
    deadline: Duration,
    notice: Notice,
    last_id: AtomicI64,
}

impl Http {
    pub fn new(url: &str, ca: Option<&Path>, deadline: Duration, notice: Notice) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().map_err(|error| Failure::Usage(format!("{url} is no URL: {error}")))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Failure::Usage(format!("{url}: expected http:// or https://")).into());
        }
        let connector = tls::connector(ca, Protocols::Any)?;
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let last_id = AtomicI64::new(0);
        Ok(Self { client, url: url.to_owned(), uri, authorization: None, deadline, notice, last_id })
    }

    /// Presents `token` with every request.
    pub fn with_bearer(mut self, token: &str) -> anyhow::Result<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_invalid| Failure::Usage("the key or token has characters that no header may have".into()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// A request id that this conversation has not used.
    pub fn next_id(&self) -> i64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells people something on the side.
    pub fn tell(&self, message: &str) {
        (self.notice)(message);
    }

    /// Runs `work` within the deadline.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Error::TooSlow(self.deadline.as_secs());
        tokio::time::timeout(self.deadline, work).await.map_err(late)?
    }

    /// Posts one message.
    pub async fn post(&self, headers: HeaderMap, message: &Value) -> Result<Response<Incoming>, Error> {
        self.send(Method::POST, headers, message.to_string().into()).await
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        let to = request.headers_mut();
        to.extend(headers);
        to.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        to.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        to.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            to.insert(AUTHORIZATION, authorization.clone());
        }
        let failed = |error| Error::Unreachable { url: self.url.clone(), cause: innermost(&error) };
        self.client.request(request).await.map_err(failed)
    }
}

/// A header whose value comes from outside.
pub fn header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Error> {
    let wrong = |what: &str| Error::Nonsense(format!("the {what} {value:?} cannot travel in the header {name}"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| wrong("name of the header for"))?;
    headers.insert(name.clone(), HeaderValue::from_str(value).map_err(|_invalid| wrong("value"))?);
    Ok(())
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
