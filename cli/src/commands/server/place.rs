//! Flags that say how a server is reached: URLs, or a command that nodes run; and what clients may use.
//! Flattened into `create` and `update`; a flag that is not given leaves what was read as it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mcp_gateway::proto::admin::v1::Server;
use mcp_gateway::proto::config::v1::{
    ClientTransport, ClientTransportSettings, Endpoint, EnvironmentVariable, Stdio, StdioScope, Transport,
};
use mcp_gateway::snapshot::is_websocket_url;

use crate::args::{self, Mask};
use crate::failure::Failure;
use crate::prompt;

/// Where it is, and for whom.
#[derive(Debug, Args)]
pub struct Place {
    /// Where it is reached: http, https, ws or wss; repeatable
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "env", "env_file", "unset_env", "dir", "shared"])]
    url: Vec<String>,
    /// How the gateway speaks to it; auto is stdio for a command, websocket for ws URLs, else nodes find out [default: auto]
    #[arg(long, value_parser = args::transport())]
    transport: Option<i32>,
    /// The command that nodes run, after --, as an argument vector: no shell reads it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// A variable of the command's environment; repeatable. What is secret is a credential
    #[arg(long, value_name = "NAME=VALUE", value_parser = args::label)]
    env: Vec<(String, String)>,
    /// Read variables from a file, a NAME=VALUE per line, - for stdin; --env wins
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Take a variable away; repeatable
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Where the command is started, an absolute path on the node
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Whether all sessions on a node share one process, in place of one for each
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    shared: Option<bool>,
    /// What clients of one transport may: off, on, or any of idle:15m, max:100 and keep-alive:30s, with commas between; repeatable.
    /// Transports are streamable-http, http-sse, websocket and json-rpc
    #[arg(long, value_name = "TRANSPORT=SETTINGS", value_parser = client_transport)]
    client_transport: Vec<ClientTransportSettings>,
}

impl Place {
    pub fn apply(self, to: &mut Server, mask: &mut Mask) -> anyhow::Result<()> {
        let endpoints: Vec<_> = self.url.iter().map(|url| Endpoint { url: url.clone(), weight: 0 }).collect();
        let moved = moved(&self, to);
        if !endpoints.is_empty() && to.stdio.is_some() {
            mask.set("stdio", &mut to.stdio, Some(None));
        }
        if !self.command.is_empty() && !to.endpoints.is_empty() {
            mask.set("endpoints", &mut to.endpoints, Some(Vec::new()));
        }
        mask.set("endpoints", &mut to.endpoints, (!endpoints.is_empty()).then_some(endpoints));
        mask.set("transport", &mut to.transport, self.transport.or(moved.then_some(Transport::Unspecified.into())));
        if !self.client_transport.is_empty() {
            let settings = merged(&to.client_transports, &self.client_transport);
            mask.set("client_transports", &mut to.client_transports, Some(settings));
        }
        self.process(to, mask)
    }

    /// What the command and everything about it make of the process.
    fn process(self, to: &mut Server, mask: &mut Mask) -> anyhow::Result<()> {
        let mut variables = match &self.env_file {
            Some(path) => env_file(path)?,
            None => Vec::new(),
        };
        variables.extend(self.env);
        let given = !self.command.is_empty()
            || !variables.is_empty()
            || !self.unset_env.is_empty()
            || self.dir.is_some()
            || self.shared.is_some();
        if !given {
            return Ok(());
        }
        let mut stdio = to.stdio.take().unwrap_or_default();
        if stdio.command.is_empty() && self.command.is_empty() {
            return Err(Failure::Usage("which command? Add it after --, such as -- uvx mcp-server-time".into()).into());
        }
        if !self.command.is_empty() {
            stdio.command = self.command;
        }
        for (name, value) in variables {
            stdio.environment.retain(|known| known.name != name);
            stdio.environment.push(EnvironmentVariable { name, value });
        }
        stdio.environment.retain(|known| !self.unset_env.contains(&known.name));
        stdio.environment.sort_by(|a, b| a.name.cmp(&b.name));
        stdio.directory = self.dir.unwrap_or(stdio.directory);
        let scope = |shared| if shared { StdioScope::Shared } else { StdioScope::Session };
        stdio.scope = self.shared.map_or(stdio.scope, |shared| scope(shared).into());
        mask.set::<Option<Stdio>>("stdio", &mut to.stdio, Some(Some(stdio)));
        Ok(())
    }
}

/// Whether what is given is of another kind than the transport that the server has: then it follows from what is given.
fn moved(place: &Place, server: &Server) -> bool {
    let socket = |url: &String| is_websocket_url(url);
    match server.transport() {
        Transport::Unspecified => false,
        Transport::Stdio => !place.url.is_empty(),
        Transport::Websocket => !place.command.is_empty() || place.url.iter().any(|url| !socket(url)),
        Transport::StreamableHttp | Transport::HttpSse | Transport::JsonRpc => {
            !place.command.is_empty() || place.url.iter().any(socket)
        }
    }
}

/// What was, with what is given in place of what it names. Settings that say nothing are left out.
fn merged(known: &[ClientTransportSettings], given: &[ClientTransportSettings]) -> Vec<ClientTransportSettings> {
    let mut all = known.to_vec();
    for one in given {
        all.retain(|known| known.transport != one.transport);
        if *one != (ClientTransportSettings { transport: one.transport, ..ClientTransportSettings::default() }) {
            all.push(*one);
        }
    }
    all.sort_by_key(|settings| settings.transport);
    all
}

/// Lines of `NAME=VALUE`; empty ones and those that start with `#` say nothing. Values are taken as they are: no quotes, no references.
fn env_file(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    variables(&prompt::document(path)?).map_err(|why| Failure::Usage(format!("--env-file {}: {why}", path.display())).into())
}

fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let said = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines = text.lines().enumerate().filter(|(_, line)| said(line));
    // Never the line itself: it may hold a secret.
    lines.map(|(index, line)| args::label(line).map_err(|why| format!("line {}: {why}", index + 1))).collect()
}

/// `websocket=off`, `http-sse=idle:10m,max:100`.
fn client_transport(text: &str) -> Result<ClientTransportSettings, String> {
    let (name, settings) = args::label(text).map_err(|_found| "expected TRANSPORT=SETTINGS, such as websocket=off")?;
    let names = ["streamable-http", "http-sse", "websocket", "json-rpc"];
    let known = names.contains(&name.as_str());
    let full = format!("CLIENT_TRANSPORT_{}", name.to_uppercase().replace('-', "_"));
    let transport = ClientTransport::from_str_name(&full).filter(|_| known);
    let transport = transport.ok_or_else(|| format!("expected one of {}, found {name:?}", names.join(", ")))?;
    let mut read = ClientTransportSettings { transport: transport.into(), ..ClientTransportSettings::default() };
    for setting in settings.split(',') {
        let unknown = || format!("expected off, on, idle:DURATION, max:COUNT or keep-alive:DURATION, found {setting:?}");
        match setting.split_once(':') {
            None if setting == "off" => read.disabled = true,
            None if setting == "on" => read.disabled = false,
            Some(("idle", value)) => read.session_idle_seconds = seconds(value)?,
            Some(("keep-alive", value)) => read.keep_alive_seconds = seconds(value)?,
            Some(("max", value)) => read.max_connections = value.parse().map_err(|_found| unknown())?,
            Some(_) | None => return Err(unknown()),
        }
    }
    Ok(read)
}

fn seconds(text: &str) -> Result<u32, String> {
    let duration: Duration = args::duration(text)?;
    u32::try_from(duration.as_secs()).map_err(|_found| format!("{text} is too long"))
}

#[cfg(test)]
mod tests;
