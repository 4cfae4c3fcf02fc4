//! Signing in, rotating, signing out: what is refused, that nothing changes then, and that nothing secret is said.

use mcp_gateway::proto::admin::v1::{
    Audience, GetUserRequest, LoginRequest, LogoutRequest, RefreshRequest, TokenResponse, auth_service_client::AuthServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::testing::{Client, OWNER_PASSWORD, Running};

async fn login(client: &Client, email: &str, password: &str, organization: &str) -> Result<TokenResponse, Status> {
    let (email, password, organization) = (email.into(), password.into(), organization.into());
    let request = LoginRequest { email, password, organization, audience: Audience::Admin.into() };
    AuthServiceClient::new(client.clone()).login(request).await.map(tonic::Response::into_inner)
}

async fn refresh(client: &Client, token: &str) -> Result<TokenResponse, Status> {
    let request = RefreshRequest { refresh_token: token.into(), audience: 0 };
    AuthServiceClient::new(client.clone()).refresh(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer_and_both_are_on_record() {
    let running = Running::start().await;
    let client = running.anonymous().await;
    let wrong = login(&client, "owner@localhost", "canary-password", "").await.unwrap_err();
    let unknown = login(&client, "canary-password@example.com", "canary-password", "").await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message()), (unknown.code(), unknown.message()));
    assert_eq!(wrong.code(), Code::Unauthenticated);
    let mut sql = running.sql().await;
    let denied: Vec<(String, String)> = sqlx::query_as(
        "SELECT actor, detail::text FROM audit_logs WHERE action = 'auth.login' AND outcome = 'denied' ORDER BY id",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    assert_eq!(denied.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["owner@localhost", "unknown"]);
    assert!(!format!("{denied:?}").contains("canary"));
    let sessions: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&mut sql).await.unwrap();
    assert_eq!(sessions, 0);
}

#[tokio::test]
async fn after_too_many_failures_of_an_address_no_password_of_it_is_looked_at_and_whoever_is_signed_in_stays() {
    let mut config = crate::testing::config(&crate::testing::database().await);
    config.sign_in_failures_per_minute = 3;
    let running = Running::with(config).await;
    let (client, signed_in) = (running.anonymous().await, running.owner().await);
    for email in ["owner@localhost", "nobody@example.com", "somebody@example.com"] {
        assert_eq!(login(&client, email, "wrong", "").await.unwrap_err().code(), Code::Unauthenticated);
    }
    let refused = login(&client, "owner@localhost", OWNER_PASSWORD, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "the right one, too: it is not looked at");
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((30..=60).contains(&wait.as_secs()), "{wait:?}");
    let again = refresh(&client, &signed_in.tokens.refresh_token).await.unwrap();
    let rows = "SELECT count(*) FROM audit_logs WHERE action = 'auth.login' AND outcome = 'denied'";
    let rows: i64 = sqlx::query_scalar(rows).fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(rows, 3, "strangers cannot fill the log");
    let page = running.core.metrics.text();
    assert!(page.contains(r#"AuthService/Login",code="8"} 1"#), "{page}");
    assert!(refresh(&client, &again.refresh_token).await.is_ok());
}

#[tokio::test]
async fn an_email_address_is_the_same_in_any_case() {
    let running = Running::start().await;
    assert!(login(&running.anonymous().await, "OWNER@LocalHost", OWNER_PASSWORD, "").await.is_ok());
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_session() {
    let running = Running::start().await;
    let client = running.owner().await;
    let first = client.tokens.refresh_token.clone();
    let second = refresh(&client, &first).await.unwrap();
    assert_ne!(second.refresh_token, first);
    let reused = refresh(&client, &first).await.unwrap_err();
    assert_eq!(reused.code(), Code::Unauthenticated);
    assert!(!reused.message().contains(&first));
    for token in [&second.refresh_token, &first] {
        assert_eq!(refresh(&client, token).await.unwrap_err().code(), Code::Unauthenticated);
    }
    for token in [&second.access_token, &client.tokens.access_token] {
        assert_eq!(me(&client.with_token(token)).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let mut sql = running.sql().await;
    let on_record: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_logs WHERE action = 'auth.refresh' AND outcome = 'denied' AND config_version > 0",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert!(on_record >= 1);
}

#[tokio::test]
async fn an_invented_refresh_token_ends_nobodys_session() {
    let running = Running::start().await;
    let client = running.owner().await;
    let good = client.tokens.refresh_token.clone();
    let session = good.split('_').nth(1).unwrap();
    let (head, last) = good.split_at(good.len() - 1);
    let altered = format!("{head}{}", if last == "a" { "q" } else { "a" });
    let older = good.replacen("_1_", "_0_", 1);
    let invented =
        [String::new(), "x".into(), format!("mcpgwr_{session}_1_{}", "a".repeat(52)), altered, older, format!("{good}_")];
    for token in &invented {
        assert_eq!(refresh(&client, token).await.unwrap_err().code(), Code::Unauthenticated, "{token}");
        let request = LogoutRequest { refresh_token: token.clone() };
        AuthServiceClient::new(client.clone()).logout(request).await.unwrap();
    }
    assert!(refresh(&client, &good).await.is_ok());
}

#[tokio::test]
async fn signing_out_makes_the_access_token_void_at_once() {
    let running = Running::start().await;
    let client = running.owner().await;
    me(&client).await.unwrap();
    let request = LogoutRequest { refresh_token: client.tokens.refresh_token.clone() };
    AuthServiceClient::new(client.clone()).logout(request.clone()).await.unwrap();
    assert_eq!(me(&client).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(refresh(&client, &client.tokens.refresh_token).await.unwrap_err().code(), Code::Unauthenticated);
    AuthServiceClient::new(client.clone()).logout(request).await.unwrap(); // twice is not an error
}

async fn me(client: &Client) -> Result<(), Status> {
    let name = client.tokens.user.clone();
    UserServiceClient::new(client.clone()).get_user(GetUserRequest { name }).await.map(drop)
}

#[tokio::test]
async fn what_no_user_could_have_typed_is_refused_and_not_an_error_of_ours() {
    let running = Running::start().await;
    let client = running.anonymous().await;
    assert_eq!(login(&client, "a\0@x", "x", "").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(login(&client, &"a".repeat(100_000), "x", "").await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(login(&client, "owner@localhost", &"x".repeat(100_000), "").await.unwrap_err().code(), Code::Unauthenticated);
    let request = LoginRequest { audience: 9, ..Default::default() };
    let unknown = AuthServiceClient::new(client.clone()).login(request).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let elsewhere = login(&client, "owner@localhost", OWNER_PASSWORD, "organizations/never").await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);
}
