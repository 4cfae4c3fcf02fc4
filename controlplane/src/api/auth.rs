//! Signing in, staying signed in, signing out. The only service that takes no access token.
//!
//! Every outcome is on record. What it hands out is void once the session, the user or the membership is.

use std::time::Instant;

use chrono::Utc;
use mcp_gateway::proto::admin::v1::{
    Audience, LoginRequest, LogoutRequest, LogoutResponse, RefreshRequest, TokenResponse, auth_service_server::AuthService,
};
use secrecy::SecretString;
use serde_json::json;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, access::Address, aip, error::Error, refresh};
use crate::{
    domain::{User, ids, principal_roles},
    keys::token::{ADMIN_AUDIENCE, Claims},
    store::{
        self,
        audit::Entry,
        change::{Actor, Change, Kind, Operation, Origin, Touched},
        memberships::{self, Place},
        sessions::{self, Session},
        users,
    },
};

const LOGIN: &str = "/mcpgw.admin.v1.AuthService/Login";
const REFRESH: &str = "/mcpgw.admin.v1.AuthService/Refresh";
const LOGOUT: &str = "/mcpgw.admin.v1.AuthService/Logout";

/// One text for an unknown address, a wrong password and a disabled user.
const WRONG: Error = Error::Unauthenticated("wrong email address or password");
/// One text for every refresh token that is no good.
const ENDED: Error = Error::Unauthenticated("the refresh token is not valid, or no longer: sign in again");

/// What tokens are issued for.
struct Issue<'a> {
    user: &'a User,
    place: Option<&'a Place>,
    session: &'a Session,
    refresh_token: &'a str,
    audience: Audience,
}

#[tonic::async_trait]
impl AuthService for Api {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<TokenResponse>, Status> {
        self.open()?;
        let address = address(&request);
        Ok(Response::new(self.sign_in(request.into_inner(), address).await?))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<TokenResponse>, Status> {
        self.open()?;
        let address = address(&request);
        Ok(Response::new(self.rotate(request.into_inner(), address).await?))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        self.open()?;
        let address = address(&request);
        self.sign_out(&request.into_inner().refresh_token, address).await?;
        Ok(Response::new(LogoutResponse {}))
    }
}

impl Api {
    /// The access layer lets these calls through without looking.
    fn open(&self) -> Result<(), Error> {
        if self.core.is_open() { Ok(()) } else { Err(Error::Away) }
    }

    async fn sign_in(&self, request: LoginRequest, address: String) -> Result<TokenResponse, Error> {
        let audience = audience(request.audience)?;
        let password = SecretString::from(request.password);
        let attempt = self.attempts.begin(&address, Instant::now()).map_err(|wait| Error::TooManyFailed { wait })?;
        let found = users::by_email(&mut *self.core.store.connection().await?, &request.email).await?;
        let fits = self.passwords.check(&password, found.as_ref().map(|found| found.password_hash.clone())).await?;
        let Some(found) = found.filter(|found| fits && !found.user.disabled) else {
            self.record_refusal(&request.email, address).await?;
            return Err(WRONG);
        };
        attempt.succeeded();
        let mut change = self.anonymous_change(LOGIN, address.clone()).await?;
        // Held: a user that is disabled or given another password meanwhile must not get away with a session.
        let held = users::hold(change.connection(), found.user.id).await?;
        let still = held.filter(|held| !held.user.disabled && held.password_hash == found.password_hash);
        let user = still.map(|held| held.user).ok_or(WRONG)?;
        change.act_as(actor(&user, address));
        let place = choose_place(&mut change, &user, &request.organization).await?;
        if audience == Audience::Gateway && place.is_none() {
            return Err(Error::Precondition("tokens for the gateway are for one organisation: name it".into()));
        }
        let id = Uuid::now_v7();
        let token = refresh::make(&self.core.custody, id, 1)?;
        let session = Session {
            id,
            user_id: user.id,
            org_id: place.as_ref().map(|place| place.org_id),
            refresh_sha256: ids::sha256(&token).to_vec(),
            generation: 1,
            expires_at: Utc::now() + self.core.config.refresh_token_lifetime(),
            revoked_at: None,
        };
        sessions::insert(change.connection(), &session).await?;
        let issue = Issue { user: &user, place: place.as_ref(), session: &session, refresh_token: &token, audience };
        let answer = self.tokens(&mut change, &issue).await?;
        change.action("auth.login");
        touch(&mut change, &user, place.as_ref(), Operation::Create);
        change.seal().await?.commit(&[]).await?;
        Ok(answer)
    }

    async fn rotate(&self, request: RefreshRequest, address: String) -> Result<TokenResponse, Error> {
        let audience = audience(request.audience)?;
        let presented = refresh::read(&self.core.custody, &request.refresh_token)?.ok_or(ENDED)?;
        let mut change = self.anonymous_change(REFRESH, address).await?;
        let (user, mut session) = hold(&mut change, presented.session).await?.ok_or(ENDED)?;
        change.act_as(actor(&user, change.origin().actor.address.clone()));
        change.action("auth.refresh");
        let place = place_of(&mut change, &session).await?;
        if session.generation != presented.generation || session.refresh_sha256 != ids::sha256(&request.refresh_token) {
            return self.end_family(change, &user, place.as_ref(), &session).await;
        }
        let left = session.org_id.is_some() && place.is_none() && !user.platform_admin;
        if session.revoked_at.is_some() || session.expires_at < Utc::now() || user.disabled || left {
            return Err(ENDED);
        }
        if audience == Audience::Gateway && place.is_none() {
            return Err(Error::Precondition("tokens for the gateway are for one organisation: sign in to it".into()));
        }
        session.generation += 1;
        let token = refresh::make(&self.core.custody, session.id, session.generation)?;
        session.refresh_sha256 = ids::sha256(&token).to_vec();
        session.expires_at = Utc::now() + self.core.config.refresh_token_lifetime();
        sessions::rotate(change.connection(), &session).await?;
        let issue = Issue { user: &user, place: place.as_ref(), session: &session, refresh_token: &token, audience };
        let answer = self.tokens(&mut change, &issue).await?;
        touch(&mut change, &user, place.as_ref(), Operation::Update);
        change.seal().await?.commit(&[]).await?;
        Ok(answer)
    }

    /// A token that was used before: its holder or a thief has the newer one, nobody knows which. Both lose the session.
    async fn end_family(
        &self,
        mut change: Change,
        user: &User,
        place: Option<&Place>,
        session: &Session,
    ) -> Result<TokenResponse, Error> {
        sessions::revoke(change.connection(), session.id).await?;
        change.denied();
        change.detail(json!({ "reason": "a refresh token was used twice: its session is ended", "session": session.id }));
        touch(&mut change, user, place, Operation::Delete);
        change.seal().await?.commit(&[]).await?;
        Err(ENDED)
    }

    async fn sign_out(&self, token: &str, address: String) -> Result<(), Error> {
        let Some(presented) = refresh::read(&self.core.custody, token)? else { return Ok(()) };
        let mut change = self.anonymous_change(LOGOUT, address).await?;
        let held = hold(&mut change, presented.session).await?.filter(|(_, session)| session.revoked_at.is_none());
        let Some((user, session)) = held else { return Ok(()) };
        change.act_as(actor(&user, change.origin().actor.address.clone()));
        let place = place_of(&mut change, &session).await?;
        sessions::revoke(change.connection(), session.id).await?;
        change.action("auth.logout");
        touch(&mut change, &user, place.as_ref(), Operation::Delete);
        Ok(change.seal().await?.commit(&[]).await?)
    }

    async fn anonymous_change(&self, method: &'static str, address: String) -> Result<Change, Error> {
        let mut origin = Origin::system(method);
        origin.actor.address = address;
        Ok(self.core.store.begin_plain(origin).await?)
    }

    /// Only the address is known of a refused sign-in; of an invented email address not even that, it may be a password.
    async fn record_refusal(&self, email: &str, address: String) -> Result<(), Error> {
        let known = users::by_email(&mut *self.core.store.connection().await?, email).await?;
        let (name, resource) = match &known {
            Some(known) => (known.user.email.clone(), format!("users/{}", known.user.id)),
            None => ("unknown".to_owned(), String::new()),
        };
        let actor = Actor { id: String::new(), name, address };
        let detail = json!({ "reason": "wrong email address or password, or disabled" });
        let entry = Entry {
            org_id: None,
            org_slug: String::new(),
            actor: &actor,
            action: "auth.login",
            resource: &resource,
            outcome: "denied",
            config_version: 0,
            detail: &detail,
        };
        Ok(self.core.store.record(&entry).await?)
    }

    async fn tokens(&self, change: &mut Change, issue: &Issue<'_>) -> Result<TokenResponse, Error> {
        let Issue { user, place, session, refresh_token, audience } = *issue;
        let member = match place {
            Some(place) => memberships::get(change.connection(), place.org_id, user.id).await?,
            None => None,
        };
        let (roles, groups) = member.map(|m| (principal_roles(m.role, &m.policy_roles), m.groups)).unwrap_or_default();
        let now = Utc::now();
        let expires = now + self.core.config.access_token_lifetime();
        let aud = match audience {
            Audience::Gateway => self.core.config.gateway_public_url.clone(),
            Audience::Admin | Audience::Unspecified => ADMIN_AUDIENCE.to_owned(),
        };
        let claims = Claims {
            iss: self.core.config.issuer.clone(),
            aud,
            sub: user.id.to_string(),
            org: place.map(|place| place.org_id.to_string()),
            org_slug: place.map(|place| place.org_slug.clone()),
            roles,
            groups,
            sid: session.id.to_string(),
            jti: Uuid::now_v7().to_string(),
            iat: now.timestamp(),
            exp: expires.timestamp(),
            email: user.email.clone(),
            platform_admin: user.platform_admin,
        };
        Ok(TokenResponse {
            access_token: self.core.custody.sign_token(&claims)?,
            access_token_expire_time: Some(aip::timestamp(expires)),
            refresh_token: refresh_token.to_owned(),
            refresh_token_expire_time: Some(aip::timestamp(session.expires_at)),
            organization: place.map(|place| format!("organizations/{}", place.org_slug)).unwrap_or_default(),
            user: format!("users/{}", user.id),
        })
    }
}

/// A session and its user, both held. The user first, as everywhere: whoever takes both never waits in a circle.
async fn hold(change: &mut Change, session: Uuid) -> Result<Option<(User, Session)>, Error> {
    let Some(user_id) = sessions::user_of(change.connection(), session).await? else { return Ok(None) };
    let user = users::hold(change.connection(), user_id).await?.map(|held| held.user);
    Ok(user.zip(sessions::hold(change.connection(), session).await?))
}

/// Which organisation a sign-in is for. Only memberships count; platform administrators may name any.
async fn choose_place(change: &mut Change, user: &User, named: &str) -> Result<Option<Place>, Error> {
    let mut places = memberships::places(change.connection(), user.id).await?;
    if !named.is_empty() {
        let slug = aip::organization("organization", named)?;
        if let Some(place) = places.into_iter().find(|place| place.org_slug == slug) {
            return Ok(Some(place));
        }
        let any = if user.platform_admin { store::organizations::by_slug(change.connection(), slug).await? } else { None };
        let place = any.map(|org| Place { org_id: org.id, org_slug: org.slug });
        return place.map(Some).ok_or_else(|| Error::NotFound(format!("organizations/{slug}")));
    }
    match places.len() {
        1 => Ok(places.pop()),
        _ if user.platform_admin => Ok(None),
        0 => Err(Error::Precondition("you belong to no organisation yet: ask an owner to add you".into())),
        _ => {
            let slugs: Vec<String> = places.into_iter().map(|place| format!("organizations/{}", place.org_slug)).collect();
            Err(Error::Precondition(format!("you belong to several organisations: name one of {}", slugs.join(", "))))
        }
    }
}

/// The organisation of a session, if its user still belongs to it or may enter any.
async fn place_of(change: &mut Change, session: &Session) -> Result<Option<Place>, Error> {
    let Some(org_id) = session.org_id else { return Ok(None) };
    let places = memberships::places(change.connection(), session.user_id).await?;
    if let Some(place) = places.into_iter().find(|place| place.org_id == org_id) {
        return Ok(Some(place));
    }
    let admin = users::by_id(change.connection(), session.user_id).await?.is_some_and(|user| user.platform_admin);
    let any = if admin { store::orgs::rows(change.connection(), org_id).await? } else { None };
    Ok(any.map(|rows| Place { org_id, org_slug: rows.organization.slug }))
}

/// Ended sessions reach the nodes; begun and rotated ones need not.
fn touch(change: &mut Change, user: &User, place: Option<&Place>, operation: Operation) {
    change.touch(Touched {
        org: place.map(|place| (place.org_id, place.org_slug.clone())),
        reaches_nodes: operation == Operation::Delete,
        ..Touched::aside(Kind::Session, operation, format!("users/{}", user.id))
    });
}

fn actor(user: &User, address: String) -> Actor {
    Actor { id: user.id.to_string(), name: user.email.clone(), address }
}

fn audience(number: i32) -> Result<Audience, Error> {
    Audience::try_from(number).ok().ok_or_else(|| Error::invalid("audience", "expected AUDIENCE_ADMIN or AUDIENCE_GATEWAY"))
}

fn address<T>(request: &Request<T>) -> String {
    request.extensions().get::<Address>().map(|address| address.0.clone()).unwrap_or_default()
}
