//! First contact against a control plane with real certificates.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use mcp_gateway::proto::node::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use mcp_gateway::proto::node::v1::{EnrollResponse, RecoverRequest, RecoverResponse};
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;
use crate::node::testing::{Ca, ControlPlane, NODE, POOL};

const SECRET: &str = "mcpgwj_t1_s3cret";

/// Answers one token, once.
struct Desk {
    ca: Arc<Ca>,
    used: Mutex<bool>,
    /// When the certificates hold, seconds from now.
    life: (i64, i64),
}

#[tonic::async_trait]
impl EnrollmentService for Desk {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.token != SECRET || std::mem::replace(&mut *self.used.lock().unwrap(), true) {
            return Err(Status::permission_denied("join token t1 was used"));
        }
        let credentials = self.ca.credentials(&request.csr, &request.hpke_public_key, self.life);
        Ok(Response::new(EnrollResponse { node_id: NODE.into(), pool: POOL.into(), credentials: Some(credentials) }))
    }

    async fn recover(&self, _: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        Err(Status::permission_denied("not the key that it registered"))
    }
}

struct Rig {
    ca: Arc<Ca>,
    control: ControlPlane,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn new(life: (i64, i64)) -> Self {
        let ca = Arc::new(Ca::new());
        let desk = Desk { ca: Arc::clone(&ca), used: Mutex::new(false), life };
        let control = ControlPlane::start(&ca, Routes::new(EnrollmentServiceServer::new(desk))).await;
        Self { ca, control, dir: tempfile::tempdir().unwrap() }
    }

    fn enrolment(&self, token: Option<String>) -> Enrolment {
        Enrolment { replicas: self.control.replicas.clone(), token: token.map(Into::into), display_name: "test".into() }
    }

    fn token(&self) -> String {
        format!("{SECRET}.{}", self.ca.pin())
    }

    async fn join(&self, token: Option<String>) -> Result<Identity, EnrolError> {
        join(self.dir.path(), &self.enrolment(token)).await
    }
}

#[tokio::test]
async fn a_token_becomes_an_identity_that_only_the_owner_can_read_and_that_outlives_it() {
    let rig = Rig::new((-60, 3600)).await;
    let identity = rig.join(Some(rig.token())).await.unwrap();
    assert_eq!((identity.node_id.as_str(), identity.pool.as_str()), (NODE, POOL));
    assert_eq!(identity.pool_keys["p1"].as_bytes(), rig.ca.pool_key.as_bytes());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.dir.path().join("identity.json")), 0o600);
    let again = rig.join(None).await.unwrap();
    assert_eq!((again.node_id, again.certificate_pem), (identity.node_id, identity.certificate_pem));
    assert_eq!(again.pool_keys["p1"].as_bytes(), rig.ca.pool_key.as_bytes());
}

#[tokio::test]
async fn a_used_token_is_refused_with_the_remedy_and_without_the_secret() {
    let rig = Rig::new((-60, 3600)).await;
    rig.join(Some(rig.token())).await.unwrap();
    std::fs::remove_file(rig.dir.path().join("identity.json")).unwrap();
    let error = rig.join(Some(rig.token())).await.err().unwrap();
    assert!(matches!(error, EnrolError::Refused { .. }));
    let said = error.to_string();
    assert!(said.contains("mcpgw node join-token create") && !said.contains("s3cret"), "{said}");
    assert!(!rig.dir.path().join("identity.json").exists());
}

#[tokio::test]
async fn another_control_plane_never_sees_the_token() {
    let rig = Rig::new((-60, 3600)).await;
    let token = JoinToken::parse(&format!("{SECRET}.{}", Ca::new().pin()).into()).unwrap();
    let error = enrol(rig.dir.path(), &token, &rig.enrolment(None)).await.err().unwrap();
    assert!(matches!(&error, EnrolError::Unreachable(reason) if reason.contains("certificate")), "{error}");
    rig.join(Some(rig.token())).await.expect("the token was not used");
}

#[tokio::test]
async fn without_identity_and_token_the_error_says_what_to_do() {
    let rig = Rig::new((-60, 3600)).await;
    let error = rig.join(None).await.err().unwrap();
    assert!(error.to_string().contains("mcpgw node join-token create"));
}

#[tokio::test]
async fn an_expired_identity_that_cannot_come_back_is_replaced_with_a_new_token_and_kept_without_one() {
    let rig = Rig::new((-60, 3600)).await;
    let keys = Keys::generate().unwrap();
    let credentials = rig.ca.credentials(&keys.certificate_request().unwrap(), keys.hpke_public(), (-120, -60));
    let expired = keys.into_identity("old", POOL, credentials).unwrap();
    expired.save(rig.dir.path()).unwrap();
    assert_eq!(rig.join(None).await.unwrap().node_id, "old", "it stops no traffic");
    assert_eq!(rig.join(Some(rig.token())).await.unwrap().node_id, NODE);
}

#[test]
fn a_damaged_identity_is_told_with_the_remedy_and_without_its_content() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    ca.identity().save(dir.path()).unwrap();
    let path = dir.path().join("identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = ca.identity();
    other.save(dir.path()).unwrap();
    let foreign_key = std::fs::read_to_string(&path).unwrap();
    let key_of = |text: &str| text.lines().find(|line| line.contains("private_key_pem")).unwrap().to_owned();
    let table = [
        text[..text.len() / 2].to_owned(),
        text.replace("hpke_private_key\": \"", "hpke_private_key\": \"!"),
        text.replace("-----BEGIN CERTIFICATE-----", ""),
        text.replace(&key_of(&text), &key_of(&foreign_key)),
        String::new(),
    ];
    for damaged in table {
        std::fs::write(&path, &damaged).unwrap();
        let error = Identity::load(dir.path()).err().unwrap();
        let said = error.to_string();
        assert!(said.contains("join-token create") && !said.contains("PRIVATE KEY"), "{said}");
    }
}

#[test]
fn credentials_that_do_not_fit_are_refused() {
    let ca = Ca::new();
    let (ours, theirs) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let life = (-60, 60);
    let wrong_key = ca.credentials(&theirs.certificate_request().unwrap(), ours.hpke_public(), life);
    assert!(matches!(ours.into_identity(NODE, POOL, wrong_key), Err(IdentityError::Credentials(_))));
    let ours = Keys::generate().unwrap();
    let sealed_to_others = ca.credentials(&ours.certificate_request().unwrap(), theirs.hpke_public(), life);
    assert!(matches!(ours.into_identity(NODE, POOL, sealed_to_others), Err(IdentityError::Credentials(_))));
}
