//! How the command line reaches servers over TCP: plain for `http`, verified TLS for `https`.
//! Never skips verification. Used by the admin channel and the MCP client.

use std::path::Path;

use anyhow::{Context as _, bail};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Protocols offered over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// gRPC speaks nothing else.
    Http2,
    /// A WebSocket begins as a request of HTTP/1.1.
    Http1,
    /// MCP servers may speak either.
    Any,
}

/// A connector that trusts the system's authorities, or only those of the PEM file `ca`.
pub fn connector(ca: Option<&Path>, protocols: Protocols) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(std::time::Duration::from_secs(10)));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config(ca)?).https_or_http();
    Ok(match protocols {
        Protocols::Http2 => builder.enable_http2().wrap_connector(tcp),
        Protocols::Http1 => builder.enable_http1().wrap_connector(tcp),
        Protocols::Any => builder.enable_all_versions().wrap_connector(tcp),
    })
}

fn config(ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder();
    let Some(path) = ca else {
        return Ok(match builder.clone().with_native_roots() {
            Ok(builder) => builder.with_no_client_auth(),
            // A machine without a certificate store can still use http and --ca; https fails with its own error.
            Err(_) => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        });
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).with_context(|| format!("--ca {}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("--ca {}: not PEM", path.display()))?;
        roots.add(certificate).with_context(|| format!("--ca {}: unusable certificate", path.display()))?;
    }
    if roots.is_empty() {
        bail!("--ca {}: no certificate in it; expected PEM", path.display());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
