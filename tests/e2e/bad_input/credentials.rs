//! Keys and tokens that prove nothing: every one of them gets the same answer; only the record says why.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcpgw_controlplane::keys::token::{ADMIN_AUDIENCE, Claims};
use mcpgw_tests::fleet::Call;
use serde_json::{Value, json};

use super::{Bench, Case, refused};

const UNPROVED: (u16, i64) = (401, -31401);

pub async fn cases(bench: &Bench) -> Vec<Case> {
    let mut cases = keys(bench);
    cases.extend(tokens(bench).await);
    cases
}

fn bearing(bench: &Bench, credential: &str) -> Call {
    bench.good().without("authorization").header("authorization", credential)
}

fn keys(bench: &Bench) -> Vec<Case> {
    let (public, secret) = bench.key.rsplit_once('_').unwrap();
    let wrong_secret = format!("Bearer {public}_{}", secret.chars().rev().collect::<String>());
    let unknown = format!("Bearer mcpgw_zzzzzzzzzzzzzzzz_{secret}");
    let nobody = bench.good().without("authorization");
    vec![
        refused("no credential", nobody, UNPROVED, "authenticate.missing"),
        refused("an unknown key", bearing(bench, &unknown), UNPROVED, "authenticate.wrong_key"),
        refused("a wrong secret", bearing(bench, &wrong_secret), UNPROVED, "authenticate.wrong_key"),
        refused("a revoked key", bearing(bench, &format!("Bearer {}", bench.revoked)), UNPROVED, "authenticate.wrong_key"),
        refused("another scheme", bearing(bench, &format!("Basic {secret}")), UNPROVED, "authenticate.unusable"),
        refused("a key without a scheme", bearing(bench, &bench.key), UNPROVED, "authenticate.unusable"),
        refused("half a key", bearing(bench, &format!("Bearer {public}")), UNPROVED, "authenticate.unusable"),
        refused(
            "two credentials",
            bench.good().header("authorization", &format!("Bearer {}", bench.colleague)),
            (400, -32600),
            "authenticate.ambiguous",
        ),
        refused("a key and a key", bench.good().header("x-api-key", &bench.key), (400, -32600), "authenticate.ambiguous"),
    ]
}

async fn tokens(bench: &Bench) -> Vec<Case> {
    let core = &bench.fleet.control.running.core;
    let sign = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims(bench);
        change(&mut claims);
        core.custody.sign_token(&claims).unwrap()
    };
    let good = sign(&|_| {});
    let answer = bench.http.send(bearing(bench, &format!("Bearer {good}"))).await.unwrap();
    assert_eq!(answer.text().as_deref(), Some("tool_0"), "what is forged below is good as it is: {answer:?}");

    let now = claims(bench).iat;
    let (kid, public) = published_key(bench).await;
    let (payload, signature) = (part(&good, 1), part(&good, 2));
    let more = URL_SAFE_NO_PAD.encode(json!({ "iss": core.config.issuer, "roles": ["colleague"] }).to_string());
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "kid": kid }).to_string());
    let hmac = encoded(&EncodingKey::from_secret(&public), Algorithm::HS256, &kid, &claims(bench));
    let ours = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ours = EncodingKey::from_ed_der(&ours.serialize_der());
    let tokens = [
        ("an expired token", sign(&|c| (c.iat, c.exp) = (now - 900, now - 120)), UNPROVED, "authenticate.token_expired"),
        ("a token for the admin API", sign(&|c| c.aud = ADMIN_AUDIENCE.into()), UNPROVED, "authenticate.token_wrong_audience"),
        (
            "a token for another gateway",
            sign(&|c| c.aud = "https://other.test".into()),
            UNPROVED,
            "authenticate.token_wrong_audience",
        ),
        (
            "a token of an unknown issuer",
            sign(&|c| c.iss = "https://evil.test".into()),
            UNPROVED,
            "authenticate.token_unknown_key",
        ),
        ("a token without an organisation", sign(&|c| c.org = None), UNPROVED, "authenticate.token_bad_claims"),
        (
            "a token for another organisation",
            sign(&|c| c.org = Some(c.sub.clone())),
            (404, -31404),
            "authenticate.unknown_server",
        ),
        (
            "a token with other claims",
            format!("{}.{more}.{signature}", part(&good, 0)),
            UNPROVED,
            "authenticate.token_bad_signature",
        ),
        ("a token without a signature", format!("{}.{payload}.", part(&good, 0)), UNPROVED, "authenticate.token_bad_signature"),
        ("algorithm none", format!("{none}.{payload}."), UNPROVED, "authenticate.token_malformed"),
        ("the public key as a secret", hmac, UNPROVED, "authenticate.token_wrong_algorithm"),
        (
            "a key of one's own",
            encoded(&ours, Algorithm::EdDSA, &kid, &claims(bench)),
            UNPROVED,
            "authenticate.token_bad_signature",
        ),
        (
            "an unknown key id",
            encoded(&ours, Algorithm::EdDSA, "../../x", &claims(bench)),
            UNPROVED,
            "authenticate.token_unknown_key",
        ),
        ("not a token", "a.b.c".into(), UNPROVED, "authenticate.token_malformed"),
        ("a token that is too long", format!("{good}{}", "A".repeat(9000)), UNPROVED, "authenticate.unusable"),
    ];
    let case = |(what, token, answer, reason)| refused(what, bearing(bench, &format!("Bearer {token}")), answer, reason);
    tokens.map(case).into()
}

/// A token that gets in.
fn claims(bench: &Bench) -> Claims {
    let config = &bench.fleet.control.running.core.config;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    Claims {
        iss: config.issuer.clone(),
        aud: config.gateway_public_url.clone(),
        sub: "0190a000-0000-7000-8000-00000000cafe".into(),
        org: Some(bench.org_id.clone()),
        org_slug: None,
        roles: vec!["tester".into()],
        groups: Vec::new(),
        sid: "0190a000-0000-7000-8000-00000000beef".into(),
        jti: "one".into(),
        iat: now,
        exp: now + 300,
        email: String::new(),
        platform_admin: false,
    }
}

fn encoded(key: &EncodingKey, algorithm: Algorithm, kid: &str, claims: &Claims) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn part(token: &str, place: usize) -> &str {
    token.split('.').nth(place).unwrap()
}

/// Id and bytes of the key that the control plane publishes.
async fn published_key(bench: &Bench) -> (String, Vec<u8>) {
    let url = format!("http://{}/.well-known/jwks.json", bench.fleet.control.addresses().http);
    let call = Call { url, method: Method::GET, headers: Vec::new(), body: bytes::Bytes::new() };
    let keys: Value = serde_json::from_slice(&bench.http.send(call).await.unwrap().body).unwrap();
    let key = &keys["keys"][0];
    (key["kid"].as_str().unwrap().to_owned(), URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap())
}
