//! `export` and `apply`, as people use them.

use serde_json::json;

use super::Gateway;

/// Through a whole life of a file: exported, applied unchanged, edited, refused, applied.
pub fn walk(gateway: &Gateway) {
    let exported = gateway.mcpgw(&["export", "demo"]);
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let yaml = exported.stdout;
    assert!(yaml.starts_with("organization: demo\n") && yaml.contains("effect: allow"), "{yaml}");
    gateway.file("demo.yaml", &yaml);
    let same = gateway.mcpgw(&["apply", "-f", "demo.yaml"]);
    assert_eq!((same.code, same.stdout.trim()), (0, "no difference"), "{}", same.stderr);
    assert_eq!(gateway.mcpgw(&["export"]).stdout, yaml, "of the saved login's organisation");
    let json = gateway.mcpgw(&["export", "demo", "-o", "json"]);
    gateway.file("demo.json", &json.stdout);
    assert_eq!(gateway.json(&["apply", "-f", "demo.json"]).get("configVersion"), None);

    let clock = "\nservers:\n  clock:\n    endpoints: [{ url: 'http://127.0.0.1:9/mcp' }]\n    upstreamCredential: { header: \
                 authorization, valueFile: token }\n";
    let more = yaml.replacen("\nservers:\n", clock, 1);
    gateway.file("more.yaml", &more);
    let refused = gateway.mcpgw(&["apply", "-f", "more.yaml", "--yes"]);
    assert!(refused.code == 2 && refused.stderr.contains("servers.clock.upstreamCredential.valueFile"), "{}", refused.stderr);
    gateway.file("token", "Bearer s3cret\n");
    let asked = gateway.mcpgw(&["apply", "-f", "more.yaml"]);
    assert!(asked.code == 2 && asked.stderr.contains("--yes"), "nobody is there to ask: {}", asked.stderr);
    assert!(asked.stdout.contains("+ server organizations/demo/servers/clock"), "the difference comes first: {}", asked.stdout);
    let checked = gateway.json(&["apply", "-f", "more.yaml", "--validate-only"]);
    assert_eq!(checked["diff"]["resources"][0]["operation"], "create");
    gateway.ends(3, &["server", "get", "clock"]);
    let applied = gateway.json(&["apply", "-f", "more.yaml", "--yes"]);
    let version = applied["configVersion"].as_str().unwrap();
    assert!(!format!("{applied}").contains("s3cret"));
    assert_eq!(gateway.json(&["server", "get", "clock"])["upstreamCredential"], json!({ "header": "authorization" }));
    let of = gateway.json(&["config", "get", version]);
    assert_eq!(of["changes"].as_array().unwrap().len(), 1);
    assert_eq!(gateway.mcpgw(&["apply", "-f", "more.yaml"]).stdout.trim(), "no difference");

    let kept = gateway.mcpgw(&["apply", "-f", "demo.yaml", "--no-prune"]);
    assert_eq!((kept.code, kept.stdout.trim()), (0, "no difference"), "{}", kept.stderr);
    gateway.ends(0, &["apply", "-f", "demo.yaml", "-y", "--reason", "no clock"]);
    gateway.ends(3, &["server", "get", "clock"]);
    gateway.file("wrong.yaml", &yaml.replace("http://", "ftp://"));
    let wrong = gateway.mcpgw(&["apply", "-f", "wrong.yaml", "--yes"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("endpoints[0].url: "), "{}", wrong.stderr);
    gateway.ends(0, &["apply", "-f", "demo.yaml"]);
}
