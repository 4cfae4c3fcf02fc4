//! Access tokens that are no good: each gets the one answer, says nothing of why, and changes nothing.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use mcp_gateway::proto::admin::v1::{
    Audience, GetUserRequest, ListOrganizationsRequest, LoginRequest, auth_service_client::AuthServiceClient,
    organization_service_client::OrganizationServiceClient, user_service_client::UserServiceClient,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    keys::token::{ADMIN_AUDIENCE, Claims},
    testing::{Client, OWNER_PASSWORD, Running},
};

async fn use_token(client: &Client) -> Result<(), Status> {
    OrganizationServiceClient::new(client.clone()).list_organizations(ListOrganizationsRequest::default()).await.map(drop)
}

fn header(token: &str) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn join(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()), B64.encode(signature))
}

/// Signed with the installation's key, whatever it says.
fn signed(running: &Running, header: &Value, claims: &Value) -> String {
    let keys = running.core.custody.keys().unwrap();
    let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    let signature = keys.jwt.current().material.pair().sign(text.as_bytes());
    format!("{text}.{}", B64.encode(signature.as_ref()))
}

fn with(value: &Value, key: &str, to: Value) -> Value {
    let mut value = value.clone();
    value[key] = to;
    value
}

fn without(value: &Value, key: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(key);
    value
}

#[tokio::test]
async fn tokens_that_are_no_good_are_refused_with_one_answer() {
    let running = Running::start().await;
    let client = running.owner().await;
    let good = client.tokens.access_token.clone();
    let (head, body) = (header(&good), claims(&good));
    assert!(use_token(&client.with_token(&signed(&running, &head, &body))).await.is_ok());
    let now = chrono::Utc::now().timestamp();

    let mut bad: Vec<(String, String)> = Vec::new();
    let mut add = |case: &str, token: String| bad.push((case.to_owned(), token));
    for (case, header) in [
        ("alg none", json!({ "alg": "none", "typ": "JWT" })),
        ("alg none with kid", with(&head, "alg", json!("none"))),
        ("HS256", with(&head, "alg", json!("HS256"))),
        ("RS256", with(&head, "alg", json!("RS256"))),
        ("ES256", with(&head, "alg", json!("ES256"))),
        ("alg eddsa in lower case", with(&head, "alg", json!("eddsa"))),
        ("no kid", without(&head, "kid")),
        ("unknown kid", with(&head, "kid", json!("jwt-aaaaaaaaaaaaaaaa"))),
        ("kid is a path", with(&head, "kid", json!("../../etc/passwd"))),
        ("kid is SQL", with(&head, "kid", json!("' OR 1=1 --"))),
        ("kid is a megabyte", with(&head, "kid", json!("k".repeat(7000)))),
        ("kid of another purpose", with(&head, "kid", json!(running.core.custody.keys().unwrap().manifest.current().id))),
        ("a key of its own in the header", json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "AAAA" } })),
    ] {
        add(case, signed(&running, &header, &body));
    }
    // The public key as an HMAC secret: the classic confusion.
    let public = running.core.custody.keys().unwrap().jwt.current().material.public().to_vec();
    let confused = with(&head, "alg", json!("HS256"));
    let text = format!("{}.{}", B64.encode(confused.to_string()), B64.encode(body.to_string()));
    let tag = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public), text.as_bytes());
    add("HMAC with the public key", format!("{text}.{}", B64.encode(tag.as_ref())));
    for (case, body) in [
        ("expired", with(&body, "exp", json!(now - 120))),
        ("no exp", without(&body, "exp")),
        ("exp is text", with(&body, "exp", json!("never"))),
        ("not yet valid", with(&body, "nbf", json!(now + 3600))),
        ("audience of the gateway", with(&body, "aud", json!("http://127.0.0.1:8080"))),
        ("a list of audiences", with(&body, "aud", json!(["x", ADMIN_AUDIENCE]))),
        ("no audience", without(&body, "aud")),
        ("another issuer", with(&body, "iss", json!("https://evil.example"))),
        ("no issuer", without(&body, "iss")),
        ("no subject", without(&body, "sub")),
        ("another subject", with(&body, "sub", json!(uuid::Uuid::nil()))),
        ("no session", without(&body, "sid")),
        ("an unknown session", with(&body, "sid", json!(uuid::Uuid::now_v7()))),
        ("a session that is no id", with(&body, "sid", json!("' OR 1=1 --"))),
        ("another organisation", with(&body, "org", json!(uuid::Uuid::now_v7()))),
        ("no organisation", without(&body, "org")),
    ] {
        add(case, signed(&running, &head, &body));
    }
    let parts: Vec<&str> = good.split('.').collect();
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("a signature of zeros", join(&head, &body, &[0; 64]));
    add("a short signature", join(&head, &body, &[0; 63]));
    add(
        "claims of another token",
        format!("{}.{}.{}", parts[0], B64.encode(with(&body, "email", json!("x")).to_string()), parts[2]),
    );
    add("two parts", format!("{}.{}", parts[0], parts[1]));
    add("four parts", format!("{good}.x"));
    add("nothing", String::new());
    add("rubbish", "canary".into());
    add("too long", "a".repeat(9000));
    let gateway = LoginRequest {
        email: "owner@localhost".into(),
        password: OWNER_PASSWORD.into(),
        audience: Audience::Gateway.into(),
        ..Default::default()
    };
    let gateway = AuthServiceClient::new(client.clone()).login(gateway).await.unwrap().into_inner();
    add("a real token for the gateway", gateway.access_token);
    add("a refresh token", client.tokens.refresh_token.clone());

    let mut answers = std::collections::BTreeSet::new();
    for (case, token) in &bad {
        let status = use_token(&client.with_token(token)).await.expect_err(case);
        assert_eq!(status.code(), Code::Unauthenticated, "{case}");
        answers.insert((status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(bad.len() >= 40, "{}", bad.len());
}

#[tokio::test]
async fn the_header_is_taken_exactly_once_and_only_as_a_bearer() {
    let running = Running::start().await;
    let client = running.owner().await;
    let good = format!("Bearer {}", client.tokens.access_token);
    for headers in [vec![], vec![good.as_str(), good.as_str()], vec!["Basic b3duZXI6eA=="], vec![&good[7..]], vec!["Bearer"]] {
        let status = use_token(&client.with_authorization(&headers)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{headers:?}");
    }
    assert!(use_token(&client.with_authorization(&[&good.replace("Bearer", "bearer")])).await.is_ok());
}

#[tokio::test]
async fn a_token_is_void_once_its_user_is_disabled_or_its_session_ended() {
    let running = Running::start().await;
    let client = running.owner().await;
    let mut sql = running.sql().await;
    let name = client.tokens.user.clone();
    let me = || async { UserServiceClient::new(client.clone()).get_user(GetUserRequest { name: name.clone() }).await };
    for (spoil, mend) in [
        ("UPDATE users SET disabled = true", "UPDATE users SET disabled = false"),
        ("UPDATE users SET tokens_not_before = now() + interval '1 min'", "UPDATE users SET tokens_not_before = NULL"),
        ("UPDATE sessions SET revoked_at = now()", "UPDATE sessions SET revoked_at = NULL"),
        (
            "UPDATE memberships SET user_id = user_id; UPDATE users SET platform_admin = false",
            "UPDATE users SET platform_admin = true",
        ),
    ] {
        me().await.unwrap();
        sqlx::raw_sql(spoil).execute(&mut sql).await.unwrap();
        let spoiled = me().await;
        if spoil.contains("platform_admin") {
            spoiled.unwrap(); // still a member, and oneself
        } else {
            assert_eq!(spoiled.unwrap_err().code(), Code::Unauthenticated, "{spoil}");
        }
        sqlx::raw_sql(mend).execute(&mut sql).await.unwrap();
    }
    sqlx::raw_sql("UPDATE users SET platform_admin = false; DELETE FROM memberships").execute(&mut sql).await.unwrap();
    assert_eq!(me().await.unwrap_err().code(), Code::Unauthenticated, "no longer a member");
}

#[tokio::test]
async fn a_gateway_token_says_who_one_is_there() {
    let running = Running::start().await;
    let client = running.anonymous().await;
    let request = LoginRequest {
        email: "owner@localhost".into(),
        password: OWNER_PASSWORD.into(),
        audience: Audience::Gateway.into(),
        ..Default::default()
    };
    let answer = AuthServiceClient::new(client).login(request).await.unwrap().into_inner();
    let claims: Claims = serde_json::from_value(claims(&answer.access_token)).unwrap();
    assert_eq!(claims.aud, running.core.config.gateway_public_url);
    assert_eq!(claims.roles, ["owner"]);
    assert_eq!(format!("users/{}", claims.sub), answer.user);
    assert_eq!(claims.org_slug.as_deref(), Some("default"));
    assert_eq!(claims.exp - claims.iat, 900);
}
