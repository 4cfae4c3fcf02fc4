//! Against DNS rebinding and cross-site requests: the Host must be one of ours, an Origin must be allowed.
//! Owns the comparison of authorities and serialised origins (RFC 6454); never rewrites either. Called by the pipeline
//! before anything else is looked at, with the origins of the target's organisation.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, StatusCode, Uri, header};

#[cfg(test)]
mod tests;

/// Why a request's Host or Origin is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There more than once, absent where HTTP/1.1 requires it, or contradicting the request line.
    #[error("the Host header is missing, doubled or contradicts the request line")]
    BadHost,
    /// Not a host that this gateway serves.
    #[error("this gateway does not serve the requested host: see public_url and allowed_hosts")]
    HostNotServed,
    /// There more than once.
    #[error("the Origin header is doubled")]
    BadOrigin,
    /// Not an origin that may call.
    #[error("the origin is not allowed: see the allowed origins of the organisation")]
    OriginNotAllowed,
}

impl Refusal {
    /// The HTTP status of the answer. 403 also for foreign hosts: 421 would invite a retry on another connection, and
    /// the protocol's own tests expect 403.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadOrigin => StatusCode::BAD_REQUEST,
            Self::HostNotServed | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
        }
    }

    /// A short, closed name for metrics and audit records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::HostNotServed => "host_not_served",
            Self::BadOrigin => "bad_origin",
            Self::OriginNotAllowed => "origin_not_allowed",
        }
    }
}

/// Which hosts a listener answers to. Compiled once from the process configuration.
#[derive(Debug, Clone)]
pub struct Hosts {
    public_origin: Option<String>,
    /// Lower case; `host` accepts any port, `host:port` only that one.
    allowed: Vec<String>,
    loopback: bool,
}

impl Hosts {
    /// From `public_url` (scheme and authority count), further hosts (`host` or `host:port`), and whether the listener
    /// is bound to a loopback address, which adds `localhost`, `127.0.0.1` and `[::1]` on any port.
    pub fn new(public_url: &str, allowed_hosts: &[String], loopback: bool) -> Self {
        let public: Option<Uri> = public_url.parse().ok();
        let scheme = public.as_ref().and_then(Uri::scheme_str).unwrap_or("https");
        let public_origin = public.as_ref().and_then(Uri::authority).map(|authority| {
            let authority = authority.as_str().to_ascii_lowercase();
            format!("{scheme}://{}", without_default_port(scheme, &authority))
        });
        let mut allowed: Vec<String> = allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        if let Some((_, authority)) = public_origin.as_deref().and_then(|origin| origin.split_once("://")) {
            allowed.push(authority.to_owned());
            if split_port(authority).1.is_none() {
                allowed.push(format!("{authority}:{}", default_port(scheme)));
            }
        }
        Self { public_origin, allowed, loopback }
    }

    /// Checks Host and Origin of one request; `allowed_origins` are those of the pool and of the target's organisation.
    ///
    /// A request without Origin does not come from a browser and passes. `*` allows every origin but `null`, which any
    /// sandboxed document can claim; `null` passes only where it is listed.
    pub fn check<'o>(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        allowed_origins: impl IntoIterator<Item = &'o str>,
    ) -> Result<(), Refusal> {
        let host = self.host(uri, headers)?;
        let Some(origin) = single(headers, &header::ORIGIN).map_err(|_doubled| Refusal::BadOrigin)? else { return Ok(()) };
        let listed = |allowed: &str| allowed == origin || (allowed == "*" && origin != "null");
        if allowed_origins.into_iter().any(listed)
            || self.public_origin.as_deref() == Some(origin)
            || self.same_loopback(origin, &host)
        {
            return Ok(());
        }
        Err(Refusal::OriginNotAllowed)
    }

    /// The host that the request is for, in lower case.
    fn host<'h>(&self, uri: &'h Uri, headers: &'h HeaderMap) -> Result<Cow<'h, str>, Refusal> {
        let header = single(headers, &header::HOST).map_err(|_doubled| Refusal::BadHost)?.map(lower_case);
        // HTTP/2 and absolute-form name the host in the request line (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        let line = uri.authority().map(|authority| lower_case(authority.as_str()));
        let host = match (header, line) {
            (Some(header), Some(line)) if header != line => return Err(Refusal::BadHost),
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(Refusal::BadHost),
        };
        let name = split_port(&host).0;
        let listed = self.allowed.iter().any(|allowed| *allowed == host || allowed == name);
        if listed || (self.loopback && is_loopback(name)) { Ok(host) } else { Err(Refusal::HostNotServed) }
    }

    /// A page served from the very loopback address that is called, such as a local tool's own user interface.
    fn same_loopback(&self, origin: &str, host: &str) -> bool {
        self.loopback && is_loopback(split_port(host).0) && origin.strip_prefix("http://") == Some(host)
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // Bytes that are not ASCII equal nothing that can be allowed.
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or("\u{fffd}"))),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Name and port; the brackets of IPv6 literals belong to the name. A port that is not a number makes a name that no
/// rule lists.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port))
        }
        _ => (authority, None),
    }
}

fn is_loopback(name: &str) -> bool {
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn default_port(scheme: &str) -> &'static str {
    if scheme == "http" { "80" } else { "443" }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    match split_port(authority) {
        (name, Some(port)) if port == default_port(scheme) => name,
        _ => authority,
    }
}
