//! Access tokens: JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037). Made and checked here, nowhere else.
//!
//! Knows nothing of sessions: whether one still lives is asked of the database by `api`.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Custody, Error};

/// The audience of tokens for the admin API.
pub const ADMIN_AUDIENCE: &str = "mcpgw-admin";
/// A token is refused unread above this size.
const LONGEST: usize = 8192;
const SKEW: Duration = Duration::from_secs(60);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user's id.
    pub sub: String,
    /// The organisation's id; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// The organisation's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_slug: Option<String>,
    /// The role in the organisation, and role names that policies made up.
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    /// The login session's id.
    pub sid: String,
    /// The token's own id.
    pub jti: String,
    /// Seconds since the Unix epoch.
    pub iat: i64,
    /// Seconds since the Unix epoch.
    pub exp: i64,
    #[serde(default)]
    pub email: String,
    #[serde(default)]
    pub platform_admin: bool,
}

impl Custody {
    /// Signs a token with the current key.
    pub fn sign_token(&self, claims: &Claims) -> Result<String, Error> {
        let keys = self.keys()?;
        let key = keys.jwt.current();
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": key.id });
        let claims = json!(claims);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.material.pair().sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// What a token says, if one of our keys signed it for this audience, in time. None: it is not to be believed, for
    /// whatever reason.
    pub fn check_token(&self, token: &str, issuer: &str, audience: &str) -> Result<Option<Claims>, Error> {
        let keys = self.keys()?;
        if token.len() > LONGEST {
            return Ok(None);
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(None) };
        // The key decides the algorithm, never the token; `jku`, `jwk`, `x5u` and `x5c` are not looked at.
        // A next key counts: another replica may have made it the current one a moment ago.
        let Some(key) = header.kid.as_deref().and_then(|kid| keys.jwt.get(kid)) else { return Ok(None) };
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.validate_nbf = true;
        rules.leeway = SKEW.as_secs();
        let decoded = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(key.material.public()), &rules);
        Ok(decoded.ok().map(|decoded| decoded.claims))
    }
}
