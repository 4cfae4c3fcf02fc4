//! What standalone says when it serves: where everything is, the credentials of a first start, and how to try the demo.
//! Never asks anything. Called by `standalone`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::demo::Demo;
use super::owner::Owner;

/// Everything somebody needs to go on; also as JSON with `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// The gateway, for MCP clients.
    pub gateway: String,
    /// The admin API.
    pub admin: String,
    /// Health, metrics and keys of the control plane.
    pub control_plane_http: String,
    /// Health, readiness and metrics of the data plane.
    pub health: String,
    /// Where discovery and enrolment listen.
    pub nodes: String,
    /// Where the data lies.
    pub data_dir: String,
    /// The owner, while nobody can know the password yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// How to sign in.
    pub login: String,
    /// How to try the demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demo: Option<Trial>,
}

/// Ready-made texts for the demo.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    pub url: String,
    pub api_key: String,
    pub curl: String,
    pub mcp_json: serde_json::Value,
    pub why: String,
}

impl Trial {
    pub fn new(gateway: &str, demo: Demo) -> Self {
        let url = format!("{gateway}{}", demo.path);
        let authorization = format!("Bearer {}", demo.key);
        let server = json!({ "type": "http", "url": url, "headers": { "Authorization": authorization } });
        Self {
            curl: curl(&url, &authorization),
            mcp_json: json!({ "mcpServers": { "demo": server } }),
            why: format!("{} why REQUEST_ID", program()),
            url,
            api_key: demo.key,
        }
    }
}

/// The command that signs the owner in.
pub fn login(gateway: &str, admin: &str, owner: &Owner, demo: bool) -> String {
    let org = if demo { " --org demo" } else { "" };
    format!("{} login {} --endpoint {admin} --gateway {gateway}{org}", program(), owner.email)
}

/// Ourselves as we were called, so that what is pasted into the same shell works.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "mcpgw".into())
}

/// A tool call that can be pasted into a shell.
fn curl(url: &str, authorization: &str) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "add", "arguments": { "a": 2, "b": 3 }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let headers = [
        format!("Authorization: {authorization}"),
        "Content-Type: application/json".into(),
        "Accept: application/json, text/event-stream".into(),
        "MCP-Protocol-Version: 2026-07-28".into(),
        "Mcp-Method: tools/call".into(),
        "Mcp-Name: add".into(),
    ];
    let headers: String = headers.iter().map(|it| format!("  -H '{it}' \\\n")).collect();
    format!("curl -sSi '{url}' \\\n{headers}  -d '{body}'")
}

impl Announcement {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::from("MCP Gateway serves.\n\n");
        for (what, place) in [
            ("MCP clients", &self.gateway),
            ("admin API", &self.admin),
            ("control plane", &self.control_plane_http),
            ("health, metrics", &self.health),
            ("nodes", &self.nodes),
            ("data", &self.data_dir),
        ] {
            let _ = writeln!(text, "  {what:<16} {place}");
        }
        if let Some(Owner { email, password, .. }) = &self.owner {
            let password = if password.is_empty() { "with the password that was given" } else { password };
            let once = if self.demo.is_some() { "" } else { ", shown this once" };
            let _ = write!(text, "\nThe owner{once}:\n\n  {email}\n  {password}\n");
        }
        let _ = write!(text, "\nSign in:\n\n{}\n", self.login);
        if let Some(trial) = &self.demo {
            let config = serde_json::to_string_pretty(&trial.mcp_json).unwrap_or_default();
            let _ = write!(
                text,
                "\nCall a tool:\n\n{}\n\nOnce signed in, ask why it was allowed, with the Mcpgw-Request-Id of the answer:\n\n{}\n\n\
                 An MCP client's configuration (.mcp.json of Claude; VS Code's .vscode/mcp.json says `servers` instead of `mcpServers`):\n\n{config}\n",
                trial.curl, trial.why
            );
        }
        text.push_str("\nCtrl-C stops everything.\n");
        text
    }
}
