//! Opens a WebSocket to a server behind the gateway: where to, as whom, and what a refusal means.
//! Never decides whether to try again. Called by [`super::run`].

use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use mcp_gateway::proto::admin::v1::Audience;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tower::ServiceExt as _;

use super::LARGEST;
use crate::context::Context;
use crate::failure::Failure;
use crate::tls::{self, Protocols};

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("mcpgw/", env!("CARGO_PKG_VERSION"));
/// Of a refusal's body, what people get to see.
const SHOWN: usize = 500;

pub type Socket = WebSocketStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>;

/// What is presented to the gateway.
pub enum Credential<'a> {
    Nothing,
    Key(String),
    /// The saved login's tokens, renewed when they have to be.
    Login(&'a Context),
}

/// Where to and as whom.
pub struct Dialer<'a> {
    connector: HttpsConnector<HttpConnector>,
    /// With the scheme http or https, as the connector knows it.
    place: Uri,
    url: String,
    credential: Credential<'a>,
}

/// Why there is no connection.
pub enum Refusal {
    /// Trying again would not help.
    Final(anyhow::Error),
    /// The gateway cannot be reached, or not now.
    ForNow(String),
}

impl<'a> Dialer<'a> {
    /// `url` may be of any of the schemes ws, wss, http and https.
    pub fn new(url: &str, ca: Option<&Path>, credential: Credential<'a>) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (http, socket) = match scheme {
            "http" | "ws" => ("http", "ws"),
            "https" | "wss" => ("https", "wss"),
            _ => return Err(Failure::Usage("expected a URL of http, https, ws or wss".into()).into()),
        };
        let place: Uri = format!("{http}://{rest}").parse().map_err(|error| Failure::Usage(format!("no URL: {error}")))?;
        if place.host().is_none() {
            return Err(Failure::Usage("expected a URL with a host".into()).into());
        }
        Ok(Self { connector: tls::connector(ca, Protocols::Http1)?, place, url: format!("{socket}://{rest}"), credential })
    }

    /// A connection; a token that was turned down although it looks good is renewed once.
    pub async fn dial(&self) -> Result<Socket, Refusal> {
        let late = |_| Refusal::ForNow(format!("no answer within {} s", DEADLINE.as_secs()));
        let first = self.token(None).await?;
        match tokio::time::timeout(DEADLINE, self.attempt(first.as_deref())).await.map_err(late)? {
            Err(SocketError::Http(answer)) if answer.status() == 401 && matches!(self.credential, Credential::Login(_)) => {
                let second = self.token(first.as_deref()).await?;
                let again = tokio::time::timeout(DEADLINE, self.attempt(second.as_deref())).await.map_err(late)?;
                again.map_err(|error| self.refusal(error))
            }
            other => other.map_err(|error| self.refusal(error)),
        }
    }

    async fn token(&self, refused: Option<&str>) -> Result<Option<String>, Refusal> {
        match &self.credential {
            Credential::Nothing => Ok(None),
            Credential::Key(key) => Ok(Some(key.clone())),
            Credential::Login(cx) => match cx.token(Audience::Gateway, refused).await {
                Ok(token) => Ok(Some(token)),
                Err(error) if crate::failure::is_unreachable(&error) => Err(Refusal::ForNow(format!("{error:#}"))),
                Err(error) => Err(Refusal::Final(error)),
            },
        }
    }

    async fn attempt(&self, token: Option<&str>) -> Result<Socket, SocketError> {
        let stream = self.connector.clone().oneshot(self.place.clone()).await;
        let stream = stream.map_err(|error| std::io::Error::other(innermost(&*error)))?;
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let (socket, _) = client_async_with_config(self.request(token)?, TokioIo::new(stream), Some(config)).await?;
        Ok(socket)
    }

    fn request(&self, token: Option<&str>) -> Result<Request<()>, SocketError> {
        let mut request = self.url.as_str().into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mcp"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(http::Error::from)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn refusal(&self, error: SocketError) -> Refusal {
        let place =
            || format!("{}://{}{}", self.place.scheme_str().unwrap_or_default(), authority(&self.place), self.place.path());
        let SocketError::Http(answer) = error else {
            return match error {
                SocketError::Io(error) => Refusal::ForNow(format!("cannot reach {}: {error}", place())),
                error => Refusal::Final(anyhow::anyhow!("{}: {error}", place())),
            };
        };
        let said = said(answer.body().as_deref().unwrap_or_default());
        let text = format!("{}: HTTP {}{said}", place(), answer.status());
        match answer.status().as_u16() {
            401 => Refusal::Final(Failure::Refused(format!("{text}; run `mcpgw login`, or give another --key")).into()),
            403 => Refusal::Final(Failure::Refused(text).into()),
            404 => Refusal::Final(Failure::NotFound(format!("{text}; `mcpgw server list` shows what there is")).into()),
            429 | 500.. => Refusal::ForNow(text),
            _ => Refusal::Final(anyhow::anyhow!(text)),
        }
    }
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", http::uri::Authority::as_str)
}

/// What the body of a refusal says, as far as it came with the head.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let message = ["/error/message", "/message", "/error"].iter().find_map(|place| json.pointer(place)?.as_str());
    let plain: String = message.unwrap_or(&text).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if plain.trim().is_empty() { String::new() } else { format!(": {}", plain.trim()) }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
