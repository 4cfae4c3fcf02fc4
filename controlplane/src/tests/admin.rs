//! What the tests of the nouns share: organisations, people in every role, clients that carry their tokens, and what a refusal is.

use std::time::{SystemTime, UNIX_EPOCH};

use mcp_gateway::proto::admin::v1::{
    Role, api_key_service_client::ApiKeyServiceClient, config_version_service_client::ConfigVersionServiceClient,
    document_service_client::DocumentServiceClient, evidence_service_client::EvidenceServiceClient,
    log_service_client::LogServiceClient, membership_service_client::MembershipServiceClient,
    organization_service_client::OrganizationServiceClient, policy_service_client::PolicyServiceClient,
    rate_limit_service_client::RateLimitServiceClient, rollout_service_client::RolloutServiceClient,
    server_service_client::ServerServiceClient, user_service_client::UserServiceClient,
};
use sqlx::{AssertSqlSafe, PgConnection};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    keys::token::{ADMIN_AUDIENCE, Claims},
    testing::{Client, Running},
};

/// What no answer, record or row may ever show.
pub const CANARY: &str = "canary-5f1c0e";

/// A running control plane with the means to look behind it.
pub struct Admin {
    pub running: Running,
    pub sql: PgConnection,
    anonymous: Client,
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Person {
    pub user: Uuid,
    client: Client,
    token: String,
}

impl Person {
    pub fn servers(&self) -> ServerServiceClient<Client> {
        ServerServiceClient::new(self.client.clone())
    }

    pub fn policies(&self) -> PolicyServiceClient<Client> {
        PolicyServiceClient::new(self.client.clone())
    }

    pub fn rate_limits(&self) -> RateLimitServiceClient<Client> {
        RateLimitServiceClient::new(self.client.clone())
    }

    pub fn api_keys(&self) -> ApiKeyServiceClient<Client> {
        ApiKeyServiceClient::new(self.client.clone())
    }

    pub fn logs(&self) -> LogServiceClient<Client> {
        LogServiceClient::new(self.client.clone())
    }

    pub fn evidence(&self) -> EvidenceServiceClient<Client> {
        EvidenceServiceClient::new(self.client.clone())
    }

    pub fn organizations(&self) -> OrganizationServiceClient<Client> {
        OrganizationServiceClient::new(self.client.clone())
    }

    pub fn users(&self) -> UserServiceClient<Client> {
        UserServiceClient::new(self.client.clone())
    }

    pub fn memberships(&self) -> MembershipServiceClient<Client> {
        MembershipServiceClient::new(self.client.clone())
    }

    pub fn documents(&self) -> DocumentServiceClient<Client> {
        DocumentServiceClient::new(self.client.clone())
    }

    pub fn rollouts(&self) -> RolloutServiceClient<Client> {
        RolloutServiceClient::new(self.client.clone())
    }

    pub fn config_versions(&self) -> ConfigVersionServiceClient<Client> {
        ConfigVersionServiceClient::new(self.client.clone())
    }

    /// The same person's client of another replica.
    pub async fn at(&self, replica: &Running) -> Client {
        replica.anonymous().await.with_token(&self.token)
    }

    /// As the header has it.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// For calls that no generated client makes.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Admin {
    pub async fn start() -> Self {
        let running = Running::start().await;
        let (sql, anonymous) = (running.sql().await, running.anonymous().await);
        Self { running, sql, anonymous }
    }

    /// A control plane with the organisation `acme` and its administrator.
    pub async fn with_acme() -> (Self, Uuid, Person) {
        let mut admin = Self::start().await;
        let acme = admin.organization("acme").await;
        let person = admin.member(acme, Role::Admin).await;
        (admin, acme, person)
    }

    pub async fn organization(&mut self, slug: &str) -> Uuid {
        let id = Uuid::now_v7();
        let query = sqlx::query("INSERT INTO organizations (id, slug) VALUES ($1, $2)").bind(id).bind(slug);
        query.execute(&mut self.sql).await.unwrap();
        id
    }

    /// A user that is a member of the organisation, signed in there.
    pub async fn member(&mut self, org: Uuid, role: Role) -> Person {
        let user = self.user(false).await;
        let query = sqlx::query("INSERT INTO memberships (org_id, user_id, role) VALUES ($1, $2, $3)");
        let role = i16::try_from(i32::from(role)).unwrap();
        query.bind(org).bind(user).bind(role).execute(&mut self.sql).await.unwrap();
        self.sign_in(user, Some(org)).await
    }

    /// A platform administrator who is a member of nothing.
    pub async fn platform_admin(&mut self) -> Person {
        let user = self.user(true).await;
        self.sign_in(user, None).await
    }

    pub async fn user(&mut self, platform_admin: bool) -> Uuid {
        let id = Uuid::now_v7();
        let query = sqlx::query("INSERT INTO users (id, email, password_hash, platform_admin) VALUES ($1, $2, 'none', $3)");
        query.bind(id).bind(email(id)).bind(platform_admin).execute(&mut self.sql).await.unwrap();
        id
    }

    async fn sign_in(&mut self, user: Uuid, org: Option<Uuid>) -> Person {
        let session = Uuid::now_v7();
        let query = sqlx::query(
            "INSERT INTO sessions (id, user_id, org_id, refresh_sha256, expires_at) VALUES ($1, $2, $3, '', now() + interval '1 h')",
        );
        query.bind(session).bind(user).bind(org).execute(&mut self.sql).await.unwrap();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let claims = Claims {
            iss: self.running.core.config.issuer.clone(),
            aud: ADMIN_AUDIENCE.into(),
            sub: user.to_string(),
            org: org.map(|id| id.to_string()),
            org_slug: None,
            roles: Vec::new(),
            groups: Vec::new(),
            sid: session.to_string(),
            jti: Uuid::now_v7().to_string(),
            iat: now,
            exp: now + 600,
            email: String::new(),
            platform_admin: false,
        };
        let token = self.running.core.custody.sign_token(&claims).unwrap();
        Person { user, client: self.anonymous.with_token(&token), token }
    }

    /// Everything that a change could have touched, as one text. That a call was refused is on record, and no change.
    pub async fn state(&mut self) -> String {
        let changes = "(SELECT * FROM audit_logs WHERE action <> 'api.call')";
        let tables = ["config_head", "config_change", changes, "mcp_servers", "policies", "api_keys", "idempotent_answers"];
        let beside = ["rate_limits", "endpoint_states", "join_tokens", "nodes"];
        let mut state = String::new();
        for table in tables.into_iter().chain(beside).chain(["organizations", "users", "memberships", "sessions"]) {
            let query =
                AssertSqlSafe(format!("SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {table} t"));
            let rows: String = sqlx::query_scalar(query).fetch_one(&mut self.sql).await.unwrap();
            state.push_str(&format!("{table}\n{rows}\n"));
        }
        state
    }

    /// The newest committed version.
    pub async fn version(&mut self) -> u64 {
        let version: i64 = sqlx::query_scalar("SELECT version FROM config_head").fetch_one(&mut self.sql).await.unwrap();
        version.unsigned_abs()
    }

    /// Actor, action, resource, version and detail of the newest audit entry.
    pub async fn newest_audit(&mut self) -> (String, String, String, i64, serde_json::Value) {
        let query =
            "SELECT actor, action, resource, config_version, detail FROM audit_logs ORDER BY occurred_at DESC, id DESC LIMIT 1";
        sqlx::query_as(query).fetch_one(&mut self.sql).await.unwrap()
    }
}

pub fn email(user: Uuid) -> String {
    format!("{user}@example.com")
}

/// The answer is this refusal, for exactly these fields, and shows no secret.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(case: &str, answer: Result<T, Status>, code: Code, fields: &[&str]) {
    let status = answer.expect_err(case);
    assert_eq!(status.code(), code, "{case}: {status:?}");
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let found: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(found, fields, "{case}: {}", status.message());
    let shown = format!("{} {}", status.message(), String::from_utf8_lossy(status.details()));
    assert!(!shown.contains(CANARY), "{case}: shows a secret: {shown}");
}

pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}
