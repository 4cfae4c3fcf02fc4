//! Starting: with a database, without one, with the wrong master key.

use crate::testing::{Postgres, Running, config, database};

#[tokio::test]
async fn it_opens_and_is_ready_and_stops_when_told() {
    let running = Running::start().await;
    assert!(running.core.is_open());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn with_another_master_key_it_refuses_to_start_and_names_the_key() {
    let url = database().await;
    Running::with(config(&url)).await.stop().await.unwrap();
    let mut other = config(&url);
    other.master_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    let (running, opened) = Running::unopened(other).await;
    let error = opened.wait().await.unwrap_err().to_string();
    assert!(error.contains("master key"), "{error}");
    assert!(running.ended().await.is_err());
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_waited_for() {
    let postgres = Postgres::start();
    postgres.execute("CREATE DATABASE later").await;
    postgres.down();
    let (running, opened) = Running::unopened(config(&postgres.url("later"))).await;
    let mut opening = running.core.opened.clone();
    opening.wait_for(|o| matches!(o, crate::app::Opening::Waiting(Some(_)))).await.unwrap();
    postgres.up();
    opened.wait().await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn replicas_that_start_together_create_one_owner_and_share_their_keys() {
    let url = database().await;
    let (a, b) = tokio::join!(Running::with(config(&url)), Running::with(config(&url)));
    assert_eq!([&a, &b].iter().filter(|running| running.owner.is_some()).count(), 1);
    let ids = |running: &Running| {
        let keys = running.core.custody.keys().unwrap();
        [keys.jwt.current().id.clone(), keys.manifest.current().id.clone(), keys.node_ca.current().id.clone()]
    };
    assert_eq!(ids(&a), ids(&b));
    let token = a.owner().await.tokens.access_token;
    let issuer = &b.core.config.issuer;
    assert!(b.core.custody.check_token(&token, issuer, crate::keys::token::ADMIN_AUDIENCE).unwrap().is_some());
}

#[tokio::test]
async fn no_key_lies_in_the_database_as_it_is() {
    let running = Running::start().await;
    let keys = running.core.custody.keys().unwrap();
    let plain = keys.session.iter().chain(keys.credential.iter()).map(|key| key.material.as_bytes().to_vec());
    let secrets: Vec<Vec<u8>> = plain.chain(keys.pools["default"].iter().map(|key| key.material.as_bytes().to_vec())).collect();
    assert_eq!(secrets.len(), 6, "a current and a next one each");
    let mut sql = running.sql().await;
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT purpose, wrapped, public FROM keys").fetch_all(&mut sql).await.unwrap();
    let mut purposes: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    purposes.sort_unstable();
    purposes.dedup();
    assert_eq!(purposes, ["credential", "jwt", "manifest", "node_ca", "pool/default", "session"]);
    let shows = |stored: &[u8], secret: &[u8]| stored.windows(secret.len()).any(|window| window == secret);
    assert!(rows.iter().all(|(_, wrapped, public)| !secrets.iter().any(|s| shows(wrapped, s) || shows(public, s))));
}

const BOOTSTRAP: &str = "\
organization: acme
servers: { time: { endpoints: [{ url: 'http://127.0.0.1:9/mcp' }], upstreamCredential: { header: x-key, valueFile: token } } }
policies: { all: { effect: allow, subjects: { roles: ['*'] }, servers: [time], match: { tools: ['*'] } } }
members: { ann@example.com: { role: owner } }
";

/// A control plane's settings with a document beside them.
async fn with_document(text: &str) -> (crate::config::Config, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a token\n").unwrap();
    std::fs::write(dir.path().join("acme.yaml"), text).unwrap();
    let mut config = config(&database().await);
    config.bootstrap_file = Some(dir.path().join("acme.yaml"));
    (config, dir)
}

#[tokio::test]
async fn a_first_start_begins_with_a_document_and_later_ones_leave_everything_as_it_is() {
    let (config, dir) = with_document(BOOTSTRAP).await;
    let running = Running::with(config.clone()).await;
    let mut sql = running.sql().await;
    let counts = "SELECT (SELECT count(*) FROM organizations) AS a, (SELECT count(*) FROM mcp_servers), \
                  (SELECT count(*) FROM policies), (SELECT version FROM config_head)";
    let first: (i64, i64, i64, i64) = sqlx::query_as(counts).fetch_one(&mut sql).await.unwrap();
    assert_eq!(first, (2, 1, 1, 1), "the owner's organisation and the document's, as one version");
    sqlx::query("DELETE FROM organizations WHERE slug = 'acme'").execute(&mut sql).await.unwrap();
    running.stop().await.unwrap();
    for what in ["the file is there", "the file is gone"] {
        let running = Running::with(config.clone()).await;
        let now: (i64, i64, i64, i64) = sqlx::query_as(counts).fetch_one(&mut running.sql().await).await.unwrap();
        assert_eq!(now, (1, 0, 0, 1), "{what}: what was deleted does not come back");
        running.stop().await.unwrap();
        std::fs::remove_file(dir.path().join("acme.yaml")).ok();
    }
}

#[tokio::test]
async fn the_document_of_a_first_start_may_be_of_the_owners_own_organisation() {
    let (config, _dir) = with_document(&BOOTSTRAP.replace("acme", "default")).await;
    let running = Running::with(config).await;
    let members = "SELECT count(*) FROM memberships";
    let members: i64 = sqlx::query_scalar(members).fetch_one(&mut running.sql().await).await.unwrap();
    assert_eq!(members, 2, "the owner stays");
    running.owner().await;
}

#[tokio::test]
async fn a_document_that_does_not_fit_refuses_the_first_start_with_every_reason() {
    let wrong = BOOTSTRAP.replace("servers: [time]", "servers: [gone]").replace("http://127", "ftp://127");
    for (text, expected) in [
        (wrong.as_str(), ["policies.all.servers[0]: ", "servers.time.endpoints[0].url: "]),
        (
            "organization: acme\nserver: {}\npolicies: []",
            ["server: OrganizationDocument has no such field", "policies: expected a map"],
        ),
    ] {
        let (config, dir) = with_document(text).await;
        let (running, opened) = Running::unopened(config).await;
        let error = opened.wait().await.unwrap_err().to_string();
        assert!(error.contains(&format!("bootstrap_file {}", dir.path().join("acme.yaml").display())), "{error}");
        assert!(expected.iter().all(|it| error.contains(it)), "{error}");
        assert!(running.ended().await.is_err());
    }
}
