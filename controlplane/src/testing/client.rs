//! A gRPC client that carries a token and remembers what it called.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use mcp_gateway::proto::admin::v1::{Audience, LoginRequest, TokenResponse, auth_service_client::AuthServiceClient};
use tonic::{
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Service;

/// Generated clients take it as their channel: `ServerServiceClient::new(client.clone())`.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    authorization: Vec<HeaderValue>,
    /// What the sign-in answered.
    pub tokens: TokenResponse,
    called: Arc<Mutex<BTreeSet<String>>>,
}

impl Client {
    /// Connects when first used.
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
        Self {
            channel: endpoint.connect_lazy(),
            authorization: Vec::new(),
            tokens: TokenResponse::default(),
            called: Arc::default(),
        }
    }

    /// The same client with a user's token for the admin API. An empty organisation is not named.
    pub async fn sign_in(&self, email: &str, password: &str, organization: &str) -> Self {
        let organization = if organization.is_empty() { String::new() } else { format!("organizations/{organization}") };
        let audience = Audience::Admin.into();
        let request = LoginRequest { email: email.into(), password: password.into(), organization, audience };
        let answer = AuthServiceClient::new(self.clone()).login(request).await.expect("the credentials are good");
        let tokens = answer.into_inner();
        Self { tokens: tokens.clone(), ..self.with_token(&tokens.access_token) }
    }

    /// The same client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        self.with_authorization(&[&format!("Bearer {token}")])
    }

    /// The same client with these `authorization` headers.
    pub fn with_authorization(&self, values: &[&str]) -> Self {
        let value = |text: &&str| HeaderValue::from_str(text).expect("a header value");
        Self { authorization: values.iter().map(value).collect(), ..self.clone() }
    }

    /// The paths that this client and its clones called and got no refusal from.
    pub fn called(&self) -> BTreeSet<String> {
        self.called.lock().expect("no test panics while holding it").clone()
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        for value in &self.authorization {
            request.headers_mut().append(header::AUTHORIZATION, value.clone());
        }
        let path = request.uri().path().to_owned();
        let (called, answer) = (Arc::clone(&self.called), self.channel.call(request));
        Box::pin(async move {
            let answer = answer.await?;
            if !answer.headers().contains_key("grpc-status") {
                called.lock().expect("no test panics while holding it").insert(path);
            }
            Ok(answer)
        })
    }
}
