//! The whole gateway in one process, used as people use it: through the command line.
#![allow(clippy::unwrap_used)] // the lint spares test functions, not what they call

mod gateway;

use gateway::{Gateway, McpServer};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_governed_explained_and_refused_once_its_key_is_revoked() {
    let server = McpServer::start().await;
    let gateway = Gateway::start(&server.url);
    let demo = &gateway.announcement["demo"];
    let (key, address) = (demo["apiKey"].as_str().unwrap(), gateway.announcement["gateway"].as_str().unwrap());
    let call = ["call", "demo", "add", "a=2", "b=3", "--org", "demo", "--key", key, "--gateway", address];

    let pasted = paste(demo["curl"].as_str().unwrap());
    assert!(pasted.starts_with("HTTP/1.1 200") && pasted.contains(r#""text":"5""#), "{pasted}");

    for era in ["legacy", "modern", "auto"] {
        let ran = gateway.mcpgw(&[&call[..], &["--era", era]].concat());
        assert_eq!((ran.code, ran.stdout.trim()), (0, "5"), "{era}: {}", ran.stderr);
    }
    let ran = gateway.mcpgw(&call);
    let request = ran.stderr.lines().find_map(|it| it.strip_prefix("request ")).unwrap().to_owned();

    gateway.sign_in();
    let why = gateway.json(&["why", &request]);
    let key_id = key.split('_').nth(1).unwrap();
    assert_eq!(why["subject"], format!("key:{key_id}"));
    assert_eq!((&why["rule"], &why["target"], &why["outcome"]), (&json!("demo-allow"), &json!("add"), &json!("ok")));
    let story = gateway.mcpgw(&["why", &request]).stdout;
    assert!(story.contains("allow by rule demo-allow") && story.contains(&server.url), "{story}");

    let keep = gateway.json(&["org", "update", "demo", "--capture", "arguments,results"]);
    gateway.ends(0, &["config", "wait", keep["configVersion"].as_str().unwrap()]);
    let ran = gateway.mcpgw(&[&call[..], &["note=sk-0123456789abcdefghij"]].concat());
    let request = ran.stderr.lines().find_map(|it| it.strip_prefix("request ")).unwrap().to_owned();
    let story = gateway.mcpgw(&["why", &request, "--payload"]).stdout;
    assert!(story.contains("arguments {") && story.contains("[redacted]") && story.contains(", 1 taken out"), "{story}");
    let payload = gateway.json(&["why", &request, "--payload"]);
    assert!(payload["result"]["text"].as_str().unwrap().contains("\"5\""), "{payload}");

    // The login may call, too, with a token for the gateway.
    assert_eq!(gateway.mcpgw(&["call", "demo", "add", "a=1", "b=1"]).stdout.trim(), "2");

    let revoked = gateway.json(&["key", "revoke", key_id]);
    let version = revoked["configVersion"].as_str().unwrap();
    gateway.ends(0, &["config", "wait", version]);
    let refused = gateway.mcpgw(&call);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    let pasted = paste(demo["curl"].as_str().unwrap());
    assert!(pasted.starts_with("HTTP/1.1 401") && !pasted.contains(key), "{pasted}");
}

/// Runs the printed call as somebody who pastes it into a shell.
fn paste(command: &str) -> String {
    let ran = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_starts_again_with_the_same_demo() {
    let server = McpServer::start().await;
    let mut gateway = Gateway::start(&server.url);
    let first = gateway.announcement.clone();
    gateway.kill();
    gateway.start_again(&server.url);
    assert_eq!(gateway.announcement["demo"]["apiKey"], first["demo"]["apiKey"]);
    assert_eq!(gateway.announcement["owner"], first["owner"], "the demo shows it again");
    gateway.sign_in();
    assert_eq!(gateway.mcpgw(&["call", "demo", "add", "a=2", "b=2"]).stdout.trim(), "4");
    assert_eq!(gateway.json(&["node", "list"]).as_array().unwrap().len(), 1, "it has joined once");
    assert_eq!(gateway.json(&["server", "list"]).as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_noun_has_its_verbs() {
    let server = McpServer::start().await;
    let gateway = Gateway::start(&server.url);
    gateway.sign_in();
    nouns::organizations(&gateway);
    nouns::users_and_memberships(&gateway);
    nouns::keys(&gateway);
    nouns::servers(&gateway);
    nouns::policies(&gateway);
    nouns::nodes_and_tokens(&gateway);
    nouns::custody(&gateway);
    gateway::documents::walk(&gateway);
    nouns::versions_and_logs(&gateway);
    nouns::history(&gateway);
    nouns::sign_out(&gateway);
}

/// One walk per noun: create, read, change, refuse, delete.
mod nouns {
    use serde_json::{Value, json};

    use super::Gateway;

    fn ids(list: &Value) -> Vec<String> {
        let names = list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
        names.map(|it| it.rsplit('/').next().unwrap().to_owned()).collect()
    }

    pub fn organizations(gateway: &Gateway) {
        let checked = gateway.json(&["org", "create", "acme", "--display-name", "Acme", "--validate-only"]);
        assert_eq!(checked["resources"][0]["resource"], "organizations/acme");
        assert_eq!(checked["resources"][0]["operation"], "create");
        gateway.ends(3, &["org", "get", "acme"]);
        let made = gateway.json(&["org", "create", "acme", "--display-name", "Acme", "--audit-full", "allow"]);
        assert_eq!(made["auditFull"], "AUDIT_FULL_ACTION_ALLOW");
        gateway.ends(5, &["org", "create", "acme"]);
        let bad = gateway.mcpgw(&["org", "create", "Not A Slug"]);
        assert!(bad.code == 2 && bad.stderr.contains("organization_id"), "{}", bad.stderr);
        let changed = gateway.json(&["org", "update", "acme", "--allowed-origin", "https://acme.example"]);
        assert_eq!(changed["allowedOrigins"], json!(["https://acme.example"]));
        assert_eq!(changed["displayName"], "Acme", "what no flag names stays");
        let kept = ["--capture", "arguments,results", "--capture-redact", "ssn", "--capture-retention-days", "3"];
        let kept = gateway.json(&[&["org", "update", "acme", "--audit-sync", "disk"], &kept[..]].concat());
        assert_eq!(kept["capture"], json!({ "arguments": true, "results": true, "redact": ["ssn"], "retentionDays": 3 }));
        assert_eq!(kept["auditSync"], "AUDIT_SYNC_DISK");
        let less = gateway.json(&["org", "update", "acme", "--capture", "arguments", "--capture-max-bytes", "9"]);
        assert_eq!(less["capture"], json!({ "arguments": true, "redact": ["ssn"], "retentionDays": 3, "maxBytes": 9 }));
        let stale = gateway.mcpgw(&["org", "update", "acme", "--display-name", "x", "--etag", made["etag"].as_str().unwrap()]);
        assert_eq!(stale.code, 5, "{}", stale.stderr);
        gateway.ends(2, &["org", "update", "acme"]);
        assert!(ids(&gateway.json(&["org", "list"])).contains(&"acme".into()));
        assert_eq!(gateway.json(&["org", "list", "--limit", "1"]).as_array().unwrap().len(), 1);
        gateway.ends(0, &["org", "delete", "acme"]);
        gateway.ends(3, &["org", "get", "acme"]);
    }

    pub fn users_and_memberships(gateway: &Gateway) {
        let made = gateway.json(&["user", "create", "ada@example.com", "--display-name", "Ada"]);
        assert!(made["initialPassword"].as_str().unwrap().len() >= 12);
        let again = gateway.json(&["user", "get", "Ada@Example.com"]);
        assert!(again.get("initialPassword").is_none(), "shown once");
        assert_eq!(gateway.json(&["user", "update", "ada@example.com", "--disabled"])["disabled"], true);
        let enabled = gateway.json(&["user", "update", "ada@example.com", "--disabled", "false"]);
        assert_eq!(enabled.get("disabled"), None);
        gateway.file("password", "correct horse battery staple");
        let set = gateway.mcpgw(&["user", "set-password", "ada@example.com", "--password-file", "password"]);
        assert_eq!(set.code, 0, "{}", set.stderr);
        assert_eq!(gateway.json(&["user", "list"]).as_array().unwrap().len(), 2);

        let made = gateway.json(&["membership", "create", "ada@example.com", "--role", "member", "--policy-role", "engineer"]);
        assert_eq!((&made["role"], &made["policyRoles"]), (&json!("ROLE_MEMBER"), &json!(["engineer"])));
        let changed = gateway.json(&["membership", "update", "ada@example.com", "--role", "auditor", "--policy-role", ""]);
        assert_eq!((&changed["role"], changed.get("policyRoles")), (&json!("ROLE_AUDITOR"), None));
        assert_eq!(gateway.json(&["membership", "get", "ada@example.com"])["email"], "ada@example.com");
        assert_eq!(gateway.json(&["membership", "list"]).as_array().unwrap().len(), 2);
        gateway.ends(0, &["membership", "delete", "ada@example.com"]);
        gateway.ends(3, &["membership", "get", "ada@example.com"]);
        gateway.ends(0, &["user", "delete", "ada@example.com"]);
        gateway.ends(3, &["user", "get", "ada@example.com"]);
    }

    pub fn keys(gateway: &Gateway) {
        let made = gateway.json(&["key", "create", "--display-name", "ci", "--policy-role", "demo", "--expires-in", "1d"]);
        assert!(made["secret"].as_str().unwrap().starts_with("mcpgw_"));
        let id = made["apiKey"]["name"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(gateway.json(&["key", "update", id, "--group", "platform"])["groups"], json!(["platform"]));
        let read = gateway.mcpgw(&["key", "get", id]);
        assert!(read.stdout.contains("displayName") && !read.stdout.contains("secret"), "{}", read.stdout);
        assert!(ids(&gateway.json(&["key", "list"])).contains(&id.into()));
        assert!(gateway.json(&["key", "revoke", id])["revokeTime"].is_string());
        gateway.ends(0, &["key", "revoke", id]);
        gateway.ends(0, &["key", "delete", id]);
        gateway.ends(3, &["key", "get", id]);
    }

    pub fn servers(gateway: &Gateway) {
        gateway.file("credential", "Bearer of-the-upstream\n");
        let credential = ["--credential-header", "authorization", "--credential-file", "credential"];
        let create = ["server", "create", "time", "--url", "http://127.0.0.1:9/mcp", "--era", "modern", "--call-timeout", "5s"];
        let made = gateway.mcpgw(&[&create[..], &credential[..], &["-o", "json"]].concat());
        assert_eq!(made.code, 0, "{}", made.stderr);
        assert!(!made.stdout.contains("of-the-upstream"), "{}", made.stdout);
        let changed = gateway.json(&["server", "update", "time", "--disabled", "--no-credential"]);
        assert_eq!((&changed["disabled"], changed.get("upstreamCredential")), (&json!(true), None));
        let drained = gateway.json(&["server", "drain", "time", "http://127.0.0.1:9/mcp"]);
        assert_eq!(drained["endpointStates"][0]["state"], "ENDPOINT_STATE_DRAINED");
        let yaml = gateway.mcpgw(&["server", "get", "time", "-o", "yaml"]).stdout;
        gateway.file("server.yaml", &yaml.replace("disabled: true", "disabled: false"));
        let changed = gateway.json(&["server", "update", "time", "-f", "server.yaml"]);
        assert_eq!(changed.get("disabled"), None);
        assert_eq!(gateway.json(&["server", "undrain", "time", "http://127.0.0.1:9/mcp"]).get("endpointStates"), None);
        let stale = gateway.mcpgw(&["server", "update", "time", "-f", "server.yaml"]);
        assert_eq!(stale.code, 5, "the file's etag is checked: {}", stale.stderr);
        gateway.file("new.yaml", "endpoints: [{ url: 'http://127.0.0.1:9/mcp', weight: 2 }]\nera: legacy\n");
        assert_eq!(gateway.json(&["server", "create", "other", "-f", "new.yaml"])["era"], "ERA_LEGACY");
        assert_eq!(ids(&gateway.json(&["server", "list"])).len(), 3);
        gateway.ends(0, &["server", "delete", "other"]);
    }

    pub fn policies(gateway: &Gateway) {
        let create = ["policy", "create", "readers", "--effect", "allow", "--role", "reader", "--server", "time"];
        let made = gateway.json(&[&create[..], &["--tool", "get_*", "--tool", "list_*"]].concat());
        assert_eq!(made["match"]["tools"], json!(["get_*", "list_*"]));
        let changed = gateway.json(&["policy", "update", "readers", "--mode", "shadow", "--group", "staff"]);
        assert_eq!(changed["mode"], "MODE_SHADOW");
        assert_eq!(changed["subjects"], json!({"roles": ["reader"], "groups": ["staff"]}), "other subjects stay");
        gateway.file("policy.yaml", "effect: deny\nsubjects: { roles: ['*'] }\nservers: [time]\nmatch: { tools: ['drop_*'] }\n");
        assert_eq!(gateway.json(&["policy", "create", "no-drops", "-f", "policy.yaml"])["effect"], "EFFECT_DENY");
        gateway.file("change.yaml", "match: { tools: [drop_table] }\n");
        let changed = gateway.json(&["policy", "update", "no-drops", "-f", "change.yaml"]);
        assert_eq!((&changed["effect"], &changed["match"]["tools"]), (&json!("EFFECT_DENY"), &json!(["drop_table"])));
        let unknown = gateway.mcpgw(&["policy", "update", "no-drops", "--server", "nowhere"]);
        assert!(unknown.code != 0 && unknown.stderr.contains("nowhere"), "{}", unknown.stderr);
        assert_eq!(ids(&gateway.json(&["policy", "list"])).len(), 3);
        assert_eq!(gateway.json(&["policy", "get", "readers"])["effect"], "EFFECT_ALLOW");
        gateway.ends(5, &["server", "delete", "time"]);
        for policy in ["readers", "no-drops"] {
            gateway.ends(0, &["policy", "delete", policy]);
        }
        gateway.ends(0, &["server", "delete", "time"]);
    }

    pub fn nodes_and_tokens(gateway: &Gateway) {
        let nodes = gateway.json(&["node", "list"]);
        assert_eq!(nodes[0]["connected"], true);
        let id = &ids(&nodes)[0];
        assert_eq!(gateway.json(&["node", "get", id])["pool"], "default");
        let named = gateway.json(&["node", "update", id, "--label", "ring=canary", "--label", "zone=a"]);
        assert_eq!(named["labels"], json!({"ring": "canary", "zone": "a"}));
        assert_eq!(gateway.json(&["node", "update", id, "--label", "zone-"])["labels"], json!({"ring": "canary"}));
        assert_eq!(gateway.json(&["node", "list", "--label", "zone=a"]), json!([]));
        gateway.ends(0, &["node", "delete", id, "--validate-only"]);
        let made = gateway.json(&["node", "join-token", "create", "--ttl", "1h"]);
        assert!(made["secret"].as_str().unwrap().starts_with("mcpgwj_"));
        let id = made["joinToken"]["name"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(gateway.json(&["node", "join-token", "get", id])["pool"], "default");
        assert!(ids(&gateway.json(&["node", "join-token", "list"])).contains(&id.into()));
        gateway.ends(0, &["node", "join-token", "delete", id]);
        gateway.ends(3, &["node", "join-token", "get", id]);
    }

    pub fn custody(gateway: &Gateway) {
        let keys = gateway.json(&["custody", "list", "--purpose", "session"]);
        assert_eq!(keys.as_array().unwrap().len(), 2, "one is current, one is next");
        gateway.ends(0, &["custody", "rotate", "session", "--validate-only"]);
        let rotated = gateway.json(&["custody", "rotate", "session"]);
        assert_eq!(rotated.as_array().unwrap().len(), 3);
        gateway.ends(2, &["custody", "rotate", "sessions"]);
    }

    pub fn versions_and_logs(gateway: &Gateway) {
        let versions = gateway.json(&["config", "versions"]);
        let newest = versions[0]["version"].as_str().unwrap();
        assert_eq!(gateway.json(&["config", "get", newest])["version"], newest);
        let arrived = gateway.json(&["config", "wait", newest, "--timeout", "20s"]);
        assert_eq!(arrived.as_array().unwrap().len(), 1);
        let status = gateway.json(&["config", "status", "--exit-code"]);
        assert_eq!((&status["version"], &status["pools"][0]["counts"]["current"]), (&json!(newest), &json!(1)), "{status:#}");
        let late = gateway.mcpgw(&["config", "wait", "999999", "--timeout", "1s"]);
        assert_ne!(late.code, 0, "{}", late.stderr);
        let changes = gateway.json(&["audit", "list", "--admin", "--action", "policy.create", "--since", "1h"]);
        assert_eq!(changes.as_array().unwrap().len(), 3, "{changes:#}");
        gateway.mcpgw(&["call", "demo", "add", "a=1", "b=1", "--era", "modern"]);
        let denied = gateway.json(&["audit", "list", "--decision", "deny"]);
        assert_eq!(denied, json!([]));
        gateway.ends(2, &["audit", "list", "--admin", "--server", "x"]);
        assert_eq!(gateway.json(&["audit", "gaps", "--since", "1h"]), json!([]));
        gateway.ends(0, &["limit", "create", "few", "--window", "5/1m", "--per", "user"]);
        let status = gateway.json(&["limit", "status", "few"]);
        assert_eq!(status.get("usage"), None, "nobody has used it: {status:#}");
        let page = gateway.mcpgw(&["limit", "status"]).stdout;
        assert!(page.contains("nothing is used") || page.contains("no report yet"), "{page}");
        gateway.ends(3, &["limit", "status", "gone"]);
        gateway.ends(0, &["limit", "delete", "few"]);
        gateway.ends(3, &["why", "01a20517-b7cd-75c5-a623-5ffe82c4e2d7", "--wait", "0s"]);
    }

    pub fn history(gateway: &Gateway) {
        let create = ["server", "create", "trial", "--url", "http://127.0.0.1:9/mcp", "--reason", "a trial: 100 %"];
        let would = gateway.mcpgw(&[&create[..], &["--validate-only"]].concat());
        let expected = "+ server organizations/demo/servers/trial\n    + endpoints[0].url: \"http://127.0.0.1:9/mcp\"\n";
        assert!(would.code == 0 && would.stdout.starts_with(expected), "{}{}", would.stdout, would.stderr);
        let made = gateway.json(&create)["configVersion"].as_str().unwrap().to_owned();
        assert_eq!(gateway.json(&["config", "get", &made])["reason"], "a trial: 100 %");
        let before = (made.parse::<u64>().unwrap() - 1).to_string();
        let diff = gateway.json(&["config", "diff", &before, &made]);
        assert_eq!((diff["resources"].as_array().unwrap().len(), &diff["resources"][0]["operation"]), (1, &json!("create")));
        let undone = gateway.mcpgw(&["config", "diff", &made, &before]).stdout;
        assert!(undone.starts_with("- server organizations/demo/servers/trial\n    - endpoints[0].url: "), "{undone}");

        let back = ["config", "rollback", &before, "--reason", "it was only a trial"];
        let would = gateway.mcpgw(&[&back[..], &["--validate-only"]].concat());
        assert!(would.code == 0 && would.stdout.starts_with("- server organizations/demo/servers/trial"), "{}", would.stderr);
        gateway.ends(0, &["server", "get", "trial"]);
        let done = gateway.json(&back);
        assert_eq!(done["diff"]["resources"][0]["resource"], "organizations/demo/servers/trial");
        gateway.ends(3, &["server", "get", "trial"]);
        gateway.ends(0, &["config", "rollback", &before]); // nothing is left to do
        gateway.ends(3, &["config", "rollback", "999999"]);

        let held = gateway.mcpgw(&["config", "accept", "--pool", "default", "--reason", "none"]);
        assert!(held.code != 0 && held.stderr.contains("is not held"), "{}", held.stderr);
        gateway.ends(2, &["config", "bump-epoch"]);
        assert_eq!(gateway.json(&["config", "bump-epoch", "--reason", "a test"])["epoch"], "2");
    }

    pub fn sign_out(gateway: &Gateway) {
        assert_eq!(gateway.json(&["whoami"])["organization"], "organizations/demo");
        gateway.ends(0, &["logout"]);
        let refused = gateway.mcpgw(&["org", "list"]);
        assert!(refused.code == 4 || refused.code == 2, "{}", refused.stderr);
        let wrong = gateway.sign_in_with("not the password");
        assert_eq!(wrong.code, 4, "{}", wrong.stderr);
    }
}
