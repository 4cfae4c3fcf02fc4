use std::time::Duration;

use crate::proto::config::v1::{
    ClientTransport, ClientTransportSettings, EnvironmentVariable, OrgBundle, Server, Stdio, StdioScope, Transport,
    UpstreamCredential,
};
use crate::snapshot::fixtures::{ACME, GITHUB, Scope, org};
use crate::snapshot::{check_org, parse_endpoint};

type Change<T> = (&'static str, fn(&mut T));

fn variable(name: &str, value: &str) -> EnvironmentVariable {
    EnvironmentVariable { name: name.into(), value: value.into() }
}

fn process() -> Stdio {
    Stdio {
        command: vec!["uvx".into(), "mcp-server-time".into(), String::new()],
        environment: vec![variable("PATH", "/usr/bin:/bin"), variable("TZ", "UTC")],
        directory: "/srv".into(),
        scope: StdioScope::Shared.into(),
    }
}

fn settings(transport: ClientTransport) -> ClientTransportSettings {
    ClientTransportSettings { transport: transport.into(), ..ClientTransportSettings::default() }
}

/// The organisation with a process in place of its server.
fn time() -> OrgBundle {
    let mut bundle = org(ACME, "acme", GITHUB);
    let server = &mut bundle.servers[0];
    (server.transport, server.stdio) = (Transport::Stdio.into(), Some(process()));
    server.endpoints.clear();
    bundle
}

fn stdio(server: &mut Server) -> &mut Stdio {
    server.stdio.as_mut().unwrap()
}

/// What is wrong with the server after `change`.
fn found(mut bundle: OrgBundle, change: impl FnOnce(&mut Server)) -> Vec<String> {
    change(&mut bundle.servers[0]);
    check_org(&[bundle]).iter().map(ToString::to_string).collect()
}

#[test]
fn a_process_and_settings_of_clients_compile() {
    let mut scope = Scope::new();
    scope.org = time();
    scope.org.servers[0].client_transports = vec![
        ClientTransportSettings { session_idle_seconds: 60, keep_alive_seconds: 5, ..settings(ClientTransport::HttpSse) },
        ClientTransportSettings { disabled: true, max_connections: 9, ..settings(ClientTransport::Websocket) },
    ];
    let snapshot = scope.good(None);
    let (_, server) = snapshot.server(GITHUB).unwrap();
    let stdio = server.stdio.as_ref().unwrap();
    assert_eq!((&*stdio.command, stdio.shared), (&process().command[..], true));
    assert_eq!(stdio.environment[1], ("TZ".to_owned(), "UTC".to_owned()));
    assert_eq!((stdio.directory.as_deref(), server.endpoints.len()), (Some("/srv"), 0));
    let of = |transport| server.client_transports.settings(transport);
    let sse = of(ClientTransport::HttpSse);
    assert_eq!(
        (sse.enabled, sse.session_idle, sse.keep_alive),
        (true, Some(Duration::from_secs(60)), Some(Duration::from_secs(5)))
    );
    assert_eq!((of(ClientTransport::Websocket).enabled, of(ClientTransport::Websocket).max_connections), (false, Some(9)));
    assert_eq!((of(ClientTransport::JsonRpc).enabled, of(ClientTransport::JsonRpc).max_connections), (true, None));
    assert!(of(ClientTransport::StreamableHttp).enabled && !of(ClientTransport::Unspecified).enabled);
}

#[test]
fn a_process_that_cannot_be_started_as_registered_is_refused() {
    let table: &[Change<Server>] = &[
        ("stdio: expected what to start", |s| s.stdio = None),
        ("stdio: expected nothing, for any transport but", |s| s.transport = Transport::StreamableHttp.into()),
        ("stdio: expected nothing, for any transport but", |s| s.transport = Transport::Unspecified.into()),
        ("endpoints: expected none", |s| s.endpoints = org(ACME, "acme", GITHUB).servers[0].endpoints.clone()),
        ("stdio.command: expected 1 to 64", |s| stdio(s).command.clear()),
        ("stdio.command: expected 1 to 64", |s| stdio(s).command = vec!["a".into(); 65]),
        ("stdio.command[0]: expected an absolute path", |s| stdio(s).command[0] = "./server".into()),
        ("stdio.command[0]: expected an absolute path", |s| stdio(s).command[0] = String::new()),
        ("stdio.command[0]: expected an absolute path", |s| stdio(s).command[0] = "/usr/bin/".into()),
        ("stdio.command[1]: expected at most 4096", |s| stdio(s).command[1] = "a".repeat(4097)),
        ("stdio.command[1]: expected at most 4096", |s| stdio(s).command[1] = "a\0b".into()),
        ("stdio.environment[0].name: expected at most 200", |s| stdio(s).environment[0].name = "1A".into()),
        ("stdio.environment[0].name: expected at most 200", |s| stdio(s).environment[0].name = "A-B".into()),
        ("stdio.environment[0].name: expected at most 200", |s| stdio(s).environment[0].name = String::new()),
        ("stdio.environment[0].name: expected no variable of the dynamic", |s| {
            stdio(s).environment[0].name = "LD_PRELOAD".into()
        }),
        ("stdio.environment[0].name: expected no variable of the dynamic", |s| stdio(s).environment[0].name = "LD_AUDIT".into()),
        ("stdio.environment[0].name: expected no variable of the gateway", |s| {
            stdio(s).environment[0].name = "MCPGW_TOKEN".into();
        }),
        ("stdio.environment[0].value: expected absolute paths", |s| stdio(s).environment[0].value = "/bin::".into()),
        ("stdio.environment[1].value: expected at most 32768", |s| stdio(s).environment[1].value = "a".repeat(32769)),
        ("stdio.environment[1].value: expected at most 32768", |s| stdio(s).environment[1].value = "s3cret\0".into()),
        ("stdio.environment[1].name: expected variables sorted", |s| stdio(s).environment.reverse()),
        ("stdio.environment[1].name: expected variables sorted", |s| stdio(s).environment[0].name = "TZ".into()),
        ("stdio.environment: expected at most 64", |s| {
            stdio(s).environment = (10..75).map(|n| variable(&format!("A{n}"), "")).collect();
        }),
        ("stdio.directory: expected an absolute path", |s| stdio(s).directory = "srv".into()),
        ("stdio.scope: expected SESSION or SHARED", |s| stdio(s).scope = 9),
    ];
    assert_eq!(found(time(), |_| {}), [""; 0]);
    for (expected, change) in table {
        let texts = found(time(), change);
        assert!(texts.iter().any(|text| text.starts_with(&format!("server github: {expected}"))), "{expected}: {texts:?}");
        assert!(!texts.join("").contains("s3cret"), "a value is not for logs: {texts:?}");
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let table: &[Change<Vec<ClientTransportSettings>>] = &[
        ("[0].transport: expected STREAMABLE_HTTP", |all| all.push(settings(ClientTransport::Unspecified))),
        ("[0].transport: expected STREAMABLE_HTTP", |all| {
            all.push(ClientTransportSettings { transport: 9, ..ClientTransportSettings::default() });
        }),
        ("[1].transport: expected settings sorted", |all| all.extend([2, 1].map(|n| settings(n.try_into().unwrap())))),
        ("[1].transport: expected settings sorted", |all| all.extend([3, 3].map(|n| settings(n.try_into().unwrap())))),
        ("[0].session_idle_seconds: expected at most 2592000", |all| {
            all.push(ClientTransportSettings { session_idle_seconds: 2_592_001, ..settings(ClientTransport::HttpSse) });
        }),
        ("[0].max_connections: expected at most 1000000", |all| {
            all.push(ClientTransportSettings { max_connections: 1_000_001, ..settings(ClientTransport::HttpSse) });
        }),
        ("[0].keep_alive_seconds: expected at most 3600", |all| {
            all.push(ClientTransportSettings { keep_alive_seconds: 3601, ..settings(ClientTransport::HttpSse) });
        }),
        ("[0].keep_alive_seconds: expected 0: JSON_RPC", |all| {
            all.push(ClientTransportSettings { keep_alive_seconds: 1, ..settings(ClientTransport::JsonRpc) });
        }),
    ];
    for (expected, change) in table {
        let texts = found(org(ACME, "acme", GITHUB), |server| change(&mut server.client_transports));
        let expected = format!("server github: client_transports{expected}");
        assert!(texts.iter().any(|text| text.starts_with(&expected)), "{expected}: {texts:?}");
    }
}

#[test]
fn each_transport_has_its_schemes() {
    for (transport, url, fits) in [
        (Transport::Unspecified, "https://h/mcp", true),
        (Transport::Unspecified, "wss://h/mcp", false),
        (Transport::HttpSse, "http://h/sse", true),
        (Transport::JsonRpc, "ws://h/", false),
        (Transport::Websocket, "wss://h/ws", true),
        (Transport::Websocket, "ws://h", true),
        (Transport::Websocket, "https://h/ws", false),
        (Transport::Websocket, "wss://user:s3cret@h/ws", false),
        (Transport::Websocket, "wss://h/ws#s3cret", false),
        (Transport::Websocket, "wss:///ws", false),
    ] {
        let texts = found(org(ACME, "acme", GITHUB), |server| {
            server.transport = transport.into();
            server.endpoints[0].url = url.into();
        });
        assert_eq!(texts.is_empty(), fits, "{transport:?} {url}: {texts:?}");
        assert_eq!(parse_endpoint(url, transport).is_ok(), fits);
        let named = if transport == Transport::Websocket { "ws or wss" } else { "http or https" };
        assert!(texts.iter().all(|text| text.contains(named) && !text.contains("s3cret")), "{texts:?}");
    }
}

#[test]
fn the_credential_of_a_process_is_a_variable() {
    let credential =
        |header: &str, value: &str| UpstreamCredential { id: "c1".into(), header: header.into(), value: value.into() };
    for (credential, expected) in [
        (credential("API_TOKEN", "two\nlines"), None),
        (
            credential("x-api-token", "plain"),
            Some("server github: credential \"c1\": header: the name of an environment variable"),
        ),
        (credential("LD_PRELOAD", "/x.so"), Some("credential \"c1\": header: the name of an environment variable")),
        (credential("API_TOKEN", "s3cret\0"), Some("credential \"c1\": value")),
    ] {
        let mut scope = Scope::new();
        scope.org = time();
        scope.org.servers[0].credential_id = "c1".into();
        scope.secrets.credentials = vec![credential];
        let report = scope.compile().ok().unwrap().report().join("\n");
        match expected {
            None => assert_eq!(report, ""),
            Some(expected) => assert!(report.contains(expected) && !report.contains("s3cret"), "{expected}: {report}"),
        }
    }
    let mut scope = Scope::new();
    scope.org.servers[0].credential_id = "c1".into();
    scope.secrets.credentials = vec![credential("API_TOKEN", "two\nlines")];
    let report = scope.compile().ok().unwrap().report().join("\n");
    assert!(report.contains("server github: credential \"c1\": value: a header value is expected"), "{report}");
}
