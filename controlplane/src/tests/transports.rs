//! How servers are reached: processes, sockets, what nodes find out, and what clients may use. Over gRPC, on a real database.

use mcp_gateway::document::Document;
use mcp_gateway::proto::{
    admin::v1::{
        ApplyOrganizationRequest, CreateServerRequest, ExportOrganizationRequest, GetServerRequest, OrganizationDocument, Server,
        UpdateServerRequest, UpstreamCredential,
    },
    config::v1::{
        ClientTransport, ClientTransportSettings, Endpoint, EnvironmentVariable, LegacySessions, Stdio, StdioScope, Transport,
    },
};
use tonic::{Code, Status};

use super::admin::{Admin, CANARY, Person, mask, refused};
use crate::store;

const ACME: &str = "organizations/acme";

fn variable(name: &str, value: &str) -> EnvironmentVariable {
    EnvironmentVariable { name: name.into(), value: value.into() }
}

fn process() -> Server {
    let stdio = Stdio {
        command: vec!["uvx".into(), "mcp-server-time".into(), "--max-tokens=5".into()],
        environment: vec![variable("TZ", "UTC"), variable("LANG", "C")],
        directory: "/srv".into(),
        scope: StdioScope::Shared.into(),
    };
    Server { stdio: Some(stdio), ..Server::default() }
}

fn at(url: &str) -> Server {
    Server { endpoints: vec![Endpoint { url: url.into(), weight: 0 }], ..Server::default() }
}

fn settings(transport: ClientTransport) -> ClientTransportSettings {
    ClientTransportSettings { transport: transport.into(), ..ClientTransportSettings::default() }
}

fn variable_credential(name: &str, value: &str) -> Option<UpstreamCredential> {
    Some(UpstreamCredential { header: name.into(), value: value.into() })
}

async fn create(person: &Person, id: &str, server: Server) -> Result<Server, Status> {
    let request = CreateServerRequest { parent: ACME.into(), server_id: id.into(), server: Some(server), ..Default::default() };
    person.servers().create_server(request).await.map(tonic::Response::into_inner)
}

async fn update(person: &Person, server: Server, paths: &[&str]) -> Result<Server, Status> {
    let request = UpdateServerRequest { server: Some(server), update_mask: mask(paths), ..Default::default() };
    person.servers().update_server(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_process_is_stored_shown_and_published() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let clients = vec![
        ClientTransportSettings { disabled: true, ..settings(ClientTransport::Websocket) },
        ClientTransportSettings { session_idle_seconds: 60, max_connections: 5, ..settings(ClientTransport::HttpSse) },
    ];
    let given = Server {
        client_transports: clients.clone(),
        upstream_credential: variable_credential("API_TOKEN", &format!("{CANARY}\nsecond line")),
        ..process()
    };
    let made = create(&person, "time", given).await.unwrap();
    assert_eq!((made.transport(), made.endpoints.len()), (Transport::Stdio, 0));
    assert_eq!(made.upstream_credential, variable_credential("API_TOKEN", ""));
    let stdio = made.stdio.clone().unwrap();
    assert_eq!(stdio.environment, [variable("LANG", "C"), variable("TZ", "UTC")], "in the order of a bundle");
    assert_eq!((stdio.command, stdio.scope), (process().stdio.unwrap().command, StdioScope::Shared.into()));
    assert_eq!(made.client_transports, [clients[1], clients[0]]);
    let read = person.servers().get_server(GetServerRequest { name: made.name.clone() }).await.unwrap().into_inner();
    assert_eq!(read, made);

    let mut connection = admin.running.core.store.connection().await.unwrap();
    let row = store::servers::get(&mut connection, acme, "time").await.unwrap().unwrap();
    let published = crate::domain::bundle::server(&row);
    assert_eq!((published.transport(), published.stdio), (Transport::Stdio, made.stdio.clone()));
    assert_eq!((published.client_transports, published.credential_id), (made.client_transports.clone(), made.uid.clone()));
    let (.., detail) = admin.newest_audit().await;
    assert!(!detail.to_string().contains("UTC"), "{detail}");

    // A process becomes a server elsewhere only as a whole.
    let elsewhere = Server { name: made.name.clone(), ..at("https://mcp.example.com/mcp") };
    let before = admin.state().await;
    let answer = update(&person, elsewhere.clone(), &["endpoints"]).await;
    refused("both", answer, Code::InvalidArgument, &["server.endpoints"]);
    let answer = update(&person, elsewhere.clone(), &["endpoints", "stdio"]).await;
    refused("no process", answer, Code::InvalidArgument, &["server.stdio", "server.endpoints"]);
    let answer = update(&person, elsewhere.clone(), &["endpoints", "stdio", "transport", "upstream_credential"]).await;
    assert_eq!(answer.unwrap().transport(), Transport::Unspecified);
    assert_ne!(admin.state().await, before);
}

#[tokio::test]
async fn how_modern_clients_share_sessions_is_stored_shown_and_published() {
    let (admin, acme, person) = Admin::with_acme().await;
    let sessions = |how: LegacySessions| Server { legacy_sessions: how.into(), ..at("https://mcp.example.com/mcp") };
    assert_eq!(
        create(&person, "new", sessions(LegacySessions::Unspecified)).await.unwrap().legacy_sessions(),
        LegacySessions::Unspecified
    );
    let made = create(&person, "old", sessions(LegacySessions::PerCall)).await.unwrap();
    assert_eq!(made.legacy_sessions(), LegacySessions::PerCall);
    let renamed = Server { display_name: "Old".into(), name: made.name.clone(), ..Server::default() };
    assert_eq!(update(&person, renamed, &["display_name"]).await.unwrap().legacy_sessions(), LegacySessions::PerCall);
    let mut connection = admin.running.core.store.connection().await.unwrap();
    let row = store::servers::get(&mut connection, acme, "old").await.unwrap().unwrap();
    assert_eq!(crate::domain::bundle::server(&row).legacy_sessions(), LegacySessions::PerCall);

    let wrong = Server { legacy_sessions: 99, name: made.name.clone(), ..Server::default() };
    refused("unknown", update(&person, wrong, &["legacy_sessions"]).await, Code::InvalidArgument, &["server.legacy_sessions"]);
    let wrong = Server { legacy_sessions: -1, ..at("https://mcp.example.com/mcp") };
    refused("unknown", create(&person, "other", wrong).await, Code::InvalidArgument, &["server.legacy_sessions"]);
    let pooled = Server { name: made.name, ..sessions(LegacySessions::Pooled) };
    assert_eq!(update(&person, pooled, &["legacy_sessions"]).await.unwrap().legacy_sessions(), LegacySessions::Pooled);
}

#[tokio::test]
async fn a_transport_follows_from_what_is_given() {
    let (_admin, _, person) = Admin::with_acme().await;
    for (id, server, transport) in [
        ("a", at("https://mcp.example.com/mcp"), Transport::Unspecified),
        ("b", at("wss://mcp.example.com/ws"), Transport::Websocket),
        ("c", process(), Transport::Stdio),
        ("d", Server { transport: Transport::HttpSse.into(), ..at("http://h/sse") }, Transport::HttpSse),
        ("e", Server { transport: Transport::JsonRpc.into(), ..at("http://h/rpc") }, Transport::JsonRpc),
    ] {
        assert_eq!(create(&person, id, server).await.unwrap().transport(), transport, "{id}");
    }
    let name = format!("{ACME}/servers/a");
    let socket = Server { name: name.clone(), ..at("ws://mcp.example.com/ws") };
    assert_eq!(update(&person, socket, &["endpoints"]).await.unwrap().transport(), Transport::Websocket);
    let back = Server { name, ..at("http://mcp.example.com/mcp") };
    let answer = update(&person, back.clone(), &["endpoints"]).await;
    refused("another scheme", answer, Code::InvalidArgument, &["server.endpoints[0].url"]);
    assert_eq!(update(&person, back, &["endpoints", "transport"]).await.unwrap().transport(), Transport::Unspecified);
}

fn stdio(change: impl FnOnce(&mut Stdio)) -> Server {
    let mut server = process();
    change(server.stdio.as_mut().unwrap());
    server
}

fn clients(settings: &[ClientTransportSettings]) -> Server {
    Server { client_transports: settings.to_vec(), ..at("https://mcp.example.com/mcp") }
}

fn bad_servers() -> Vec<(&'static str, Server, Vec<&'static str>)> {
    let env = |name: &str, value: &str| stdio(|it| it.environment = vec![variable(name, value)]);
    let sse = settings(ClientTransport::HttpSse);
    vec![
        ("no command", stdio(|it| it.command.clear()), vec!["server.stdio.command"]),
        ("relative command", stdio(|it| it.command[0] = "./server".into()), vec!["server.stdio.command[0]"]),
        ("zero byte", stdio(|it| it.command[1] = "a\0b".into()), vec!["server.stdio.command[1]"]),
        ("a secret argument", stdio(|it| it.command[1] = format!("--api-key={CANARY}")), vec!["server.stdio.command[1]"]),
        ("a secret variable", env("API_TOKEN", CANARY), vec!["server.stdio.environment[0]"]),
        ("the loader's variable", env("LD_PRELOAD", "/x.so"), vec!["server.stdio.environment[0].name"]),
        ("not a name", env("A B", ""), vec!["server.stdio.environment[0].name"]),
        ("zero byte in a value", env("A", "a\0b"), vec!["server.stdio.environment[0].value"]),
        ("twice", stdio(|it| it.environment[0].name = "LANG".into()), vec!["server.stdio.environment[1].name"]),
        ("relative directory", stdio(|it| it.directory = "srv".into()), vec!["server.stdio.directory"]),
        ("unknown scope", stdio(|it| it.scope = 9), vec!["server.stdio.scope"]),
        ("a process with URLs", Server { endpoints: at("http://h").endpoints, ..process() }, vec!["server.endpoints"]),
        (
            "a process by URL",
            Server { transport: Transport::Stdio.into(), ..at("http://h") },
            vec!["server.stdio", "server.endpoints"],
        ),
        ("http by process", Server { transport: Transport::StreamableHttp.into(), ..process() }, vec!["server.stdio"]),
        ("nothing", Server::default(), vec!["server.endpoints"]),
        ("a secret of a socket", at(&format!("wss://h/?token={CANARY}")), vec!["server.endpoints[0].url"]),
        ("user info of a socket", at(&format!("wss://u:{CANARY}@h/")), vec!["server.endpoints[0].url"]),
        (
            "http for a socket",
            Server { transport: Transport::Websocket.into(), ..at("http://h") },
            vec!["server.endpoints[0].url"],
        ),
        ("a socket for SSE", Server { transport: Transport::HttpSse.into(), ..at("ws://h") }, vec!["server.endpoints[0].url"]),
        (
            "a header for a process",
            Server { upstream_credential: variable_credential("x-api-key", CANARY), ..process() },
            vec!["server.upstream_credential.header"],
        ),
        (
            "a variable that is there",
            Server { upstream_credential: variable_credential("TZ", CANARY), ..process() },
            vec!["server.upstream_credential.header"],
        ),
        (
            "zero byte in a credential",
            Server { upstream_credential: variable_credential("API_TOKEN", &format!("{CANARY}\0")), ..process() },
            vec!["server.upstream_credential.value"],
        ),
        (
            "no client transport",
            clients(&[settings(ClientTransport::Unspecified)]),
            vec!["server.client_transports[0].transport"],
        ),
        ("a client transport twice", clients(&[sse, sse]), vec!["server.client_transports[1].transport"]),
        (
            "too long",
            clients(&[ClientTransportSettings { session_idle_seconds: u32::MAX, keep_alive_seconds: 3601, ..sse }]),
            vec!["server.client_transports[0].session_idle_seconds", "server.client_transports[0].keep_alive_seconds"],
        ),
        (
            "too many",
            clients(&[ClientTransportSettings { max_connections: u32::MAX, ..sse }]),
            vec!["server.client_transports[0].max_connections"],
        ),
    ]
}

#[tokio::test]
async fn what_no_node_could_reach_is_refused_by_field_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let before = admin.state().await;
    for (case, server, fields) in bad_servers() {
        refused(case, create(&person, "new", server).await, Code::InvalidArgument, &fields);
    }
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_document_registers_processes_and_is_given_back_as_it_was() {
    let (_admin, _, person) = Admin::with_acme().await;
    let text = "\
organization: acme
servers:
  time:
    stdio: { command: [uvx, mcp-server-time], environment: [{ name: TZ, value: UTC }], scope: session }
    clientTransports: [{ transport: http-sse, disabled: true }]
  chat: { endpoints: [{ url: 'wss://mcp.example.com/ws' }] }
  found: { endpoints: [{ url: 'https://mcp.example.com/mcp' }] }
";
    let document: OrganizationDocument = Document::parse(text, &mut |_| Err("nothing".into())).unwrap().resource;
    let request = || ExportOrganizationRequest { name: ACME.into() };
    let export = async || person.documents().export_organization(request()).await.unwrap().into_inner();
    let document = OrganizationDocument { servers: document.servers, ..export().await };
    let apply = async |document: OrganizationDocument| {
        let request = ApplyOrganizationRequest { document: Some(document), ..Default::default() };
        let answer = person.documents().apply_organization(request).await.unwrap().into_inner();
        answer.diff.unwrap().resources.iter().filter(|it| it.kind == "server").count()
    };
    assert_eq!(apply(document.clone()).await, 3);
    assert_eq!(apply(document).await, 0, "the same again is no change");
    let exported = export().await;
    let transports = ["chat", "found", "time"].map(|slug| exported.servers[slug].transport());
    assert_eq!(transports, [Transport::Websocket, Transport::Unspecified, Transport::Stdio]);
    assert_eq!(exported.servers["time"].client_transports.len(), 1);
    assert_eq!(apply(exported).await, 0);
}
