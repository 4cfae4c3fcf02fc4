//! Layers the configuration and reports everything that is wrong with it at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized};
use figment::value::{Dict, Value as Given};
use serde_json::Value;
use serde_saphyr::figment::Yaml;

use super::{Config, Listen};

/// Flags, the last layer.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// Replaces all listeners by one without TLS.
    pub listen: Option<SocketAddr>,
    /// Replaces `public_url`.
    pub public_url: Option<String>,
    /// Replaces `admin_listen`.
    pub admin_listen: Option<SocketAddr>,
    /// Replaces `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// Replaces `static_files`, unless empty.
    pub static_files: Vec<PathBuf>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not usable:\n  {}", .0.join("\n  "))]
pub struct Problems(pub Vec<String>);

/// Reads defaults, then `file`, then `MCPGW_*` (levels separated by `__`), then flags.
pub fn load(file: Option<&Path>, flags: Overrides) -> Result<Config, Problems> {
    let mut layers = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = file {
        if !path.is_file() {
            return Err(Problems(vec![format!("{}: no such file", path.display())]));
        }
        layers = layers.merge(Serialized::defaults(section(&Figment::from(Yaml::file_exact(path)))?));
    }
    layers = layers.merge(environment(Env::prefixed("MCPGW_")));
    from_layers(&layers, flags)
}

/// What of a file is ours: its section `dataplane` if it has one, else the whole. One file can then configure both planes.
pub(super) fn section(file: &Figment) -> Result<Dict, Problems> {
    const OTHERS: [&str; 2] = ["controlplane", "cli"];
    let unreadable = |error: figment::Error| Problems(error.into_iter().map(|e| e.to_string()).collect());
    let mut whole: Dict = file.extract().map_err(unreadable)?;
    let Some(ours) = whole.remove("dataplane") else {
        return Ok(whole);
    };
    let strangers = whole.keys().filter(|key| !OTHERS.contains(&key.as_str()));
    let mut problems: Vec<String> = strangers.map(|key| format!("{key}: unknown section beside `dataplane`")).collect();
    match ours {
        Given::Dict(_, ours) if problems.is_empty() => return Ok(ours),
        Given::Dict(..) => {}
        _ => problems.push("dataplane: expected a mapping of settings".into()),
    }
    Err(Problems(problems))
}

/// A variable that a document names.
#[allow(clippy::disallowed_methods)] // the configuration is where the environment is read
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variables that are ours. `MCPGW_LOG` alone is a filter, as it is for the control plane.
pub(super) fn environment(variables: Env) -> Env {
    variables.filter(|key| ours(key.as_str())).map(|key| if key == "log" { "log__filter".into() } else { key.into() }).split("__")
}

/// Other programs of the project share the prefix: a variable counts as ours if its first level is, or nearly is, a key.
fn ours(key: &str) -> bool {
    let level = key.split("__").next().unwrap_or(key).to_ascii_lowercase();
    known_keys().iter().any(|known| *known == level || strsim::jaro_winkler(known, &level) > 0.92)
}

fn known_keys() -> Vec<String> {
    match serde_json::to_value(Config::default()) {
        Ok(Value::Object(keys)) => keys.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn from_layers(layers: &Figment, flags: Overrides) -> Result<Config, Problems> {
    let given: Value = layers.extract().map_err(|error| Problems(error.into_iter().map(|e| e.to_string()).collect()))?;
    let known = serde_json::to_value(Config::default()).expect("the defaults serialise: they are plain data");
    let mut problems = Vec::new();
    unknown_keys(&given, &known, "", &mut problems);
    wrong_types(&given, &known, &mut problems);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let mut config: Config = serde_json::from_value(given).map_err(|error| Problems(vec![error.to_string()]))?;
    apply(&mut config, flags);
    config.check(&mut problems);
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

fn unknown_keys(given: &Value, known: &Value, path: &str, problems: &mut Vec<String>) {
    let (Value::Object(given), Value::Object(known)) = (given, known) else {
        return;
    };
    for (key, value) in given {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match known.get(key) {
            Some(known) => unknown_keys(value, known, &here, problems),
            None => problems.push(match nearest(key, known.keys()) {
                Some(near) => format!("{here}: unknown key; did you mean `{near}`?"),
                None => format!("{here}: unknown key"),
            }),
        }
    }
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    known
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(closeness, _)| *closeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Deserialises each value alone on top of the defaults, so that one wrong type does not hide the next.
fn wrong_types(given: &Value, known: &Value, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let (Value::Object(given), Value::Object(known)) = (given, known) else {
        return;
    };
    for (section, value) in given.iter().filter(|(section, _)| known.contains_key(*section)) {
        let parts: Vec<Value> = match (value, &known[section]) {
            (Value::Object(keys), Value::Object(_)) => {
                keys.iter().map(|(key, value)| serde_json::json!({ section: { key: value } })).collect()
            }
            _ => vec![serde_json::json!({ section: value })],
        };
        for part in parts {
            if let Err(error) = serde_json::from_value::<Config>(part.clone()) {
                let path = match &part[section] {
                    Value::Object(keys) => keys.keys().next().map(|key| format!("{section}.{key}")),
                    _ => None,
                };
                let problem = format!("{}: {error}", path.unwrap_or_else(|| section.clone()));
                if seen.insert(problem.clone()) {
                    problems.push(problem);
                }
            }
        }
    }
}

fn apply(config: &mut Config, flags: Overrides) {
    if let Some(address) = flags.listen {
        config.listen = vec![Listen { address, certificates: Vec::new() }];
    }
    if let Some(url) = flags.public_url {
        config.public_url = url;
    }
    if let Some(address) = flags.admin_listen {
        config.admin_listen = address;
    }
    if let Some(dir) = flags.state_dir {
        config.state_dir = dir;
    }
    if !flags.static_files.is_empty() {
        config.static_files = flags.static_files;
    }
}

impl Config {
    /// Adds everything that is wrong with the values to `problems`.
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.listen.is_empty() {
            problems.push("listen: at least one address is needed".into());
        }
        if let Err(why) = check_url(&self.public_url, &["http", "https"]) {
            problems.push(format!("public_url: {why}"));
        }
        if self.control_plane.endpoints.is_empty() {
            problems.push("control_plane.endpoints: at least one is needed".into());
        }
        for endpoint in &self.control_plane.endpoints {
            if let Err(why) = check_url(endpoint, &["https"]) {
                problems.push(format!("control_plane.endpoints: `{endpoint}`: {why}"));
            }
        }
        if self.control_plane.join_token.is_some() && self.control_plane.join_token_file.is_some() {
            problems.push("control_plane: set join_token or join_token_file, not both".into());
        }
        let interval = self.control_plane.report_interval;
        if !(Duration::from_millis(100)..=Duration::from_secs(30)).contains(&interval) {
            // A node that has not been heard of for 45 s counts as away.
            problems.push(format!("control_plane.report_interval: {interval:?} is not between 100ms and 30s"));
        }
        if let Some(address) = self.peer.advertise.as_deref().filter(|address| !is_reachable(address)) {
            problems.push(format!("peer.advertise: `{address}` is not host:port that other nodes could reach"));
        }
        self.limits.check(problems);
        self.timeouts.check(problems);
        self.redis.check(problems);
        self.children.check(problems);
    }
}

/// Host and port, and not an address that means every one.
fn is_reachable(address: &str) -> bool {
    let authority = address.parse::<http::uri::Authority>().ok().filter(|_| !address.contains('@'));
    let unspecified = address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    let named = |at: &http::uri::Authority| !at.host().is_empty() && at.port_u16().is_some_and(|port| port > 0);
    !unspecified && authority.is_some_and(|authority| named(&authority))
}

fn check_url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("not a URL ({error})"))?;
    if !uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        return Err(format!("must start with {}://", schemes.join(":// or ")));
    }
    if uri.host().is_none() {
        return Err("names no host".into());
    }
    if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
        return Err("must be scheme, host and port only, such as https://mcp.example.com".into());
    }
    Ok(())
}
