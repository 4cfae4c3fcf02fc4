//! The admin API over gRPC: one noun per file. Every call passes `access` first; every failure leaves through `error`.

pub mod access;
pub mod aip;
mod api_keys;
mod attempts;
mod auth;
pub mod caller;
mod config_status;
mod config_versions;
mod custody;
pub mod documents;
pub mod error;
mod evidence;
mod join_tokens;
mod logs;
pub mod memberships;
mod nodes;
pub mod organizations;
pub mod passwords;
mod policies;
mod rate_limits;
mod recovery;
mod refresh;
pub mod rest;
pub mod roles;
mod rollback;
pub mod rollouts;
mod said;
mod servers;
mod standing;
mod stats;
pub mod users;
mod wait;

use std::{sync::Arc, time::Duration};

use mcp_gateway::proto::admin::v1 as admin;
use prost::Message;
use tokio::net::TcpListener;
use tonic::{
    Request,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tower::Layer as _;
use tracing::error;
use uuid::Uuid;

use self::{aip::Mutation, attempts::Attempts, caller::Caller, error::Error, passwords::Passwords};
use crate::{
    app::{self, Core},
    domain::ids,
    store::change::{self, Change, Origin, Sealed},
    tasks::OnExit,
    tls,
};

/// A connection that does not answer for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CALLS_PER_CONNECTION: u32 = 100;
/// Bytes of an organisation's document: ten times what the largest that is planned for has.
const LARGEST_DOCUMENT: usize = 32 << 20;

/// The services, over what they share. Each noun's file implements its service for it.
#[derive(Debug, Clone)]
pub struct Api {
    pub core: Core,
    pub passwords: Passwords,
    pub attempts: Arc<Attempts>,
}

/// What a change began as.
pub enum Begun<A> {
    /// Go on.
    Fresh(Box<Change>),
    /// The same request was answered before: this is the answer.
    Answered(A),
}

impl Api {
    /// The services of a running control plane.
    pub fn new(core: &Core) -> Self {
        let attempts = Arc::new(Attempts::new(core.config.sign_in_failures_per_minute));
        Self { core: core.clone(), passwords: Passwords::default(), attempts }
    }

    /// Begins the change that a request asks for. `method` is the RPC's path.
    pub async fn begin<A: Message + Default>(
        &self,
        caller: &Caller,
        method: &'static str,
        request: &impl Mutation,
    ) -> Result<Begun<A>, Error> {
        let request_id = match request.request_id() {
            "" => None,
            text => Some(Uuid::try_parse(text).ok().ok_or_else(|| Error::invalid("request_id", "expected a UUID"))?),
        };
        let request_sha256 = ids::sha256_of(&request.encode_to_vec());
        let origin = Origin {
            actor: caller.actor(),
            method,
            request_id,
            request_sha256,
            validate_only: request.validate_only(),
            reason: caller.said.reason.clone(),
            force: caller.said.force,
            dry_run: caller.said.dry_run.clone(),
        };
        let context = origin.clone();
        match self.core.store.begin(origin).await? {
            change::Begun::Fresh(change) => Ok(Begun::Fresh(change)),
            change::Begun::Answered(sealed) => {
                let answer = self.core.custody.open(&answer_context(&context), &sealed)?;
                let answer = A::decode(answer.as_slice()).map_err(|cause| Error::internal(&cause))?;
                Ok(Begun::Answered(answer))
            }
        }
    }

    /// Commits with the answer, which repetitions of the request will get too. It is kept sealed: it may hold a new secret.
    pub async fn finish<A: Message>(&self, sealed: Sealed, answer: A) -> Result<A, Error> {
        let kept = match sealed.origin().request_id {
            Some(_) => self.core.custody.seal(&answer_context(sealed.origin()), &answer.encode_to_vec())?,
            None => Vec::new(),
        };
        sealed.commit(&kept).await?;
        Ok(answer)
    }
}

fn answer_context(origin: &Origin) -> [&str; 3] {
    ["answer", origin.actor.id.as_str(), origin.method]
}

/// The caller of a request, and the request.
pub fn admitted<T>(request: Request<T>) -> Result<(Caller, T), Error> {
    Ok((Caller::of(&request)?, request.into_inner()))
}

/// Serves until the app stops.
pub fn spawn(core: &Core, listener: TcpListener) -> Result<(), app::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    core.tasks.spawn("admin-health", OnExit::Ignore, follow_health(core.clone(), health));
    let described = |e: tonic_reflection::server::Error| app::Error::Start(format!("the descriptor set: {e}"));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(mcp_gateway::proto::DESCRIPTORS)
        .build_v1()
        .map_err(described)?;
    let routes = services(&Api::new(core)).add_service(health_service).add_service(reflection);
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .layer(access::AccessLayer(core.clone()))
        .add_routes(routes);
    let stop = core.tasks.stop_token().clone().cancelled_owned();
    let tls = match certificate(core) {
        Some(files) => Some(files.follow(&core.tasks).map_err(|e| app::Error::Tls("admin_tls_certificate_file", e.to_string()))?),
        None => None,
    };
    let tasks = core.tasks.clone();
    core.tasks.spawn("admin", OnExit::Stop, async move {
        let served = match tls {
            Some(tls) => router.serve_with_incoming_shutdown(tls::accept(&tasks, "admin-accept", listener, tls), stop).await,
            None => router.serve_with_incoming_shutdown(TcpIncoming::from(listener), stop).await,
        };
        if let Err(cause) = served {
            error!(%cause, "the admin listener failed");
        }
    });
    Ok(())
}

fn certificate(core: &Core) -> Option<tls::Files> {
    let files = core.config.admin_tls_certificate_file.clone().zip(core.config.admin_tls_key_file.clone());
    files.map(|(certificate, key)| tls::Files { certificate, key })
}

/// The services behind their door, for callers within this process.
fn in_process(core: &Core) -> access::Access<Routes> {
    access::AccessLayer(core.clone()).layer(services(&Api::new(core)).prepare())
}

/// Every noun's service.
fn services(api: &Api) -> Routes {
    let mut routes = Routes::builder();
    routes.add_service(admin::api_key_service_server::ApiKeyServiceServer::new(api.clone()));
    routes.add_service(admin::auth_service_server::AuthServiceServer::new(api.clone()));
    routes.add_service(admin::config_status_service_server::ConfigStatusServiceServer::new(api.clone()));
    routes.add_service(admin::config_version_service_server::ConfigVersionServiceServer::new(api.clone()));
    routes.add_service(admin::custody_service_server::CustodyServiceServer::new(api.clone()));
    let documents = admin::document_service_server::DocumentServiceServer::new(api.clone());
    routes.add_service(documents.max_decoding_message_size(LARGEST_DOCUMENT));
    routes.add_service(admin::evidence_service_server::EvidenceServiceServer::new(api.clone()));
    routes.add_service(admin::join_token_service_server::JoinTokenServiceServer::new(api.clone()));
    routes.add_service(admin::log_service_server::LogServiceServer::new(api.clone()));
    routes.add_service(admin::membership_service_server::MembershipServiceServer::new(api.clone()));
    routes.add_service(admin::node_service_server::NodeServiceServer::new(api.clone()));
    routes.add_service(admin::organization_service_server::OrganizationServiceServer::new(api.clone()));
    routes.add_service(admin::policy_service_server::PolicyServiceServer::new(api.clone()));
    routes.add_service(admin::rate_limit_service_server::RateLimitServiceServer::new(api.clone()));
    routes.add_service(admin::rollout_service_server::RolloutServiceServer::new(api.clone()));
    routes.add_service(admin::server_service_server::ServerServiceServer::new(api.clone()));
    routes.add_service(admin::stats_service_server::StatsServiceServer::new(api.clone()));
    routes.add_service(admin::user_service_server::UserServiceServer::new(api.clone()));
    routes.routes()
}

/// Health says SERVING once database and keys have been reached.
async fn follow_health(core: Core, health: tonic_health::server::HealthReporter) {
    let mut opened = core.opened.clone();
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let stop = core.tasks.stop_token();
    tokio::select! {
        _ = opened.wait_for(|opening| matches!(opening, app::Opening::Open(_))) => {}
        () = stop.cancelled() => return,
    }
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    stop.cancelled().await;
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
}
