//! Certificates of a listener: chosen by SNI, reloaded when their files change, the old ones kept when the new do not load.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Certificate;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path}: no certificate in the file")]
    Empty { path: PathBuf },
    #[error("{path}: {source}")]
    Unusable { path: PathBuf, source: rustls::Error },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("TLS settings: {0}")]
    Settings(rustls::Error),
}

/// The certificates of one listener, as loaded last.
#[derive(Debug)]
pub struct Certificates {
    files: Vec<Certificate>,
    provider: Arc<CryptoProvider>,
    loaded: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    /// In the order of the configuration; the first serves clients that name no host or an unknown one.
    keys: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    stamps: Vec<Stamp>,
}

impl Certificates {
    /// Loads `files`, which must not be empty.
    pub fn load(files: Vec<Certificate>, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files, &provider)?);
        Ok(Arc::new(Self { files, provider, loaded }))
    }

    /// An acceptor for HTTP/2 and HTTP/1.1 with these certificates.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Loads the files again whenever one of them changed, until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => self.look(),
            }
        }
    }

    fn look(&self) {
        if stamps(&self.files) == self.loaded.load().stamps {
            return;
        }
        match Loaded::read(&self.files, &self.provider) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!("TLS certificates reloaded");
            }
            Err(error) => tracing::warn!(%error, "TLS certificates changed but do not load; the old ones stay"),
        }
    }
}

impl Loaded {
    fn read(files: &[Certificate], provider: &CryptoProvider) -> Result<Self, TlsError> {
        // Stamped first: a file written while we read is looked at again.
        let stamps = stamps(files);
        let keys = files.iter().map(|file| read(file, provider)).collect::<Result<_, _>>()?;
        Ok(Self { keys, stamps })
    }
}

/// What tells one content of a file from the next; `None` while there is no file.
pub(crate) type Stamp = Option<(SystemTime, u64, u64)>;

/// The stamp of a file as it is now.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn stamps(files: &[Certificate]) -> Vec<Stamp> {
    files.iter().flat_map(|file| [stamp(&file.chain), stamp(&file.key)]).collect()
}

fn read(file: &Certificate, provider: &CryptoProvider) -> Result<(Vec<String>, Arc<CertifiedKey>), TlsError> {
    let bytes = |path: &Path| fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source });
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = bytes(&file.chain)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(pem(&file.chain))?;
    let leaf = chain.first().ok_or_else(|| TlsError::Empty { path: file.chain.clone() })?;
    let names = names(leaf);
    let key = PrivateKeyDer::from_pem_slice(&bytes(&file.key)?).map_err(pem(&file.key))?;
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unusable { path, source }
    };
    let signer = provider.key_provider.load_private_key(key).map_err(unusable(&file.key))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(unusable(&file.key))?;
    Ok((names, Arc::new(certified)))
}

/// The DNS names of a leaf, lower case.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None, // a foreign enum: only DNS names can be asked for by SNI
    });
    dns.collect()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let chosen = asked.and_then(|asked| loaded.keys.iter().find(|(names, _)| names.iter().any(|name| covers(name, &asked))));
        chosen.or(loaded.keys.first()).map(|(_, key)| key.clone())
    }
}

/// RFC 6125: a wildcard stands for exactly one label.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(rest) => name.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail == rest),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Certificates, covers};
    use crate::config::Certificate;

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(covers("mcp.example.com", "mcp.example.com"));
        assert!(covers("*.example.com", "a.example.com"));
        assert!(!covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "example.com"));
    }

    /// Replaces the files as certificate tools do: whole, by renaming. Returns the leaf.
    fn write(files: &Certificate) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["one.test".to_owned()]).unwrap();
        replace(&files.key, &made.signing_key.serialize_pem());
        replace(&files.chain, &made.cert.pem());
        made.cert.der().to_vec()
    }

    fn replace(path: &Path, content: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, path).unwrap();
    }

    #[test]
    fn changed_files_are_loaded_and_broken_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Certificate { chain: dir.path().join("chain.pem"), key: dir.path().join("key.pem") };
        let first = write(&files);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = Certificates::load(vec![files.clone()], provider).unwrap();
        let shown = || certificates.loaded.load().keys[0].1.cert[0].to_vec();
        assert_eq!(shown(), first);
        replace(&files.chain, "not a certificate");
        certificates.look();
        assert_eq!(shown(), first, "the old one stays");
        let second = write(&files);
        certificates.look();
        assert_eq!(shown(), second);
        write(&Certificate { chain: dir.path().join("other.pem"), ..files });
        certificates.look();
        assert_eq!(shown(), second, "a key that is another certificate's does not load");
    }
}
