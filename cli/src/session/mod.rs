//! The saved login: which control plane, as whom, with which tokens.
//! Owns refreshing: refresh tokens rotate and presenting one twice ends the session, so a refresh happens under
//! the lock of the file. Never asks people anything. Called by `Context` and the login verbs.

mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mcp_gateway::proto::admin::v1::{Audience, RefreshRequest, TokenResponse, auth_service_client::AuthServiceClient};
use serde::{Deserialize, Serialize};
use tonic::Code;
use tonic::transport::Channel;

use crate::failure::Failure;

pub use store::Store;

/// Tokens this close to their end are refreshed first, so that they do not expire on their way.
const MARGIN: Duration = Duration::from_secs(20);

/// What the context file holds. It contains secrets: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// The admin API's URL.
    pub endpoint: String,
    /// The gateway's URL for MCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// PEM file with the authorities to trust for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    pub email: String,
    /// `users/{uid}`.
    pub user: String,
    /// `organizations/{slug}`, or empty.
    pub organization: String,
    refresh_token: String,
    /// When the session ends for want of a refresh.
    pub refresh_expires: SystemTime,
    admin: Option<AccessToken>,
    mcp: Option<AccessToken>,
}

#[derive(Clone, Serialize, Deserialize)]
struct AccessToken {
    token: String,
    expires: SystemTime,
}

/// Where a login happened: what the server does not tell.
#[derive(Debug, Clone)]
pub struct Place {
    pub endpoint: String,
    pub gateway: Option<String>,
    pub ca: Option<PathBuf>,
    pub email: String,
}

impl Saved {
    /// A fresh login.
    pub fn new(place: Place, tokens: TokenResponse) -> Self {
        let Place { endpoint, gateway, ca, email } = place;
        let mut saved = Self {
            endpoint,
            gateway,
            ca,
            email,
            user: String::new(),
            organization: String::new(),
            refresh_token: String::new(),
            refresh_expires: SystemTime::UNIX_EPOCH,
            admin: None,
            mcp: None,
        };
        saved.take(Audience::Admin, tokens);
        saved
    }

    /// The token to end the session with.
    pub fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    fn take(&mut self, audience: Audience, tokens: TokenResponse) {
        let access = AccessToken { token: tokens.access_token, expires: moment(tokens.access_token_expire_time) };
        *self.slot(audience) = Some(access);
        self.refresh_token = tokens.refresh_token;
        self.refresh_expires = moment(tokens.refresh_token_expire_time);
        self.user = tokens.user;
        self.organization = tokens.organization;
    }

    fn slot(&mut self, audience: Audience) -> &mut Option<AccessToken> {
        match audience {
            Audience::Unspecified | Audience::Admin => &mut self.admin,
            Audience::Gateway => &mut self.mcp,
        }
    }

    /// A token that is good for a while yet and is not the one that was just refused.
    fn usable(&mut self, audience: Audience, refused: Option<&str>) -> Option<String> {
        let access = self.slot(audience).as_ref()?;
        let fresh = access.expires > SystemTime::now() + MARGIN;
        (fresh && refused != Some(access.token.as_str())).then(|| access.token.clone())
    }
}

/// An absent moment is the epoch: a token without an end is refreshed before every use.
fn moment(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    timestamp.and_then(|it| SystemTime::try_from(it).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// An access token for `audience`: the saved one, or a new one. `refused` is a token that the server just turned
/// down although it looks good.
pub async fn access(store: &Store, channel: Channel, audience: Audience, refused: Option<&str>) -> anyhow::Result<String> {
    let mut saved = store.load()?.ok_or_else(not_signed_in)?;
    if let Some(token) = saved.usable(audience, refused) {
        return Ok(token);
    }
    let locked = store.lock().await?;
    // Another process may have refreshed while we waited for the lock.
    let mut saved = locked.load()?.ok_or_else(not_signed_in)?;
    if let Some(token) = saved.usable(audience, refused) {
        return Ok(token);
    }
    let request = RefreshRequest { refresh_token: saved.refresh_token.clone(), audience: audience.into() };
    // Never repeated: if the answer was lost, the token is used up and a repetition would look like theft.
    let tokens = AuthServiceClient::new(channel).refresh(request).await.map_err(refresh_failed)?;
    saved.take(audience, tokens.into_inner());
    locked.save(&saved)?;
    saved.usable(audience, refused).ok_or_else(|| {
        Failure::Refused("the new access token is already expired: compare this machine's clock with the server's".into()).into()
    })
}

fn not_signed_in() -> Failure {
    Failure::Refused("not signed in: run `mcpgw login EMAIL --endpoint URL`".into())
}

fn refresh_failed(status: tonic::Status) -> Failure {
    if status.code() == Code::Unauthenticated {
        return Failure::Refused("the session has ended: run `mcpgw login` again".into());
    }
    Failure::from(status)
}
