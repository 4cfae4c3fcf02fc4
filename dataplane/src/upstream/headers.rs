//! Which headers of a request travel to the server: what the codec says the protocol needs. Everything else stays here,
//! every credential first.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};

use crate::pipeline::route::Routed;
use crate::transport::header::SESSION_ID;
use crate::transport::streamable_http;

/// Builds the request headers of a call.
pub(crate) fn outgoing(call: &Routed) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    streamable_http::forward(call.era(), call.headers(), &mut headers);
    if call.http_method() != Method::POST {
        headers.remove(CONTENT_TYPE);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mcpgw/", env!("CARGO_PKG_VERSION"))));
    if let Some(session) = call.upstream_session() {
        headers.insert(SESSION_ID, session.clone());
    }
    if let Some((name, value)) = call.credential() {
        headers.insert(name.clone(), value.clone());
    }
    headers
}
