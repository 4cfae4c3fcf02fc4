//! What a verb is given: the output, the organisation, and a way to call the admin API.
//! Owns the channel, the bearer token and what is tried again; never knows a noun. Built by `main`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::Uri;
use mcp_gateway::proto::admin::v1::{Audience, ConfigDiff};
use prost::Message as _;
use tokio::sync::OnceCell;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::session::{self, Saved, Store};
use crate::tls::{self, Protocols};
use crate::{config, names};

/// How long one call may take, unless the verb says otherwise.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Waits before a call is tried again while the server is unavailable.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(1_000)];

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The control plane's admin API, such as https://gateway.example:9443 [default: of the saved login]
    #[arg(long, global = true, env = "MCPGW_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// The organisation to act in [default: of the saved login]
    #[arg(long, global = true, env = "MCPGW_ORG", value_name = "SLUG")]
    pub org: Option<String>,
    /// PEM file with the authorities to trust instead of the system's
    #[arg(long, global = true, env = "MCPGW_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Why a change is made: kept with the version and in the audit log, at most 500 characters
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How data is written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// What verbs work with.
pub struct Context {
    pub out: Output,
    pub global: Global,
    pub store: Store,
    channel: OnceCell<Channel>,
}

/// The transport under every admin client.
pub type Service = InterceptedService<Channel, Bearer>;

impl Context {
    pub fn new(global: Global) -> anyhow::Result<Self> {
        Ok(Self { out: Output::new(global.output), global, store: Store::new(config::config_dir()?), channel: OnceCell::new() })
    }

    /// As `new`, with the login in a directory of its own and an API at a known place.
    pub fn at(endpoint: String, store: Store) -> Self {
        let global = Global { endpoint: Some(endpoint), org: None, ca: None, reason: None, output: Format::Table };
        Self { out: Output::new(Format::Table), global, store, channel: OnceCell::new() }
    }

    /// The organisation as a parent: `organizations/{slug}`.
    pub fn org(&self) -> anyhow::Result<String> {
        if let Some(org) = &self.global.org {
            return Ok(names::org(org));
        }
        let saved = self.store.load()?.map(|it| it.organization).filter(|it| !it.is_empty());
        saved.ok_or_else(|| Failure::Usage("which organisation? Add --org SLUG".into()).into())
    }

    /// The organisation if one is named or saved, else empty: everything, for platform administrators.
    pub fn org_or_all(&self) -> anyhow::Result<String> {
        match &self.global.org {
            Some(org) => Ok(names::org(org)),
            None => Ok(self.store.load()?.map(|it| it.organization).unwrap_or_default()),
        }
    }

    /// The saved login.
    pub fn saved(&self) -> anyhow::Result<Option<Saved>> {
        self.store.load()
    }

    /// The channel to the admin API; connected once.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        let connected = self.channel.get_or_try_init(|| async {
            let saved = self.store.load()?;
            let endpoint = self.global.endpoint.clone().or_else(|| saved.as_ref().map(|it| it.endpoint.clone()));
            let endpoint = endpoint
                .ok_or_else(|| Failure::Usage("which control plane? Add --endpoint URL, or run `mcpgw login` once".into()))?;
            let ca = self.global.ca.clone().or_else(|| saved.and_then(|it| it.ca));
            connect(&endpoint, ca.as_deref()).await
        });
        connected.await.cloned()
    }

    /// One call with the saved login. It may be sent again while the server is unavailable, so a change has to carry a
    /// request id.
    pub async fn call<C, Q: Clone, A>(
        &self,
        client: fn(Service) -> C,
        request: Q,
        rpc: impl AsyncFn(&mut C, Request<Q>) -> Result<Response<A>, Status>,
    ) -> anyhow::Result<A> {
        self.call_within(CALL_DEADLINE, client, request, rpc).await
    }

    /// As `call`, for a stream of answers: it may go on for as long as it likes once it began.
    pub async fn open<C, Q: Clone, A>(
        &self,
        client: fn(Service) -> C,
        request: Q,
        rpc: impl AsyncFn(&mut C, Request<Q>) -> Result<Response<A>, Status>,
    ) -> anyhow::Result<A> {
        let late = || Failure::Unreachable(format!("the control plane did not answer within {CALL_DEADLINE:?}"));
        tokio::time::timeout(CALL_DEADLINE, self.attempt(None, client, request, rpc)).await.map_err(|_elapsed| late())?
    }

    /// As `call`, with a deadline of its own for each attempt.
    pub async fn call_within<C, Q: Clone, A>(
        &self,
        deadline: Duration,
        client: fn(Service) -> C,
        request: Q,
        rpc: impl AsyncFn(&mut C, Request<Q>) -> Result<Response<A>, Status>,
    ) -> anyhow::Result<A> {
        self.attempt(Some(deadline), client, request, rpc).await
    }

    async fn attempt<C, Q: Clone, A>(
        &self,
        deadline: Option<Duration>,
        client: fn(Service) -> C,
        request: Q,
        rpc: impl AsyncFn(&mut C, Request<Q>) -> Result<Response<A>, Status>,
    ) -> anyhow::Result<A> {
        let channel = self.channel().await?;
        let mut refused: Option<String> = None;
        let mut waits = BACKOFF.iter();
        loop {
            let token = self.token(Audience::Admin, refused.as_deref()).await?;
            let mut client = client(InterceptedService::new(channel.clone(), Bearer::new(&token)?));
            let mut attempt = Request::new(request.clone());
            if let Some(deadline) = deadline {
                attempt.set_timeout(deadline);
            }
            if let Some(reason) = &self.global.reason {
                attempt.metadata_mut().insert("mcpgw-reason", percent_encoded(reason).parse()?);
            }
            let status = match rpc(&mut client, attempt).await {
                Ok(response) => {
                    if let Some(diff) = response.metadata().get_bin("mcpgw-config-diff-bin") {
                        self.out.would_change(ConfigDiff::decode(diff.to_bytes()?)?);
                    }
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            match status.code() {
                Code::Unauthenticated if refused.is_none() => refused = Some(token),
                Code::Unavailable => match waits.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => return Err(Failure::from(status).into()),
                },
                _ => return Err(Failure::from(status).into()),
            }
        }
    }

    /// An access token of the saved login.
    pub async fn token(&self, audience: Audience, refused: Option<&str>) -> anyhow::Result<String> {
        session::access(&self.store, self.channel().await?, audience, refused).await
    }
}

/// Text as request metadata can carry it (RFC 3986, section 2.1).
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A change that is meant even where it removes most of an organisation.
pub fn forced<T>(mut request: Request<T>, force: bool) -> Request<T> {
    if force {
        request.metadata_mut().insert("mcpgw-force", MetadataValue::from_static("true"));
    }
    request
}

/// `host:port` without a scheme means http on this machine and https elsewhere.
pub fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") {
        return endpoint.trim_end_matches('/').to_owned();
    }
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let scheme = if local { "http" } else { "https" };
    format!("{scheme}://{}", endpoint.trim_end_matches('/'))
}

/// A connected channel to an admin API.
pub async fn connect(endpoint: &str, ca: Option<&std::path::Path>) -> anyhow::Result<Channel> {
    let url = with_scheme(endpoint);
    let origin: Uri = url.parse().map_err(|error| Failure::Usage(format!("--endpoint {url}: {error}")))?;
    if !matches!(origin.scheme_str(), Some("http" | "https")) {
        return Err(Failure::Usage(format!("--endpoint {url}: expected http:// or https://")).into());
    }
    let connector = tls::connector(ca, Protocols::Http2)?;
    let target = origin.clone();
    // The connector does TLS itself, so that one place decides whom to trust; tonic is told of a plain connection.
    let dial = tower::service_fn(move |_| tower::ServiceExt::oneshot(connector.clone(), target.clone()));
    let plain = format!("http://{}", origin.authority().map(http::uri::Authority::as_str).unwrap_or_default());
    Endpoint::from_shared(plain)?
        .origin(origin)
        .connect_timeout(Duration::from_secs(10))
        .connect_with_connector(dial)
        .await
        .map_err(|error| Failure::Unreachable(unreachable(&url, &error)))
        .context("the control plane's admin API")
}

/// The innermost cause says what happened; the layers above only that something did.
fn unreachable(url: &str, error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("cannot reach {url}: {cause}")
}

/// Adds the access token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub fn new(token: &str) -> anyhow::Result<Self> {
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().context("the access token has characters that no header may have")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::{percent_encoded, with_scheme};

    #[test]
    fn a_reason_survives_metadata() {
        assert_eq!(percent_encoded("café 100%"), "caf%C3%A9%20100%25");
    }

    #[test]
    fn a_bare_address_is_plain_only_on_this_machine() {
        let table = [
            ("127.0.0.1:9443", "http://127.0.0.1:9443"),
            ("localhost:1", "http://localhost:1"),
            ("[::1]:9443", "http://[::1]:9443"),
            ("gateway.example:9443", "https://gateway.example:9443"),
            ("http://gateway.example:9443/", "http://gateway.example:9443"),
        ];
        for (given, expected) in table {
            assert_eq!(with_scheme(given), expected);
        }
    }
}
