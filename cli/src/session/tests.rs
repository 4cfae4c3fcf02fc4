//! The saved login against a server that rotates refresh tokens and ends the session when one comes twice.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mcp_gateway::proto::admin::v1::auth_service_server::{AuthService, AuthServiceServer};
use mcp_gateway::proto::admin::v1::{Audience, LoginRequest, LogoutRequest, LogoutResponse, RefreshRequest, TokenResponse};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use super::{Place, Saved, Store, access};
use crate::failure::exit_code;

/// Counts refreshes; the token of a session is `r{count}`.
#[derive(Clone, Default)]
struct Rotating(Arc<Mutex<Session>>);

#[derive(Default)]
struct Session {
    refreshes: u32,
    ended: bool,
}

#[tonic::async_trait]
impl AuthService for Rotating {
    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<TokenResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<TokenResponse>, Status> {
        let request = request.into_inner();
        let mut session = self.0.lock().unwrap();
        if session.ended || request.refresh_token != format!("r{}", session.refreshes) {
            session.ended = true;
            return Err(Status::unauthenticated("used twice"));
        }
        session.refreshes += 1;
        Ok(Response::new(tokens(session.refreshes, request.audience(), Duration::from_secs(600))))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}

fn tokens(count: u32, audience: Audience, lifetime: Duration) -> TokenResponse {
    TokenResponse {
        access_token: format!("a{count}-{}", audience.as_str_name()),
        access_token_expire_time: Some((SystemTime::now() + lifetime).into()),
        refresh_token: format!("r{count}"),
        refresh_token_expire_time: Some((SystemTime::now() + Duration::from_secs(86_400)).into()),
        organization: "organizations/acme".into(),
        user: "users/u1".into(),
    }
}

/// A server on a free port, and a channel to it.
async fn serve(auth: Rotating) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = Server::builder().add_service(AuthServiceServer::new(auth)).serve_with_incoming(incoming);
    #[allow(clippy::disallowed_methods)] // lives as long as the test's runtime
    tokio::spawn(serving);
    crate::context::connect(&address.to_string(), None).await.unwrap()
}

/// A store with a login whose access token lives for `lifetime`.
async fn signed_in(dir: &tempfile::TempDir, lifetime: Duration) -> Store {
    let store = Store::new(dir.path().join("mcpgw"));
    let place = Place { endpoint: "http://127.0.0.1:1".into(), gateway: None, ca: None, email: "ada@example.com".into() };
    let saved = Saved::new(place, tokens(0, Audience::Admin, lifetime));
    store.lock().await.unwrap().save(&saved).unwrap();
    store
}

#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::ZERO).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.path()), 0o600);
    assert_eq!(mode(store.path().parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_good_token_is_used_without_asking_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::from_secs(600)).await;
    let auth = Rotating::default();
    let channel = serve(auth.clone()).await;
    assert_eq!(access(&store, channel, Audience::Admin, None).await.unwrap(), "a0-AUDIENCE_ADMIN");
    assert_eq!(auth.0.lock().unwrap().refreshes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_refresh_together_present_each_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::ZERO).await;
    let auth = Rotating::default();
    let channel = serve(auth.clone()).await;
    // The lock is the file's, not the process's: several descriptors contend as several processes do.
    let ask = |audience| access(&store, channel.clone(), audience, None);
    let (a, b, c, d) = tokio::join!(ask(Audience::Admin), ask(Audience::Admin), ask(Audience::Gateway), ask(Audience::Admin));
    assert!(a.unwrap().ends_with("ADMIN") && b.unwrap().ends_with("ADMIN") && d.unwrap().ends_with("ADMIN"));
    assert!(c.unwrap().ends_with("GATEWAY"));
    let session = auth.0.lock().unwrap();
    assert!(!session.ended);
    assert_eq!(session.refreshes, 2, "one per audience");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::from_secs(600)).await;
    let auth = Rotating::default();
    let channel = serve(auth.clone()).await;
    for _ in 0..2 {
        let token = access(&store, channel.clone(), Audience::Admin, Some("a0-AUDIENCE_ADMIN")).await.unwrap();
        assert_eq!(token, "a1-AUDIENCE_ADMIN");
    }
    assert_eq!(auth.0.lock().unwrap().refreshes, 1);
}

#[tokio::test]
async fn an_ended_session_says_to_sign_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::ZERO).await;
    let auth = Rotating::default();
    auth.0.lock().unwrap().ended = true;
    let error = access(&store, serve(auth).await, Audience::Admin, None).await.unwrap_err();
    assert!(error.to_string().contains("mcpgw login"), "{error}");
    assert_eq!(exit_code(&error), 4);
}

#[tokio::test]
async fn a_damaged_file_says_what_to_do_and_nothing_of_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let store = signed_in(&dir, Duration::ZERO).await;
    std::fs::write(store.path(), "{\"refreshToken\": \"secret-value\"").unwrap();
    let error = format!("{:#}", store.load().err().unwrap());
    assert!(error.contains("delete it") && !error.contains("secret-value"), "{error}");
}
