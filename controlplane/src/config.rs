//! The settings of this process: defaults in code, then a YAML file, then `MCPGW_*` variables, then flags.
//!
//! Owns reading and judging them, all problems at once; the only place that reads the environment. Called by `main`, by
//! standalone, and by tests (which build a [`Config`] in code).

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Serialized},
    value::{Dict, Value},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_saphyr::figment::Yaml;

use crate::evidence::Signer;

#[cfg(test)]
mod tests;

/// All settings. In YAML the keys are the field names, at the top level or in a section `controlplane`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where Postgres is, as a `postgres://` URL; may carry a password.
    #[serde(with = "secret")]
    pub database_url: SecretString,
    /// Bring the schema up to date at start; off: refuse to start when it is behind.
    pub migrate: bool,
    /// Connections to Postgres, at most.
    pub database_connections: u32,
    /// How long a request may wait for a connection, in seconds.
    pub database_acquire_seconds: u64,
    /// How long one statement may run, in seconds.
    pub database_statement_seconds: u64,

    /// Admin API (gRPC).
    pub admin_listen: SocketAddr,
    /// Certificate chain of the admin API, PEM; with `admin_tls_key_file`, or neither: clear text.
    pub admin_tls_certificate_file: Option<PathBuf>,
    /// Private key of the admin API, PEM.
    pub admin_tls_key_file: Option<PathBuf>,
    /// Discovery and enrolment of nodes (gRPC over mutual TLS).
    pub node_listen: SocketAddr,
    /// DNS names and IP addresses that nodes reach `node_listen` by.
    #[serde(deserialize_with = "list")]
    pub node_server_names: Vec<String>,
    /// `/health`, `/ready`, `/metrics` and `/.well-known/jwks.json` (HTTP).
    pub http_listen: SocketAddr,

    /// Wraps every key in the database: 32 bytes, base64.
    #[serde(with = "secret")]
    pub master_key: SecretString,
    /// A file that holds the master key.
    pub master_key_file: Option<PathBuf>,

    /// Signs evidence about the logs: an Ed25519 seed, 32 bytes in base64; further lines (also `public:…`) only check. Empty: nothing is signed.
    #[serde(with = "secret")]
    pub audit_checkpoint_key: SecretString,
    /// A file that holds them.
    pub audit_checkpoint_key_file: Option<PathBuf>,
    /// A file that each checkpoint is appended to, as a line of JSON: a copy outside of the database.
    pub audit_checkpoint_copy_file: Option<PathBuf>,

    /// The origin that clients reach the gateway's nodes by, such as `https://mcp.example.com`: audience of gateway tokens.
    pub gateway_public_url: String,
    /// The claim `iss` of the tokens issued here.
    pub issuer: String,
    /// Names this installation in the certificates of nodes.
    pub trust_domain: String,
    /// Origins that browsers may call any organisation's servers from.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,

    /// How long an access token is good for, in seconds.
    pub access_token_seconds: u64,
    /// How long a session lives without a refresh, in seconds.
    pub refresh_token_seconds: u64,

    /// How many sign-ins from one address (of IPv6 a network of 64 bits) may fail in a minute. Behind a proxy, all callers share one address.
    pub sign_in_failures_per_minute: u32,

    /// First start only: the owner's email address.
    pub owner_email: String,
    /// First start only: the owner's password; empty: one is made up and shown once.
    #[serde(with = "secret")]
    pub owner_password: SecretString,
    /// A file that holds the owner's password.
    pub owner_password_file: Option<PathBuf>,
    /// First start only: the organisation that the owner owns.
    pub owner_organization: String,

    /// The document of an organisation (as `mcpgw export` writes it) that is created at a start if there never was one of that name.
    pub bootstrap_file: Option<PathBuf>,

    /// How long calls and streams may take to end at shutdown, in seconds.
    pub drain_seconds: u64,
    /// What to log, as a `tracing` filter.
    pub log: String,
    /// Log JSON objects rather than text.
    pub log_json: bool,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            database_url: SecretString::default(),
            migrate: true,
            database_connections: 16,
            database_acquire_seconds: 5,
            database_statement_seconds: 15,
            admin_listen: local(7400),
            admin_tls_certificate_file: None,
            admin_tls_key_file: None,
            node_listen: local(7401),
            node_server_names: vec!["localhost".into(), "127.0.0.1".into()],
            http_listen: local(7402),
            master_key: SecretString::default(),
            master_key_file: None,
            audit_checkpoint_key: SecretString::default(),
            audit_checkpoint_key_file: None,
            audit_checkpoint_copy_file: None,
            gateway_public_url: "http://127.0.0.1:8080".into(),
            issuer: "http://127.0.0.1:7402".into(),
            trust_domain: "mcpgw.local".into(),
            allowed_origins: Vec::new(),
            access_token_seconds: 15 * 60,
            refresh_token_seconds: 7 * 24 * 3600,
            sign_in_failures_per_minute: 20,
            owner_email: "owner@localhost".into(),
            owner_password: SecretString::default(),
            owner_password_file: None,
            owner_organization: "default".into(),
            bootstrap_file: None,
            drain_seconds: 20,
            log: "info".into(),
            log_json: false,
        }
    }
}

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting.
    pub key: String,
    /// What is expected of it.
    pub message: String,
}

/// Everything wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub struct Error(pub Vec<Problem>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|Problem { key, message }| write!(f, "\n  {key}: {message}"))
    }
}

/// The only section name of shared files that is not ours.
const OTHERS: [&str; 2] = ["dataplane", "cli"];
const SECTION: &str = "controlplane";

impl Config {
    /// Reads `file`, if given, then the environment, then `flags` (setting name and value); judges the whole.
    pub fn load(file: Option<&Path>, flags: Dict) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let from_file = file.map(|path| read_file(path, &mut problems)).unwrap_or_default();
        let known = known_keys();
        for key in from_file.keys().chain(flags.keys()).filter(|key| !known.contains(*key)) {
            problems.push(Problem { key: key.clone(), message: unknown(key, &known) });
        }
        let defaults = Serialized::defaults(Self::default());
        let figment =
            Figment::from(defaults).merge(Serialized::defaults(from_file)).merge(Serialized::defaults(environment(&known)));
        let figment = figment.merge(Serialized::defaults(flags));
        let mut config = extract(figment, &mut problems);
        config.read_secret_files(&mut problems);
        problems.extend(config.problems());
        if problems.is_empty() { Ok(config) } else { Err(Error(problems)) }
    }

    /// What is wrong with the values themselves.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut expect = |holds: bool, key: &str, message: &str| {
            if !holds {
                found.push(Problem { key: key.into(), message: message.into() });
            }
        };
        let database = self.database_url.expose_secret();
        let is_postgres = database.starts_with("postgres://") || database.starts_with("postgresql://");
        expect(is_postgres, "database_url", "expected a postgres:// URL (MCPGW_DATABASE_URL)");
        expect(
            self.master_key_bytes().is_some(),
            "master_key",
            "expected 32 bytes in base64, in master_key or the file master_key_file; `openssl rand -base64 32` makes one",
        );
        if let Err(expected) = Signer::parse(self.audit_checkpoint_key.expose_secret()) {
            expect(false, "audit_checkpoint_key", &expected);
        }
        for (key, url) in [("gateway_public_url", &self.gateway_public_url), ("issuer", &self.issuer)] {
            expect(is_http_url(url), key, "expected an absolute http or https URL without a trailing slash");
        }
        for origin in &self.allowed_origins {
            expect(
                origin == "*" || is_http_url(origin),
                "allowed_origins",
                "expected origins such as https://app.example.com, or *",
            );
        }
        let both = self.admin_tls_certificate_file.is_some() == self.admin_tls_key_file.is_some();
        expect(both, "admin_tls_key_file", "expected together with admin_tls_certificate_file, or neither");
        expect(!self.node_server_names.is_empty(), "node_server_names", "expected at least one DNS name or IP address");
        expect(crate::domain::is_dns_name(&self.trust_domain), "trust_domain", "expected a DNS name in lower case");
        expect(self.owner_email.contains('@'), "owner_email", "expected an email address");
        expect(crate::domain::is_slug(&self.owner_organization), "owner_organization", crate::domain::SLUG_RULE);
        let limits = [
            ("database_connections", u64::from(self.database_connections), 2, 1000),
            ("database_acquire_seconds", self.database_acquire_seconds, 1, 60),
            ("database_statement_seconds", self.database_statement_seconds, 1, 600),
            ("access_token_seconds", self.access_token_seconds, 30, 24 * 3600),
            ("refresh_token_seconds", self.refresh_token_seconds, 60, 90 * 24 * 3600),
            ("sign_in_failures_per_minute", self.sign_in_failures_per_minute.into(), 1, 100_000),
            ("drain_seconds", self.drain_seconds, 0, 600),
        ];
        for (key, value, least, most) in limits {
            expect((least..=most).contains(&value), key, &format!("expected {least} to {most}, found {value}"));
        }
        found
    }

    /// The master key, if it is one.
    pub fn master_key_bytes(&self) -> Option<[u8; 32]> {
        use base64::Engine;
        let text = self.master_key.expose_secret().trim();
        base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
    }

    /// How long an access token is good for.
    pub fn access_token_lifetime(&self) -> Duration {
        Duration::from_secs(self.access_token_seconds)
    }

    /// How long a session lives without a refresh.
    pub fn refresh_token_lifetime(&self) -> Duration {
        Duration::from_secs(self.refresh_token_seconds)
    }

    /// How long calls may take to end at shutdown.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    fn read_secret_files(&mut self, problems: &mut Vec<Problem>) {
        let files = [
            ("master_key_file", &self.master_key_file, &mut self.master_key),
            ("audit_checkpoint_key_file", &self.audit_checkpoint_key_file, &mut self.audit_checkpoint_key),
            ("owner_password_file", &self.owner_password_file, &mut self.owner_password),
        ];
        for (key, file, value) in files {
            let Some(path) = file else { continue };
            match std::fs::read_to_string(path) {
                Ok(text) => *value = SecretString::from(text.trim_end_matches(['\r', '\n'])),
                Err(error) => problems.push(Problem { key: key.into(), message: format!("{}: {error}", path.display()) }),
            }
        }
    }
}

/// Reads the file as a dictionary: its section `controlplane` if it has one, else the whole.
fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Dict {
    let mut whole: Dict = match Figment::from(Yaml::file_exact(path)).extract() {
        Ok(dict) => dict,
        Err(error) => {
            problems.push(Problem { key: path.display().to_string(), message: error.to_string() });
            return Dict::new();
        }
    };
    let Some(section) = whole.remove(SECTION) else { return whole };
    for key in whole.keys().filter(|key| !OTHERS.contains(&key.as_str())) {
        let expected = "expected only the sections controlplane, dataplane and cli beside each other";
        problems.push(Problem { key: key.clone(), message: expected.into() });
    }
    match section {
        Value::Dict(_, dict) => dict,
        _ => {
            problems.push(Problem { key: SECTION.into(), message: "expected a mapping of settings".into() });
            Dict::new()
        }
    }
}

/// Extracts, and on a value of the wrong kind notes it, puts the default in its place and goes on: all problems at once.
fn extract(mut figment: Figment, problems: &mut Vec<Problem>) -> Config {
    let defaults = Serialized::defaults(Config::default());
    let Ok(default_values) = Figment::from(&defaults).extract::<Dict>() else { return Config::default() };
    for _ in 0..=default_values.len() {
        let error = match figment.extract::<Config>() {
            Ok(config) => return config,
            Err(error) => error,
        };
        let key = error.path.first().cloned().unwrap_or_default();
        problems.push(Problem { key: key.clone(), message: error.kind.to_string() });
        let Some(value) = default_values.get(&key) else { break };
        figment = figment.merge(Serialized::default(&key, value.clone()));
    }
    Config::default()
}

/// The variables `MCPGW_<SETTING>`, and `DATABASE_URL` for what many platforms set. Other variables are other programs'.
#[allow(clippy::disallowed_methods)] // this is the place that reads the environment
fn environment(known: &BTreeSet<String>) -> Dict {
    let mut found = Dict::new();
    if let Ok(url) = std::env::var("DATABASE_URL") {
        found.insert("database_url".into(), Value::from(url));
    }
    for key in known {
        if let Ok(text) = std::env::var(format!("MCPGW_{}", key.to_ascii_uppercase())) {
            found.insert(key.clone(), value(key, &text));
        }
    }
    found
}

/// A variable that a document names.
#[allow(clippy::disallowed_methods)] // this is the place that reads the environment
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The text of a variable or flag as a value of the setting's kind: numbers and truth values are read, texts stay as they are.
pub fn value(key: &str, text: &str) -> Value {
    let defaults = Figment::from(Serialized::defaults(Config::default())).extract::<Dict>().unwrap_or_default();
    match defaults.get(key) {
        Some(Value::Num(..) | Value::Bool(..)) => text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
        _ => Value::from(text),
    }
}

fn known_keys() -> BTreeSet<String> {
    match Figment::from(Serialized::defaults(Config::default())).extract::<Dict>() {
        Ok(dict) => dict.into_keys().collect(),
        Err(_) => BTreeSet::new(),
    }
}

fn unknown(key: &str, known: &BTreeSet<String>) -> String {
    let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    match nearest {
        Some(nearest) => format!("no such setting; the nearest is `{nearest}`"),
        None => "no such setting".into(),
    }
}

fn is_http_url(text: &str) -> bool {
    let Ok(url) = text.parse::<http::Uri>() else { return false };
    let scheme = matches!(url.scheme_str(), Some("http" | "https"));
    scheme && url.authority().is_some_and(|a| !a.as_str().contains('@')) && !text.ends_with('/')
}

/// A list, or its elements with commas between them (the form of environment variables).
fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Elements;
    impl<'de> de::Visitor<'de> for Elements {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(element) = seq.next_element()? {
                found.push(element);
            }
            Ok(found)
        }
    }
    from.deserialize_any(Elements)
}

/// Secrets are read, and written as nothing: a dump of the settings must not show them.
mod secret {
    use super::{Deserialize, Deserializer, SecretString, Serializer};

    pub fn serialize<S: Serializer>(_: &SecretString, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
        Ok(SecretString::from(String::deserialize(from)?))
    }
}
