//! Standalone as an administrator of itself: signs in as the owner and uses the same admin API as everybody.
//! Never reaches into the control plane. Called by `standalone` and `demo`.

use std::net::SocketAddr;

use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;
use mcp_gateway::proto::admin::v1::join_token_service_client::JoinTokenServiceClient;
use mcp_gateway::proto::admin::v1::{Audience, CreateJoinTokenRequest, JoinToken, LoginRequest, LogoutRequest};
use tonic::Code;
use uuid::Uuid;

use super::home::Home;
use super::owner::Owner;
use super::plan::reachable;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::{Place, Saved, Store};

/// A session of the owner, ended by `end`.
pub struct Admin {
    pub cx: Context,
}

impl Admin {
    /// Signs in.
    pub async fn sign_in(home: &Home, address: SocketAddr, owner: &Owner) -> anyhow::Result<Self> {
        let endpoint = format!("http://{}", reachable(address));
        let store = Store::new(home.private_dir("login")?);
        let cx = Context::at(endpoint.clone(), store);
        let request = LoginRequest {
            email: owner.email.clone(),
            password: owner.password.clone(),
            organization: String::new(),
            audience: Audience::Admin.into(),
        };
        let answer = AuthServiceClient::new(cx.channel().await?).login(request).await.map_err(|status| match status.code() {
            Code::Unauthenticated => Failure::Refused(format!(
                "cannot sign in as {}: give the owner's credential with --owner-email and --owner-password-file",
                owner.email
            )),
            _ => Failure::from(status),
        });
        let place = Place { endpoint, gateway: None, ca: None, email: owner.email.clone() };
        cx.store.lock().await?.save(&Saved::new(place, answer?.into_inner()))?;
        Ok(Self { cx })
    }

    /// A join token for our own node.
    pub async fn join_token(&self) -> anyhow::Result<String> {
        let request = CreateJoinTokenRequest {
            join_token: Some(JoinToken::default()),
            validate_only: false,
            request_id: Uuid::new_v4().to_string(),
        };
        let created = self.cx.call(JoinTokenServiceClient::new, request, async |c, r| c.create_join_token(r).await).await?;
        Ok(created.secret)
    }

    /// Signs out.
    pub async fn end(self) -> anyhow::Result<()> {
        let locked = self.cx.store.lock().await?;
        let Some(saved) = locked.load()? else { return Ok(()) };
        let request = LogoutRequest { refresh_token: saved.refresh_token().to_owned() };
        AuthServiceClient::new(self.cx.channel().await?).logout(request).await.map_err(Failure::from)?;
        locked.remove()
    }
}
