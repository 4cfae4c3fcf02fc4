//! Verifies JSON Web Tokens against the issuers of one snapshot, and remembers the verified ones.
//!
//! The algorithm is the key's, never the token's choice; `kid` is only ever a map lookup (RFC 8725). A remembered token
//! skips the signature, nothing else: key, audience, expiry and revocation are looked at on every request.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mcp_gateway::proto::config::v1::SignatureAlgorithm;
use mcp_gateway::proto::node::v1::Via;
use mcp_gateway::snapshot::{Issuer, Org, Snapshot, VerificationKey};
use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::principal::Principal;

/// Clock skew allowed between issuer and node, in seconds.
pub const LEEWAY_SECONDS: i64 = 60;

/// Why a token is refused. For metrics and records only: every one of them is answered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a JSON Web Token")]
    Malformed,
    #[error("no key of a known issuer has this id")]
    UnknownKey,
    #[error("the algorithm is not the key's")]
    WrongAlgorithm,
    #[error("the signature does not verify")]
    BadSignature,
    #[error("the issuer is not the key's")]
    WrongIssuer,
    #[error("the audience is another")]
    WrongAudience,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("a required claim is missing or has the wrong type")]
    BadClaims,
}

/// Whose issuer vouched for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// The gateway's own: the token names its organisation.
    Gateway,
    /// An organisation's: the token belongs to it whatever it claims.
    Org(Arc<str>),
}

/// The key that a signature held under: what it proved holds as long as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    source: Source,
    issuer: String,
    kid: String,
    public_key: Vec<u8>,
}

impl Proof {
    /// The issuer that has the key now, among the gateway's and those of `org`; `None`: the key was withdrawn.
    pub fn issuer<'c>(&self, org: Option<&'c Org>, config: &'c Snapshot) -> Option<&'c Issuer> {
        let issuers: &[Issuer] = match (&self.source, org) {
            (Source::Gateway, _) => config.issuers(),
            (Source::Org(id), Some(org)) if *id == org.id => &org.issuers,
            (Source::Org(_), _) => return None,
        };
        issuers.iter().find(|issuer| {
            issuer.issuer == self.issuer && issuer.keys.get(&self.kid).is_some_and(|key| key.public_key == self.public_key)
        })
    }
}

/// A token whose signature held, with what has to be looked at again.
#[derive(Debug)]
struct Verified {
    proof: Arc<Proof>,
    audiences: Vec<String>,
    not_before: Option<i64>,
    principal: Arc<Principal>,
}

/// Verified tokens by SHA-256 of their text; bounded.
pub struct Tokens {
    cache: Cache<[u8; 32], Arc<Verified>>,
    public_url: String,
}

/// A principal and whether its signature was remembered.
#[derive(Debug)]
pub struct Recognised {
    pub principal: Arc<Principal>,
    pub remembered: bool,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    iat: Option<i64>,
    aud: OneOrMany,
    #[serde(default)]
    org: Option<String>,
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Tokens {
    /// Remembers at most `capacity` tokens; `public_url` is an audience of every issuer.
    pub fn new(capacity: u64, public_url: String) -> Self {
        Self { cache: Cache::new(capacity), public_url }
    }

    /// Tokens that are remembered now.
    pub fn remembered(&self) -> u64 {
        self.cache.entry_count()
    }

    /// Whether the token is remembered.
    pub fn knows(&self, token: &str) -> bool {
        let place: [u8; 32] = Sha256::digest(token).into();
        self.cache.contains_key(&place)
    }

    /// Recognises the bearer of `token` among the gateway's issuers and those of `org`.
    pub fn verify(&self, token: &str, org: Option<&Org>, config: &Snapshot, now: i64) -> Result<Recognised, TokenError> {
        let place: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.cache.get(&place) {
            self.check_again(&known, org, config, now)?;
            return Ok(Recognised { principal: known.principal.clone(), remembered: true });
        }
        let verified = Arc::new(self.verify_anew(token, org, config, now)?);
        let principal = verified.principal.clone();
        self.cache.insert(place, verified);
        Ok(Recognised { principal, remembered: false })
    }

    fn check_again(&self, known: &Verified, org: Option<&Org>, config: &Snapshot, now: i64) -> Result<(), TokenError> {
        let issuer = known.proof.issuer(org, config).ok_or(TokenError::UnknownKey)?;
        if !self.accepts(issuer, &known.audiences) {
            return Err(TokenError::WrongAudience);
        }
        check_times(known.principal.expires_at.unwrap_or(0), known.not_before, now)
    }

    fn verify_anew(&self, token: &str, org: Option<&Org>, config: &Snapshot, now: i64) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_malformed| TokenError::Malformed)?;
        // RFC 7515 section 4.1.11: extensions that are not understood must be refused.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let kid = header.kid.ok_or(TokenError::UnknownKey)?;
        let claimed = claimed_issuer(token)?;
        let ours = config.issuers().iter().map(|issuer| (issuer, Source::Gateway));
        let theirs = org.into_iter().flat_map(|org| org.issuers.iter().map(|issuer| (issuer, Source::Org(org.id.clone()))));
        let (issuer, key, source) = ours
            .chain(theirs)
            .filter(|(issuer, _)| issuer.issuer == claimed)
            .find_map(|(issuer, source)| Some((issuer, issuer.keys.get(&kid)?, source)))
            .ok_or(TokenError::UnknownKey)?;
        let claims = self.verify_signed(token, header.alg, issuer, key)?;
        check_times(claims.exp, claims.nbf, now)?;
        let audiences = match claims.aud {
            OneOrMany::One(audience) => vec![audience],
            OneOrMany::Many(audiences) => audiences,
        };
        if !self.accepts(issuer, &audiences) {
            return Err(TokenError::WrongAudience);
        }
        let org_id: Arc<str> = match &source {
            Source::Gateway => claims.org.filter(|org| !org.is_empty()).ok_or(TokenError::BadClaims)?.into(),
            Source::Org(id) => id.clone(),
        };
        let proof = Proof { source, issuer: issuer.issuer.clone(), kid, public_key: key.public_key.clone() };
        let proof = Arc::new(proof);
        let principal = Principal {
            org_id,
            subject: claims.sub,
            roles: claims.roles,
            groups: claims.groups,
            via: Via::Jwt,
            credential_id: claims.jti.unwrap_or_default(),
            login_session: claims.sid,
            proof: Some(proof.clone()),
            issued_at: claims.iat,
            expires_at: Some(claims.exp),
        };
        Ok(Verified { proof, audiences, not_before: claims.nbf, principal: Arc::new(principal) })
    }

    /// Signature and issuer only: the times are checked with our own clock so that tests can hold it, the audience
    /// because it is needed again on every request.
    fn verify_signed(&self, token: &str, alg: Algorithm, issuer: &Issuer, key: &VerificationKey) -> Result<Claims, TokenError> {
        let (expected, decoding) = match key.algorithm {
            SignatureAlgorithm::Eddsa => (Algorithm::EdDSA, DecodingKey::from_ed_der(&key.public_key)),
            SignatureAlgorithm::Rs256 => (Algorithm::RS256, DecodingKey::from_rsa_der(&key.public_key)),
            SignatureAlgorithm::Es256 => (Algorithm::ES256, DecodingKey::from_ec_der(&key.public_key)),
            SignatureAlgorithm::Unspecified => return Err(TokenError::WrongAlgorithm),
        };
        if alg != expected {
            return Err(TokenError::WrongAlgorithm);
        }
        let mut validation = Validation::new(expected);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&issuer.issuer]);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Claims>(token, &decoding, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidSignature => TokenError::BadSignature,
                ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
                ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => TokenError::BadClaims,
                _ => TokenError::Malformed, // a foreign enum, not exhaustive
            }
        })?;
        Ok(data.claims)
    }

    fn accepts(&self, issuer: &Issuer, audiences: &[String]) -> bool {
        audiences.iter().any(|audience| *audience == self.public_url || issuer.audiences.contains(audience))
    }
}

/// The claim `iss` before anything is proved: only used to look up which issuer has to prove it.
fn claimed_issuer(token: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Claimed>(token)
        .map(|claimed| claimed.iss)
        .map_err(|_malformed| TokenError::BadClaims)
}

fn check_times(expires: i64, not_before: Option<i64>, now: i64) -> Result<(), TokenError> {
    if now > expires.saturating_add(LEEWAY_SECONDS) {
        return Err(TokenError::Expired);
    }
    if not_before.is_some_and(|moment| now < moment.saturating_sub(LEEWAY_SECONDS)) {
        return Err(TokenError::NotYet);
    }
    Ok(())
}
