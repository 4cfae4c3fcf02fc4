use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    id: String,
    #[command(flatten)]
    place: Place,
}

/// What the flags make of a server, and which fields they change.
fn changed(server: &Server, flags: &[&str]) -> Result<(Server, Vec<String>), String> {
    let line = ["update", "time"].into_iter().chain(flags.iter().copied());
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    let (mut server, mut mask) = (server.clone(), Mask::default());
    assert_eq!(line.id, "time");
    line.place.apply(&mut server, &mut mask).map_err(|error| error.to_string())?;
    Ok((server, mask.finish().map(|mask| mask.unwrap().paths).unwrap_or_default()))
}

fn created(flags: &[&str]) -> Server {
    changed(&Server::default(), flags).unwrap().0
}

fn names(server: &Server) -> Vec<String> {
    server.stdio.iter().flat_map(|it| &it.environment).map(|it| format!("{}={}", it.name, it.value)).collect()
}

#[test]
fn a_command_is_what_follows_two_hyphens() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# zone\nTZ=UTC\n\nA=x=y \nLANG=C\n").unwrap();
    let path = file.path().to_str().unwrap();
    let flags =
        ["--env", "TZ=CET", "--env-file", path, "--dir", "/srv", "--shared", "--", "uvx", "mcp-server-time", "--shared", "a b"];
    let server = created(&flags);
    let stdio = server.stdio.as_ref().unwrap();
    assert_eq!(stdio.command, ["uvx", "mcp-server-time", "--shared", "a b"]);
    assert_eq!((stdio.directory.as_str(), stdio.scope()), ("/srv", StdioScope::Shared));
    assert_eq!(names(&server), ["A=x=y ", "LANG=C", "TZ=CET"]);
    assert_eq!(server.transport(), Transport::Unspecified, "it follows from the command");
}

#[test]
fn a_change_of_a_process_leaves_the_rest_of_it() {
    let server = Server { transport: Transport::Stdio.into(), ..created(&["--env", "A=1", "--env", "B=2", "--", "uvx", "x"]) };
    let (after, fields) = changed(&server, &["--env", "B=3", "--env", "C=4", "--unset-env", "A", "--shared", "false"]).unwrap();
    assert_eq!((names(&after), fields), (vec!["B=3".into(), "C=4".into()], vec!["stdio".to_owned()]));
    let stdio = after.stdio.unwrap();
    assert_eq!((stdio.command, stdio.scope), (vec!["uvx".to_owned(), "x".into()], StdioScope::Session.into()));
}

#[test]
fn a_server_moves_as_a_whole() {
    let process = Server { transport: Transport::Stdio.into(), ..created(&["--", "uvx", "x"]) };
    let (elsewhere, fields) = changed(&process, &["--url", "https://h/mcp"]).unwrap();
    assert_eq!((elsewhere.transport(), elsewhere.stdio.is_none(), elsewhere.endpoints.len()), (Transport::Unspecified, true, 1));
    assert_eq!(fields, ["stdio", "endpoints", "transport"]);
    let sse = Server { transport: Transport::HttpSse.into(), ..elsewhere };
    assert_eq!(changed(&sse, &["--url", "https://other/sse"]).unwrap().1, ["endpoints"], "the transport stays");
    assert_eq!(changed(&sse, &["--url", "wss://other/ws"]).unwrap().0.transport(), Transport::Unspecified);
    let (back, fields) = changed(&sse, &["--", "uvx", "x"]).unwrap();
    assert_eq!((back.endpoints.len(), fields), (0, vec!["endpoints".to_owned(), "transport".into(), "stdio".into()]));
    let (named, fields) = changed(&sse, &["--transport", "auto"]).unwrap();
    assert_eq!((named.transport(), fields), (Transport::Unspecified, vec!["transport".to_owned()]));
}

#[test]
fn settings_of_clients_replace_those_of_their_transport() {
    let flags = ["--client-transport", "websocket=off", "--client-transport", "http-sse=idle:10m,max:100,keep-alive:20s"];
    let server = created(&flags);
    let [sse, websocket] = server.client_transports[..] else { panic!("{:?}", server.client_transports) };
    assert_eq!(
        (sse.transport(), sse.session_idle_seconds, sse.max_connections, sse.keep_alive_seconds),
        (ClientTransport::HttpSse, 600, 100, 20)
    );
    assert!(websocket.disabled && websocket.transport() == ClientTransport::Websocket);
    let (after, fields) =
        changed(&server, &["--client-transport", "websocket=on", "--client-transport", "json-rpc=off"]).unwrap();
    let transports: Vec<_> = after.client_transports.iter().map(ClientTransportSettings::transport).collect();
    assert_eq!(
        (transports, fields),
        (vec![ClientTransport::HttpSse, ClientTransport::JsonRpc], vec!["client_transports".to_owned()])
    );
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    let table: &[(&[&str], &str)] = &[
        (&["--url", "http://h", "--", "uvx"], "cannot be used with"),
        (&["--url", "http://h", "--env", "A=1"], "cannot be used with"),
        (&["--env", "A=1"], "which command?"),
        (&["--env", "A", "--", "x"], "expected KEY=VALUE"),
        (&["--transport", "carrier-pigeon"], "invalid value"),
        (&["--client-transport", "websocket"], "expected TRANSPORT=SETTINGS"),
        (&["--client-transport", "stdio=off"], "expected one of streamable-http"),
        (&["--client-transport", "websocket=idle:1w"], "unknown unit"),
        (&["--client-transport", "websocket=max:-1"], "expected off, on"),
        (&["--client-transport", "websocket=loud"], "expected off, on"),
    ];
    for (flags, expected) in table {
        let found = changed(&Server::default(), flags).unwrap_err();
        assert!(found.contains(expected), "{flags:?}: {found}");
    }
    let found = variables("A=1\nexport s3cret\n").unwrap_err();
    assert_eq!(found, "line 2: expected KEY=VALUE", "what a line says is not repeated");
}
