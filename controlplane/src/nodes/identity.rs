//! Who a node is: the URI in its certificate, and the certificates that say it. Pure, except for the randomness of keys and serials.
//!
//! Never decides who may have a certificate; [`super::enrol`] and [`super::service`] do.

use std::time::Duration;

use base64::Engine;
use chrono::{DateTime, Utc};
use mcp_gateway::snapshot::ContentHash;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509CertificationRequest};

use crate::{domain::ids, keys::NodeCa};

/// How long a node's certificate is good for; it renews at half of it.
pub const NODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the node listener's own certificate is good for; it is replaced at half of it.
pub const LISTENER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Certificates begin this much in the past, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(300);
/// A request with an EC or Ed25519 key is a few hundred bytes.
const MAX_CSR: usize = 4096;

/// A node of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub node_id: Uuid,
    pub pool: String,
}

/// Why a certificate or a request for one is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the certificate request cannot be read or its signature does not fit; expected PKCS#10 in DER")]
    Request,
    #[error("the certificate request's key is not accepted; expected P-256, P-384 or Ed25519")]
    Algorithm,
    #[error("the certificate does not name a node of trust domain {trust_domain}")]
    NotANode { trust_domain: String },
    #[error("the certificate could not be made: {0}")]
    Issuing(String),
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Issuing(error.to_string())
    }
}

impl Identity {
    /// `spiffe://<trust domain>/pool/<pool>/node/<node id>`
    pub fn uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/pool/{}/node/{}", self.pool, self.node_id)
    }

    /// The identity in a certificate whose chain was verified: its one and only URI.
    pub fn of_certificate(der: &[u8], trust_domain: &str) -> Result<Self, Error> {
        let other = || Error::NotANode { trust_domain: trust_domain.to_owned() };
        let (_, certificate) = X509Certificate::from_der(der).ok().ok_or_else(other)?; // rustls has parsed it before
        let names = certificate.subject_alternative_name().ok().flatten().ok_or_else(other)?;
        match names.value.general_names.as_slice() {
            [GeneralName::URI(uri)] => Self::of_uri(uri, trust_domain).ok_or_else(other),
            _ => Err(other()),
        }
    }

    fn of_uri(uri: &str, trust_domain: &str) -> Option<Self> {
        let path = uri.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?.strip_prefix("/pool/")?;
        let (pool, node) = path.split_once("/node/")?;
        let node_id = Uuid::try_parse(node).ok().filter(|id| id.to_string() == node)?;
        let named = !pool.is_empty() && !pool.contains('/');
        named.then(|| Self { node_id, pool: pool.to_owned() })
    }
}

/// A certificate for a node.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub pem: String,
    pub expires_at: DateTime<Utc>,
    /// Of the key pair's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

/// SHA-256 of the SubjectPublicKeyInfo of a request's key. Whoever made the request holds the key: it signed it.
pub fn requested_key(csr: &[u8]) -> Result<[u8; 32], Error> {
    Ok(*ContentHash::of(&read(csr)?.public_key.subject_public_key_info()).as_bytes())
}

/// As [`requested_key`], of a certificate.
pub fn certified_key(der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(*ContentHash::of(certificate.tbs_certificate.subject_pki.raw).as_bytes())
}

/// A request whose signature fits and whose key is of a kind that is accepted.
fn read(csr: &[u8]) -> Result<CertificateSigningRequestParams, Error> {
    if csr.len() > MAX_CSR {
        return Err(Error::Request);
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).map_err(|e| match e {
        rcgen::Error::UnsupportedSignatureAlgorithm => Error::Algorithm,
        _ => Error::Request, // a foreign library's classes of malformed
    })?;
    let key = &request.public_key;
    let accepted = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    // The library takes the key's algorithm from the signature's; the two must agree.
    let (_, parsed) = X509CertificationRequest::from_der(csr).ok().ok_or(Error::Request)?; // parsed once already
    let spki = key.subject_public_key_info();
    if !accepted.iter().any(|algorithm| **algorithm == *key.algorithm())
        || parsed.certification_request_info.subject_pki.raw != spki
    {
        return Err(Error::Algorithm);
    }
    Ok(request)
}

/// Certifies the key of a request for `identity`; whatever else the request asks for is ignored.
pub fn certify(ca: &NodeCa, csr: &[u8], identity: &Identity, trust_domain: &str) -> Result<Leaf, Error> {
    certify_until(ca, csr, identity, trust_domain, Utc::now() + NODE_LIFETIME)
}

/// As [`certify`], for as long as a test needs it.
pub fn certify_until(
    ca: &NodeCa,
    csr: &[u8],
    identity: &Identity,
    trust_domain: &str,
    expires_at: DateTime<Utc>,
) -> Result<Leaf, Error> {
    let request = read(csr)?;
    let key = &request.public_key;
    let spki = key.subject_public_key_info();
    let mut params = params(expires_at);
    params.distinguished_name.push(DnType::CommonName, identity.node_id.to_string());
    let not_ascii = || Error::NotANode { trust_domain: trust_domain.to_owned() };
    let uri = identity.uri(trust_domain).try_into().ok().ok_or_else(not_ascii)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(key, &ca.issuer()?)?;
    Ok(Leaf { pem: certificate.pem(), expires_at, spki_sha256: *ContentHash::of(&spki).as_bytes() })
}

/// A certificate and key for the node listener itself.
pub fn for_listener(ca: &NodeCa, names: &[String]) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(Utc::now() + LISTENER_LIFETIME);
    params.distinguished_name.push(DnType::CommonName, "mcpgw control plane");
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &ca.issuer()?)?;
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// A certificate as text (RFC 7468).
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn params(expires_at: DateTime<Utc>) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |moment: DateTime<Utc>| epoch + Duration::from_secs(moment.timestamp().unsigned_abs());
    let mut params = CertificateParams::default();
    params.not_before = at(Utc::now() - SKEW);
    params.not_after = at(expires_at);
    params.serial_number = Some(SerialNumber::from_slice(ids::random::<16>().as_ref()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "019a8f00-0000-7000-8000-000000000001";

    #[test]
    fn only_the_uri_of_a_node_in_this_trust_domain_is_an_identity() {
        let good = format!("spiffe://td.example/pool/edge/node/{NODE}");
        let identity = Identity::of_uri(&good, "td.example").unwrap();
        assert_eq!(identity, Identity { node_id: NODE.parse().unwrap(), pool: "edge".into() });
        assert_eq!(identity.uri("td.example"), good);
        for uri in [
            format!("spiffe://td.example.com/pool/edge/node/{NODE}"),
            format!("https://td.example/pool/edge/node/{NODE}"),
            format!("spiffe://td.example/pool//node/{NODE}"),
            format!("spiffe://td.example/pool/a/b/node/{NODE}"),
            format!("spiffe://td.example/pool/edge/node/{NODE}/x"),
            format!("spiffe://td.example/pool/edge/node/{}", NODE.to_uppercase()),
            format!("spiffe://td.example/pool/edge/node/{{{NODE}}}"),
            "spiffe://td.example/pool/edge/node/".to_owned(),
        ] {
            assert_eq!(Identity::of_uri(&uri, "td.example"), None, "{uri}");
        }
    }
}
