//! The door of the admin API: every call's path is looked up in the role table, its token checked, its caller found, before any
//! handler sees it. Nothing else decides who may call.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use tonic::{
    Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};
use tracing::error;
use uuid::Uuid;

use super::{
    caller::{Caller, Place},
    error::Error,
    roles::{self, Who},
    said::{self, Said},
};
use crate::{
    app::Core,
    domain::Role,
    keys::token::{ADMIN_AUDIENCE, Claims},
    metrics::Call,
    store::{audit::Entry, sessions::Live},
};

/// Puts [`Access`] before every service.
#[derive(Clone)]
pub struct AccessLayer(pub Core);

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { core: Arc::new(self.0.clone()), inner }
    }
}

/// See [`AccessLayer`].
#[derive(Clone)]
pub struct Access<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; the clone takes its place.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            let row = roles::of(request.uri().path());
            let response = match admit(&core, row, &mut request).await {
                Ok(()) => {
                    let dry_run = request.extensions().get::<Caller>().map(|caller| caller.said.dry_run.clone());
                    let mut response = inner.call(request).await?;
                    said::tell_dry_run(dry_run.as_ref(), response.headers_mut());
                    response
                }
                Err(error) => Status::from(error).into_http(),
            };
            if let Some((method, _)) = row {
                let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
                core.metrics.calls.get_or_create(&Call { method, code: code.unwrap_or(0) }).inc();
            }
            Ok(response)
        })
    }
}

/// Lets a call in, with its caller in the extensions; or says why not.
async fn admit(core: &Core, row: Option<(&'static str, Who)>, request: &mut Request<Body>) -> Result<(), Error> {
    let address = Address(address(request));
    let Some((path, who)) = row else { return Err(Error::Denied("no such method, or nobody may call it".into())) };
    if who == Who::Anyone {
        request.extensions_mut().insert(address);
        return Ok(());
    }
    if !core.is_open() {
        return Err(Error::Away);
    }
    let claims = claims(core, request)?;
    let mut caller = caller(core, &claims, address.0.clone()).await?;
    caller.said = Said::of(request.headers())?;
    if let Err(refused) = permit(who, &caller) {
        record(core, &caller, path).await;
        return Err(refused);
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(Pass { claims, who, address: address.0.clone() });
    request.extensions_mut().insert(address);
    Ok(())
}

/// Where a call came from; in the extensions of every request.
#[derive(Debug, Clone)]
pub struct Address(pub String);

fn address(request: &Request<Body>) -> String {
    let plain = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let tls = || request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|info| info.get_ref().remote_addr());
    plain.or_else(tls).map(|address| address.ip().to_string()).unwrap_or_default()
}

/// What let a call in, to look at it again while the call lasts; in the extensions of every request with a caller.
#[derive(Debug, Clone)]
pub struct Pass {
    pub claims: Claims,
    who: Who,
    address: String,
}

impl Pass {
    /// Of a request that has passed the access layer.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Error> {
        request.extensions().get::<Self>().cloned().ok_or(Error::Unauthenticated("expected an access token"))
    }

    /// The caller as of now, if it still may make the call. Whether the token has expired is for the call to watch.
    pub async fn again(&self, core: &Core) -> Result<Caller, Error> {
        let caller = caller(core, &self.claims, self.address.clone()).await?;
        permit(self.who, &caller)?;
        Ok(caller)
    }
}

/// One text for every token that is no good: what is wrong with it is of use to forgers only.
const REFUSED: Error = Error::Unauthenticated("the access token is not valid here, or no longer: sign in again");

fn claims(core: &Core, request: &Request<Body>) -> Result<Claims, Error> {
    let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Error::Unauthenticated("expected one header `authorization: Bearer <access token>`: sign in first"));
    };
    let token = value.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else { return Err(REFUSED) };
    core.custody.check_token(token.trim(), &core.config.issuer, ADMIN_AUDIENCE)?.ok_or(REFUSED)
}

/// Whom a token's session belongs to, as of now: a token does not outlive its session, its user or its membership.
async fn caller(core: &Core, claims: &Claims, address: String) -> Result<Caller, Error> {
    let session = Uuid::try_parse(&claims.sid).ok().ok_or(REFUSED)?;
    let live: Live = core.store.live_session(session).await?.ok_or(REFUSED)?;
    let stale = live.tokens_not_before.is_some_and(|at| claims.iat < at.timestamp());
    let void = live.revoked_at.is_some() || live.disabled || stale || live.user_id.to_string() != claims.sub;
    if void || live.org_id.map(|id| id.to_string()) != claims.org {
        return Err(REFUSED);
    }
    let role = live.role.and_then(|role| Role::try_from(i32::from(role)).ok());
    if live.org_id.is_some() && role.is_none() && !live.platform_admin {
        return Err(REFUSED);
    }
    let org = live.org_id.zip(live.org_slug).map(|(id, slug)| Place { id, slug, role });
    Ok(Caller {
        user: live.user_id,
        email: live.email,
        session,
        platform_admin: live.platform_admin,
        org,
        address,
        said: Said::default(),
    })
}

/// Puts on record that somebody who is signed in tried what its role does not permit. Strangers leave no rows: they could leave many.
async fn record(core: &Core, caller: &Caller, path: &str) {
    let org = caller.org.as_ref();
    let detail = serde_json::json!({ "reason": "the role does not permit this call" });
    let entry = Entry {
        org_id: org.map(|org| org.id),
        org_slug: org.map(|org| org.slug.clone()).unwrap_or_default(),
        actor: &caller.actor(),
        action: "api.call",
        resource: path,
        outcome: "denied",
        config_version: 0,
        detail: &detail,
    };
    if let Err(cause) = core.store.record(&entry).await {
        error!(cause = %crate::open::chain(&cause), actor = caller.email, path, "a refused call could not be put on record");
    }
}

fn permit(who: Who, caller: &Caller) -> Result<(), Error> {
    let may = match who {
        Who::Anyone | Who::Oneself => true,
        Who::Platform => caller.platform_admin,
        Who::Roles(roles) => caller.platform_admin || caller.role().is_some_and(|role| roles.contains(&role)),
    };
    if may { Ok(()) } else { Err(Error::Denied("your role does not permit this call".into())) }
}
