//! The certificate authority of the fleet: a P-256 key and its self-signed certificate.
//!
//! Owns making and loading it. What it signs is decided by `nodes`.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{Error, malformed};

const YEARS: i32 = 10;

/// The authority that signs the certificates of nodes and of the node listener.
pub struct NodeCa {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl NodeCa {
    /// The CA's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs certificates.
    pub fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_der(&self.certificate, &self.key)
    }

    /// SubjectPublicKeyInfo of the CA, DER: what pins are made of.
    pub fn public_key_info(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.key.subject_public_key_info()
    }

    /// A new key (PKCS#8) and certificate (DER).
    pub(super) fn generate(id: &str, trust_domain: &str) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
        use chrono::Datelike;
        let broken = |e: rcgen::Error| malformed(id, e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(broken)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("mcpgw {trust_domain} {id}"));
        let today = chrono::Utc::now().date_naive();
        params.not_before = rcgen::date_time_ymd(today.year() - 1, 1, 1);
        params.not_after = rcgen::date_time_ymd(today.year() + YEARS, 12, 31);
        let certificate = params.self_signed(&key).map_err(broken)?;
        Ok((Zeroizing::new(key.serialize_der()), certificate.der().to_vec()))
    }

    pub(super) fn from_stored(id: &str, pkcs8: &[u8], certificate: &[u8]) -> Result<Self, Error> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|e| malformed(id, e.to_string()))?;
        Ok(Self { key, certificate: CertificateDer::from(certificate.to_vec()) })
    }
}
