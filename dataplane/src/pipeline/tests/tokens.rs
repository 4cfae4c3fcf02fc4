//! Tokens: RFC 8725's table of what must not get in, and what must not stay in.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_gateway::proto::config::v1::{Revocation, RevokedSubject};
use mcp_gateway::proto::node::v1::Via;
use serde_json::{Value, json};

use super::scope::{ACME, ACME_ISSUER, GITHUB, ISSUER, PUBLIC_URL, RIVAL, Scope, signing_key};
use super::world::{Answer, Gateway, Upstream, result};
use crate::pipeline::authenticate::seconds_since_epoch;

pub fn sign(key: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "JWT", "kid": "gateway-1" })
}

pub fn claims() -> Value {
    let now = seconds_since_epoch();
    json!({
        "iss": ISSUER, "aud": PUBLIC_URL, "sub": "user-1", "org": ACME, "sid": "login-1", "jti": "t-1",
        "iat": now, "exp": now + 300, "roles": ["engineer"],
    })
}

pub fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

fn without(mut value: Value, key: &str) -> Value {
    value.as_object_mut().unwrap().remove(key);
    value
}

async fn world() -> (Gateway, Upstream) {
    let upstream = Upstream::start(|seen| result(seen, "{}")).await;
    (Gateway::start(&Scope::at(upstream.address)).await, upstream)
}

async fn call(gateway: &Gateway, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    gateway.ask(gateway.modern(GITHUB, &[("authorization", &bearer)], "tools/call", r#""name":"echo""#)).await
}

#[tokio::test]
async fn good_tokens_of_both_kinds_of_issuer_get_in() {
    let (gateway, upstream) = world().await;
    let acme_header = with(header(), "kid", "acme-1".into());
    let acme_claims = with(with(claims(), "iss", ACME_ISSUER.into()), "org", RIVAL.into());
    let cases = [
        ("the gateway's own", sign(&signing_key(1), &header(), &claims())),
        ("an audience of the issuer's", sign(&signing_key(1), &header(), &with(claims(), "aud", "mcp".into()))),
        ("one of several audiences", sign(&signing_key(1), &header(), &with(claims(), "aud", json!(["x", PUBLIC_URL])))),
        ("a little late", sign(&signing_key(1), &header(), &with(claims(), "exp", (seconds_since_epoch() - 30).into()))),
        ("the organisation's, whatever it claims", sign(&signing_key(2), &acme_header, &acme_claims)),
    ];
    for (case, token) in &cases {
        for _ in 0..2 {
            let answer = call(&gateway, token).await;
            assert_eq!(answer.status, 200, "{case}: {answer:?}");
            let (decided, _) = gateway.record(answer.request_id());
            assert_eq!((decided.via(), &*decided.subject, &*decided.org_id), (Via::Jwt, "user-1", ACME), "{case}");
            assert_eq!(decided.credential_id, "t-1");
        }
    }
    assert_eq!(upstream.seen().len(), 2 * cases.len());
}

#[tokio::test]
async fn tokens_that_anything_is_wrong_with_do_not_get_in() {
    let (gateway, upstream) = world().await;
    let key = signing_key(1);
    let now = seconds_since_epoch();
    let good = sign(&key, &header(), &claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let claim = |name: &str, value: Value| sign(&key, &header(), &with(claims(), name, value));
    let lacks = |name: &str| sign(&key, &header(), &without(claims(), name));
    let head = |name: &str, value: Value| sign(&key, &with(header(), name, value), &claims());
    let cases = [
        ("no signature", format!("{signed}.")),
        ("another signature", format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        ("signed by another key", sign(&signing_key(9), &header(), &claims())),
        ("signed by the organisation's key", sign(&signing_key(2), &header(), &claims())),
        ("alg none", head("alg", "none".into())),
        ("alg HS256 with the public key as secret", head("alg", "HS256".into())),
        ("alg RS256", head("alg", "RS256".into())),
        ("alg ES256", head("alg", "ES256".into())),
        ("alg missing", sign(&key, &without(header(), "alg"), &claims())),
        ("kid missing", sign(&key, &without(header(), "kid"), &claims())),
        ("kid unknown", head("kid", "gateway-2".into())),
        ("kid a path", head("kid", "../../etc/passwd".into())),
        ("kid a query", head("kid", "x' OR '1'='1".into())),
        ("kid of the organisation's issuer", head("kid", "acme-1".into())),
        ("an extension that must be understood", head("crit", json!(["exp"]))),
        ("a key of its own", sign(&signing_key(9), &with(header(), "jwk", json!({"kty": "OKP"})), &claims())),
        ("keys from elsewhere", sign(&signing_key(9), &with(header(), "jku", "https://evil.test".into()), &claims())),
        ("iss another", claim("iss", "https://evil.test".into())),
        ("iss of the organisation", claim("iss", ACME_ISSUER.into())),
        ("iss missing", lacks("iss")),
        ("aud another", claim("aud", "https://other.test".into())),
        ("aud almost", claim("aud", format!("{PUBLIC_URL}/").into())),
        ("aud none of them", claim("aud", json!(["a", "b"]))),
        ("aud empty", claim("aud", json!([]))),
        ("aud missing", lacks("aud")),
        ("expired", claim("exp", (now - 120).into())),
        ("exp missing", lacks("exp")),
        ("exp a text", claim("exp", "9999999999".into())),
        ("not yet", claim("nbf", (now + 120).into())),
        ("sub missing", lacks("sub")),
        ("org missing", lacks("org")),
        ("org empty", claim("org", "".into())),
        ("roles not a list", claim("roles", "engineer".into())),
        ("claims not an object", sign(&key, &header(), &json!("x"))),
        ("too long", claim("pad", "x".repeat(9000).into())),
        ("four parts", format!("{good}.x")),
    ];
    for (case, token) in cases {
        let answer = call(&gateway, &token).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, -31401), "{case}: {answer:?}");
        let (decided, _) = gateway.record(answer.request_id());
        assert!(decided.reason.starts_with("authenticate."), "{case}: {}", decided.reason);
        assert_eq!(decided.subject, "", "{case}");
    }
    let foreign = call(&gateway, &claim("org", RIVAL.into())).await;
    assert_eq!((foreign.status.as_u16(), foreign.code()), (404, -31404), "another organisation's member: {foreign:?}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_remembered_token_is_let_go_when_its_key_its_session_or_its_user_is_gone() {
    let token = sign(&signing_key(1), &header(), &claims());
    let revocations = [
        Revocation { login_sessions: vec!["login-1".into()], ..Revocation::default() },
        Revocation {
            subjects: vec![RevokedSubject { subject: "user-1".into(), not_before: seconds_since_epoch() + 1 }],
            ..Revocation::default()
        },
    ];
    for revocation in revocations {
        let (gateway, _upstream) = world().await;
        assert_eq!(call(&gateway, &token).await.status, 200);
        gateway.live.revoke(&revocation);
        assert_eq!(call(&gateway, &token).await.status, 401, "{revocation:?}");
        gateway.live.revoke(&Revocation::default());
        assert_eq!(call(&gateway, &token).await.status, 200, "and comes back with its right");
    }
    let (gateway, upstream) = world().await;
    assert_eq!(call(&gateway, &token).await.status, 200);
    let mut scope = Scope::at(upstream.address);
    scope.global.issuers[0].keys[0].key_id = "gateway-2".into();
    gateway.swap(&scope);
    assert_eq!(call(&gateway, &token).await.status, 401, "the key was retired");
    scope.global.issuers[0].keys[0].key_id = "gateway-1".into();
    scope.global.issuers[0].keys[0].public_key = vec![3; 32].into();
    gateway.swap(&scope);
    assert_eq!(call(&gateway, &token).await.status, 401, "the key id names another key");
}

#[tokio::test]
async fn a_token_of_one_organisations_issuer_is_worth_nothing_elsewhere() {
    use super::scope::FOREIGN;
    let (gateway, upstream) = world().await;
    let acme_header = with(header(), "kid", "acme-1".into());
    let token = sign(&signing_key(2), &acme_header, &with(claims(), "iss", ACME_ISSUER.into()));
    assert_eq!(call(&gateway, &token).await.status, 200, "remembered now");
    let bearer = format!("Bearer {token}");
    let answer = gateway.ask(gateway.modern(FOREIGN, &[("authorization", &bearer)], "tools/list", "")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, -31401), "{answer:?}");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn status_tells_callers_about_themselves_only() {
    let (gateway, _upstream) = world().await;
    let bearer = format!("Bearer {}", sign(&signing_key(1), &header(), &claims()));
    let get = |headers: &[(&str, &str)]| gateway.ask(gateway.request(http::Method::GET, "/mcp/status", headers, ""));
    let answer = get(&[("authorization", &bearer)]).await;
    let status = answer.json();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((&status["principal"]["subject"], &status["organization"]["slug"]), (&"user-1".into(), &"acme".into()));
    assert_eq!(status["configuration"]["version"], 7);
    let servers: Vec<_> = status["servers"].as_array().unwrap().iter().map(|server| server["slug"].clone()).collect();
    assert_eq!(servers, ["github", "open"]);
    assert_eq!(gateway.record(answer.request_id()).0.subject, "user-1");
    assert_eq!(get(&[]).await.status, 401);
    let post = gateway.request(http::Method::POST, "/mcp/status", &[("authorization", &bearer)], "");
    let refused = gateway.ask(post).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("GET")));
}
