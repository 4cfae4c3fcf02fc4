//! Recognises a control plane that this node has never seen: its chain must end in the authority that the join token pins.
//! Only used for the first contact; afterwards the authority itself is on disk.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Accepts exactly a chain that an authority with this pin vouches for, for the name that was dialled.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    pub(super) fn new(pin: [u8; 32]) -> Self {
        Self { pin, provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()) }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| pin_of(certificate) == Some(self.pin));
        let authority = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn pin_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    digest(&SHA256, certificate.tbs_certificate.subject_pki.raw).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }

        fn pin(&self) -> [u8; 32] {
            pin_of(&self.der()).unwrap()
        }

        fn server(&self, name: &str) -> CertificateDer<'static> {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
        }
    }

    fn verify(pin: [u8; 32], leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name: &str) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        PinVerifier::new(pin).verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn only_a_chain_of_the_pinned_authority_for_the_dialled_name_is_accepted() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (leaf, forged) = (ours.server("cp.example"), theirs.server("cp.example"));
        assert_eq!(verify(ours.pin(), &leaf, &[ours.der()], "cp.example"), Ok(()));
        let refused = |result: Result<(), Error>| matches!(result, Err(Error::InvalidCertificate(_)));
        assert!(refused(verify(ours.pin(), &leaf, &[ours.der()], "other.example")), "another name");
        assert!(refused(verify(ours.pin(), &forged, &[theirs.der()], "cp.example")), "another authority");
        assert!(refused(verify(ours.pin(), &forged, &[ours.der()], "cp.example")), "our authority beside a foreign leaf");
        assert!(refused(verify(ours.pin(), &leaf, &[], "cp.example")), "no authority in the chain");
        assert!(refused(verify(ours.pin(), &ours.der(), &[ours.der()], "cp.example")), "the authority as a leaf");
    }
}
