//! How nodes of a pool recognise each other: by the certificates that they have from the control plane, each naming one node in its one
//! URI (`spiffe://<trust domain>/pool/<pool>/node/<node id>`). Nothing else under the same authority is a node.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::node::Identity;

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the node's certificate or its authority cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the node's certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the node's authority cannot be used: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// Accepts other nodes of the pool, as clients and as servers alike.
#[derive(Debug)]
struct OfPool {
    chain: Arc<dyn ClientCertVerifier>,
    pool: String,
}

/// What the node shows and whom it lets in.
pub fn server(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, TlsError> {
    let (certificates, key) = own(identity)?;
    let verifier = Arc::new(OfPool::new(identity, provider)?);
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(config.with_client_cert_verifier(verifier).with_single_cert(certificates, key)?)
}

/// What the node shows and whom it believes. The name that is dialled is the other node's id.
pub fn client(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, TlsError> {
    let (certificates, key) = own(identity)?;
    let verifier = Arc::new(OfPool::new(identity, provider)?);
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_client_auth_cert(certificates, key)?)
}

fn own(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let certificates = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
    Ok((certificates, PrivateKeyDer::from_pem_slice(identity.private_key_pem().as_bytes())?))
}

impl OfPool {
    fn new(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(identity.ca_pem.as_bytes()) {
            roots.add(authority?)?;
        }
        let chain = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
        Ok(Self { chain, pool: identity.pool.clone() })
    }

    /// The node that a certificate names, if it is one of the pool.
    fn node(&self, certificate: &CertificateDer<'_>) -> Result<String, Error> {
        named(certificate, &self.pool).ok_or(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }
}

/// The node of `pool` that a certificate names in its one and only alternative name.
fn named(certificate: &CertificateDer<'_>, pool: &str) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten()?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return None };
    let (_trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once("/pool/")?;
    let (of, node) = path.split_once("/node/")?;
    (of == pool && uuid::Uuid::try_parse(node).is_ok()).then(|| node.to_owned())
}

impl ClientCertVerifier for OfPool {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.node(end_entity).map(|_node| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ServerCertVerifier for OfPool {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // As a client: the authority gives nodes certificates for both, and only nodes any for clients.
        self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let node = self.node(end_entity)?;
        if node == server_name.to_str() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_a_node_of_the_pool_is_one() {
        const NODE: &str = "0190a000-0000-7000-8000-00000000000e";
        let ours = format!("spiffe://mcpgw/pool/default/node/{NODE}");
        assert_eq!(named(&certificate(&[&ours]), "default").as_deref(), Some(NODE));
        for (names, pool) in [
            (vec![&*ours], "other"),
            (vec![&*ours, "spiffe://mcpgw/pool/default/node/x"], "default"),
            (vec!["spiffe://mcpgw/pool/default/node/not-an-id"], "default"),
            (vec!["https://mcpgw/pool/default/node/x"], "default"),
            (vec![], "default"),
        ] {
            assert_eq!(named(&certificate(&names), pool), None, "{names:?}");
        }
    }
}
