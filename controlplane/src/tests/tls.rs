//! The admin API over TLS: the certificate of the files, and the new one once the files change.

use std::{path::Path, sync::Arc};

use mcp_gateway::proto::admin::v1::{LoginRequest, auth_service_client::AuthServiceClient};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::{
    app::{App, Error},
    testing::{OWNER_PASSWORD, Running, config, database},
};

fn write(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(directory.join("certificate.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

async fn shown(running: &Running, trusted: &str) -> Option<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(running.addresses.admin).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].to_vec())
}

#[tokio::test]
async fn the_admin_api_speaks_tls_and_takes_a_new_certificate_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = write(directory.path());
    let mut settings = config(&database().await);
    settings.admin_tls_certificate_file = Some(directory.path().join("certificate.pem"));
    settings.admin_tls_key_file = Some(directory.path().join("key.pem"));
    let running = Running::with(settings).await;

    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&first)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", running.addresses.admin)).unwrap().tls_config(tls).unwrap();
    let login = LoginRequest { email: "owner@localhost".into(), password: OWNER_PASSWORD.into(), ..Default::default() };
    AuthServiceClient::new(endpoint.connect().await.unwrap()).login(login).await.unwrap();
    let mut sql = running.sql().await;
    let from: String = sqlx::query_scalar("SELECT client_address FROM audit_logs WHERE action = 'auth.login'")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(from, "127.0.0.1");

    let second = write(directory.path());
    while shown(&running, &second).await.is_none() {
        tokio::task::yield_now().await; // each look is a handshake: no pause is needed
    }
    assert!(shown(&running, &first).await.is_none());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn files_that_make_no_listener_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    std::fs::write(directory.path().join("key.pem"), "canary").unwrap();
    let mut settings = config(&database().await);
    settings.admin_tls_certificate_file = Some(directory.path().join("certificate.pem"));
    settings.admin_tls_key_file = Some(directory.path().join("key.pem"));
    let app = App::build(settings).await.unwrap();
    let Err(Error::Tls(key, why)) = app.run(tokio_util::sync::CancellationToken::new()).await else {
        panic!("it must not start")
    };
    assert!(key.starts_with("admin_tls") && why.contains("key.pem") && !why.contains("canary"), "{why}");
}
