use std::collections::BTreeMap;

use crate::proto::admin::v1::{OrganizationDocument, Policy, Server};
use crate::proto::config::v1::{AuditFullAction, ClientTransport, SessionKey, Transport};
use crate::snapshot::{Away, Snapshot, Version};

use super::{Document, Faults, Lone, Source, Written, compile, written};

const ACME: &str = "\
organization: acme
auditFull: allow
allowedOrigins: ['https://app.example.com']
servers:
  github:
    endpoints: [{ url: 'https://mcp.example.com/mcp' }]
    callTimeout: 1.5s
    upstreamCredential: { header: Authorization, value_env: TOKEN }
  time:
    endpoints: [{ url: 'http://127.0.0.1:9/mcp' }]
    allow_anonymous: true
policies:
  engineers:
    effect: allow
    subjects: { roles: [engineer], users: [Ann@Example.com] }
    servers: [github]
    match: { tools: ['search_*'] }
limits:
  searches:
    per: [user]
    subjects: { users: [Ann@Example.com] }
    servers: [github]
    windows: [{ limit: 100, seconds: 60 }]
    costs: [{ tools: search_all, cost: 10 }]
    when_away: closed
members:
  ann@example.com: { role: service-account, policyRoles: [engineer] }
apiKeys:
  abcdefghijklmnop: { user: ann@example.com, secretSha256: SHA }
  abcdefghijklmnoq: { policyRoles: [robot], secretSha256: SHA, expireTime: '2030-01-01T00:00:00Z' }
";

fn acme() -> String {
    ACME.replace("SHA", &"0a".repeat(32))
}

fn source(from: Source<'_>) -> Result<String, String> {
    match from {
        Source::Variable("TOKEN") => Ok("Bearer s3cret".into()),
        Source::Variable(name) => Err(format!("expected the environment variable {name}: it is not set")),
        Source::File(path) => Err(format!("{path}: no such file")),
    }
}

fn read(text: &str) -> Result<OrganizationDocument, Faults> {
    Document::parse(text, &mut source).map(|document| document.resource)
}

fn faults<T>(result: Result<T, Faults>) -> Vec<String> {
    result.err().map(|Faults(faults)| faults.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

fn lone() -> Lone {
    Lone {
        session_key: SessionKey { key_id: "s".into(), key: vec![1; 32].into(), current: true },
        version: Version { epoch: 1, version: 7 },
        written_at_ms: 7,
    }
}

fn snapshot(text: &str) -> Result<Snapshot, Faults> {
    compile(&[("org.yaml".into(), read(text)?)], &lone(), None)
}

#[test]
fn a_document_is_read_with_short_names_in_either_spelling() {
    let document = read(&acme()).unwrap();
    assert_eq!(document.audit_full(), AuditFullAction::Allow);
    assert!(document.servers["time"].allow_anonymous);
    let credential = document.servers["github"].upstream_credential.as_ref().unwrap();
    assert_eq!((credential.header.as_str(), credential.value.as_str()), ("Authorization", "Bearer s3cret"));
    assert_eq!(document.servers["github"].call_timeout.as_ref().unwrap().nanos, 500_000_000);
}

#[test]
fn everything_wrong_is_told_at_once_by_its_path() {
    let text = "\
organisation: acme
auditFull: maybe
quotas: {}
allowedOrigins: https://one.example
servers:
  github:
    endpoint: []
    endpoints: [{ url: 5 }, what]
    callTimeout: soon
    upstreamCredential: { header: a, value: 12345 }
  time: { upstreamCredential: { header: a, value: x, value_file: y } }
  more: { upstreamCredential: { header: a, valueEnv: NONE } }
policies: [a]
members: { ann@example.com: { role: king } }
";
    let expected = [
        "allowedOrigins: expected a list",
        "auditFull: expected one of block, allow",
        "members.ann@example.com.role: expected one of owner, admin, operator, auditor, member, service-account",
        "organisation: OrganizationDocument has no such field; did you mean organization?",
        "policies: expected a map",
        "quotas: OrganizationDocument has no such field",
        "servers.github.callTimeout: expected seconds, such as 1.5s",
        "servers.github.endpoint: Server has no such field; did you mean endpoints?",
        "servers.github.endpoints[0].url: expected a text, in quotes if it",
        "servers.github.endpoints[1]: expected a map of the fields of Endpoint",
        "servers.github.upstreamCredential.value: expected a text, in quotes if it looks like something else",
        "servers.more.upstreamCredential.valueEnv: expected the environment variable NONE: it is not set",
        "servers.time.upstreamCredential: expected one of value, valueEnv and valueFile",
    ];
    let mut found = faults(read(text));
    found.sort();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn what_is_no_document_is_refused_without_showing_its_lines() {
    assert_eq!(faults(read("[1]")), ["expected a map of the fields of OrganizationDocument"]);
    let [broken] = &faults(read("servers: { a: { upstreamCredential: { value: s3cret }"))[..] else { panic!("one fault") };
    assert!(!broken.contains("s3cret"), "{broken}");
    let [twice] = &faults(read("organization: a\norganization: b"))[..] else { panic!("one fault") };
    assert!(twice.contains("organization"), "{twice}");
    assert_eq!(faults(read("displayName: a\ndisplay_name: b")), ["display_name: is given twice, in two spellings"]);
}

#[test]
fn a_single_resource_says_which_fields_it_sets() {
    let text = "name: x\neffect: deny\nservers: ['*']\netag: abc\n";
    let document = Document::<Policy>::parse(text, &mut source).unwrap();
    assert_eq!(document.fields, ["effect", "servers"]);
    assert_eq!(document.resource.etag, "abc");
    Document::<Server>::parse("urls: []", &mut source).unwrap_err();
}

#[test]
fn what_is_written_is_read_again_as_the_same() {
    let document = read(&acme()).unwrap();
    let text = serde_saphyr::to_string(&written(&document).unwrap()).unwrap();
    assert_eq!(read(&text).unwrap(), document);
    assert!(text.starts_with("organization: acme"), "{text}");
    assert!(text.contains("limit: 100") && text.contains("whenAway: closed"), "{text}");
    assert!(text.contains("effect: allow") && text.contains("role: service-account"), "{text}");
    let Written::Map(fields) = written(&OrganizationDocument::default()).unwrap() else { panic!("a map") };
    assert!(fields.is_empty());
}

#[test]
fn a_lone_node_decides_by_its_document() {
    let snapshot = snapshot(&acme()).unwrap();
    let (org, server) = snapshot.server_by_slug("acme", "github").unwrap();
    assert_eq!(server.call_timeout.as_millis(), 1500);
    let credential = snapshot.upstream_credential(server.credential_id.as_deref().unwrap()).unwrap();
    assert_eq!((credential.header.as_str(), credential.value.as_str()), ("authorization", "Bearer s3cret"));
    let key = snapshot.api_key("abcdefghijklmnop").unwrap();
    assert_eq!((key.subject.as_str(), &key.roles), ("ann@example.com", &vec!["engineer".to_owned(), "service_account".into()]));
    assert_eq!(snapshot.api_key("abcdefghijklmnoq").unwrap().subject, "key:abcdefghijklmnoq");
    assert_eq!(snapshot.api_key("abcdefghijklmnoq").unwrap().expires_at, Some(1_893_456_000));
    assert_eq!(org.servers().count(), 2);
    let limits: Vec<_> = org.all_limits().map(|limit| (&*limit.name, limit.windows[0].limit, limit.away)).collect();
    assert_eq!(limits, [("searches", 100, Away::Closed)]);
    assert!(snapshot.session_keys().current().is_some());
}

#[test]
fn the_same_document_gives_the_same_configuration_everywhere() {
    let (one, other) = (snapshot(&acme()).unwrap(), snapshot(&acme()).unwrap());
    assert_eq!(one.digest(), other.digest());
    let ids = |snapshot: &Snapshot| -> Vec<String> { snapshot.orgs().map(|org| org.id.to_string()).collect() };
    assert_eq!(ids(&one), ids(&other));
    let renamed = snapshot(&acme().replace("organization: acme", "organization: other")).unwrap();
    let server = |snapshot: &Snapshot, org: &str| snapshot.server_by_slug(org, "time").unwrap().1.id.clone();
    assert_ne!(server(&one, "acme"), server(&renamed, "other"));
}

#[test]
fn what_a_node_would_refuse_is_told_by_file_and_path() {
    let text = acme()
        .replace("https://mcp.example.com/mcp", "ftp://x")
        .replace("servers: [github]", "servers: [gitlab]")
        .replace("limit: 100, seconds: 60", "limit: 5, seconds: 0")
        .replace("['search_*']", "['']")
        .replace("value_env: TOKEN", "value: ''")
        .replace("abcdefghijklmnoq: {", "ABC: {")
        .replace("1.5s", "1.0001s");
    let mut found = faults(snapshot(&text));
    found.sort();
    let paths: Vec<&str> =
        found.iter().map(|fault| fault.strip_prefix("org.yaml: ").unwrap().split(": ").next().unwrap()).collect();
    let expected = [
        "api_keys.ABC",
        "limits.searches.costs[0].cost",
        "limits.searches.servers[0]",
        "limits.searches.windows[0].seconds",
        "policies.engineers.match.tools[0]",
        "policies.engineers.servers[0]",
        "servers.github.call_timeout",
        "servers.github.endpoints[0].url",
        "servers.github.upstream_credential.value",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert!(found[5].ends_with("servers[0]: server \"gitlab\" is not in this organisation"), "{}", found[5]);
}

#[test]
fn a_key_that_a_lone_node_could_not_recognise_is_refused() {
    let text = acme()
        .replace("user: ann@example.com", "user: eve@example.com")
        .replace("policyRoles: [robot], secretSha256", "displayName");
    let found = faults(snapshot(&text));
    let paths: Vec<&str> = found.iter().map(|fault| fault.split(": ").nth(1).unwrap()).collect();
    assert_eq!(paths, ["api_keys.abcdefghijklmnop.user", "api_keys.abcdefghijklmnoq.secret_sha256"], "{found:#?}");
}

#[test]
fn two_files_of_one_organisation_are_told_apart_by_name() {
    let document = read(&acme()).unwrap();
    let documents = [("a.yaml".to_owned(), document.clone()), ("b.yaml".to_owned(), document)];
    let found = faults(compile(&documents, &lone(), None));
    assert_eq!(found, ["b.yaml: organization: \"acme\" is also the organisation of a.yaml"]);
    let empty =
        BTreeMap::from([("c.yaml", faults(compile(&[("c.yaml".into(), OrganizationDocument::default())], &lone(), None)))]);
    assert!(empty["c.yaml"][0].starts_with("c.yaml: organization: "), "{empty:?}");
}

#[test]
fn what_is_kept_and_when_it_counts_are_part_of_a_document() {
    let text = "organization: acme\nauditSync: disk\ncapture:\n  arguments: true\n  maxBytes: 99999\n  redact: [ssn, '$.a[']\n";
    let document = read(text).unwrap();
    assert_eq!(document.audit_sync(), crate::proto::config::v1::AuditSync::Disk);
    let wrong = faults(snapshot(text).map(drop));
    assert!(wrong.iter().any(|fault| fault.contains("capture.max_bytes: expected")), "{wrong:#?}");
    assert!(wrong.iter().any(|fault| fault.contains("capture.redact[1]: expected")), "{wrong:#?}");
    let right = text.replace("99999", "9").replace(", '$.a['", "");
    let kept = snapshot(&right).unwrap().orgs().next().unwrap().capture.clone().unwrap();
    assert_eq!((kept.arguments, kept.results, kept.max_bytes), (true, false, 9));
}

const PROCESS: &str = "\
organization: acme
servers:
  time:
    stdio:
      command: [uvx, mcp-server-time]
      environment: [{ name: TZ, value: UTC }, { name: LANG, value: C }]
      scope: shared
    upstreamCredential: { header: API_TOKEN, value_env: TOKEN }
    clientTransports: [{ transport: websocket, maxConnections: 9 }, { transport: http-sse, disabled: true }]
  chat:
    endpoints: [{ url: 'wss://mcp.example.com/ws' }]
  other:
    endpoints: [{ url: 'https://mcp.example.com/mcp' }]
";

#[test]
fn a_transport_that_is_left_out_follows_from_what_is_given() {
    let snapshot = snapshot(PROCESS).unwrap();
    let server = |slug: &str| snapshot.server_by_slug("acme", slug).unwrap().1;
    let transports = ["time", "chat", "other"].map(|slug| server(slug).transport);
    assert_eq!(transports, [Transport::Stdio, Transport::Websocket, Transport::Unspecified]);
    let stdio = server("time").stdio.as_ref().unwrap();
    assert_eq!((&*stdio.command, stdio.shared), (&["uvx".to_owned(), "mcp-server-time".to_owned()][..], true));
    assert_eq!(stdio.environment, [("LANG".to_owned(), "C".to_owned()), ("TZ".to_owned(), "UTC".to_owned())]);
    let clients = &server("time").client_transports;
    assert!(!clients.settings(ClientTransport::HttpSse).enabled);
    assert_eq!(clients.settings(ClientTransport::Websocket).max_connections, Some(9));
    let credential = snapshot.upstream_credential(server("time").credential_id.as_deref().unwrap()).unwrap();
    assert_eq!(credential.header, "API_TOKEN");
}

#[test]
fn processes_and_settings_are_written_and_read_again() {
    let document = read(PROCESS).unwrap();
    let text = serde_saphyr::to_string(&written(&document).unwrap()).unwrap();
    assert_eq!(read(&text).unwrap(), document);
    assert!(text.contains("scope: shared") && text.contains("transport: http-sse"), "{text}");
}

#[test]
fn what_is_wrong_with_a_process_is_told_by_path_and_never_its_values() {
    let text = PROCESS
        .replace("[uvx, mcp-server-time]", "[./server]")
        .replace("name: LANG, value: C", "name: TZ, value: s3cret")
        .replace("header: API_TOKEN", "header: x-api-token")
        .replace("transport: websocket", "transport: http-sse")
        .replace("wss://mcp.example.com/ws", "wss://user:s3cret@mcp.example.com/ws");
    let found = faults(snapshot(&text).map(drop));
    let mut paths: Vec<&str> = found.iter().map(|fault| fault.split(": ").nth(1).unwrap()).collect();
    paths.sort_unstable();
    let expected = [
        "servers.chat.endpoints[0].url",
        "servers.time.client_transports[1].transport",
        "servers.time.stdio.command[0]",
        "servers.time.stdio.environment[1].name",
        "servers.time.upstream_credential.header",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert!(!found.join("").contains("s3cret"), "{found:#?}");
}
