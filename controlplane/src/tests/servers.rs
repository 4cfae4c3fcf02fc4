//! ServerService, over gRPC, on a real database.

use mcp_gateway::proto::{
    admin::v1::{
        CreateServerRequest, DeleteServerRequest, GetServerRequest, ListServersRequest, Role, Server, UpdateServerRequest,
        UpstreamCredential,
    },
    config::v1::{Endpoint, Era, Transport},
};
use tonic::Code;
use uuid::Uuid;

use super::admin::{Admin, CANARY, Person, email, mask, refused};
use crate::domain::bundle;

const ACME: &str = "organizations/acme";

fn server() -> Server {
    Server {
        endpoints: vec![Endpoint { url: "https://mcp.example.com/mcp".into(), weight: 0 }],
        upstream_credential: credential("authorization", &format!("Bearer {CANARY}")),
        ..Default::default()
    }
}

fn credential(header: &str, value: &str) -> Option<UpstreamCredential> {
    Some(UpstreamCredential { header: header.into(), value: value.into() })
}

fn create(id: &str, server: Server) -> CreateServerRequest {
    CreateServerRequest { parent: ACME.into(), server_id: id.into(), server: Some(server), ..Default::default() }
}

fn update(server: Server, paths: &[&str]) -> UpdateServerRequest {
    UpdateServerRequest { server: Some(server), update_mask: mask(paths), ..Default::default() }
}

async fn created(person: &Person, id: &str) -> Server {
    person.servers().create_server(create(id, server())).await.unwrap().into_inner()
}

async fn read(person: &Person, name: &str) -> Server {
    person.servers().get_server(GetServerRequest { name: name.into() }).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_server_is_created_read_changed_and_deleted_each_change_with_its_version() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let before = admin.version().await;

    let made = created(&person, "github").await;
    assert_eq!(made.name, "organizations/acme/servers/github");
    assert_eq!(made.endpoint_path, format!("/servers/{}/mcp", made.uid));
    assert_eq!(Uuid::parse_str(&made.uid).unwrap().get_version_num(), 7);
    assert_eq!(made.transport(), Transport::Unspecified, "nodes find out");
    assert_eq!(made.upstream_credential, credential("authorization", ""));
    assert_eq!((made.config_version, admin.version().await), (before + 1, before + 1));
    assert_eq!(read(&person, &made.name).await, made);
    let (actor, action, resource, version, detail) = admin.newest_audit().await;
    assert_eq!((actor, action, resource), (email(person.user), "server.create".into(), made.name.clone()));
    assert_eq!(version.unsigned_abs(), made.config_version);
    assert!(!detail.to_string().contains("example.com"), "{detail}");
    let logged: (Uuid, String, String) =
        sqlx::query_as("SELECT org_id, kind, operation FROM config_change ORDER BY version DESC LIMIT 1")
            .fetch_one(&mut admin.sql)
            .await
            .unwrap();
    assert_eq!(logged, (acme, "server".into(), "create".into()));

    let timeout = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
    let change = Server {
        name: made.name.clone(),
        etag: made.etag.clone(),
        display_name: "GitHub".into(),
        era: Era::Legacy.into(),
        call_timeout: Some(timeout),
        max_body_bytes: 64 << 20,
        disabled: true, // not in the mask
        ..Default::default()
    };
    let paths = ["display_name", "era", "call_timeout", "max_body_bytes"];
    let changed = person.servers().update_server(update(change, &paths)).await.unwrap().into_inner();
    let expected = Server {
        display_name: "GitHub".into(),
        era: Era::Legacy.into(),
        call_timeout: Some(timeout),
        max_body_bytes: 64 << 20,
        etag: changed.etag.clone(),
        update_time: changed.update_time,
        config_version: before + 2,
        ..made.clone()
    };
    assert_eq!(changed, expected);
    assert_ne!(changed.etag, made.etag);

    let delete = DeleteServerRequest { name: made.name.clone(), ..Default::default() };
    let gone = person.servers().delete_server(delete).await;
    assert_eq!(gone.unwrap().into_inner().config_version, before + 3);
    let answer = person.servers().get_server(GetServerRequest { name: made.name }).await;
    refused("deleted", answer, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_credential_is_stored_sealed_kept_moved_removed_and_never_shown() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let mut request = create("github", server());
    request.request_id = Uuid::now_v7().to_string(); // the answer is kept too
    let made = person.servers().create_server(request).await.unwrap().into_inner();
    let custody = admin.running.core.custody.clone();
    let uid = made.uid.clone();
    let stored = async |admin: &mut Admin| -> Option<(String, String)> {
        let row =
            sqlx::query_as("SELECT credential_header, credential_wrapped FROM mcp_servers WHERE credential_header IS NOT NULL");
        let (header, wrapped): (String, Vec<u8>) = row.fetch_optional(&mut admin.sql).await.unwrap()?;
        let value = custody.open(&bundle::credential_context(&uid), &wrapped).unwrap();
        assert!(custody.open(&bundle::credential_context("other"), &wrapped).is_err());
        Some((header, String::from_utf8(value.to_vec()).unwrap()))
    };
    let bearer = format!("Bearer {CANARY}");
    assert_eq!(stored(&mut admin).await, Some(("authorization".into(), bearer.clone())));

    // Round trip: what was read is written back whole, and the value stays.
    person.servers().update_server(update(made.clone(), &["*"])).await.unwrap();
    assert_eq!(stored(&mut admin).await, Some(("authorization".into(), bearer.clone())));
    let named = |credential| Server { name: made.name.clone(), upstream_credential: credential, ..Default::default() };
    person.servers().update_server(update(named(credential("X-Api-Key", "")), &[])).await.unwrap();
    assert_eq!(stored(&mut admin).await, Some(("x-api-key".into(), bearer)));
    let other = format!("{CANARY}-2");
    person.servers().update_server(update(named(credential("X-Api-Key", &other)), &[])).await.unwrap();
    assert_eq!(stored(&mut admin).await, Some(("x-api-key".into(), other)));
    let bare = person.servers().update_server(update(named(None), &["upstream_credential"])).await.unwrap().into_inner();
    assert_eq!(bare.upstream_credential, None);
    assert_eq!(stored(&mut admin).await, None);

    let answer = person.servers().update_server(update(named(credential("x-api-key", "")), &[])).await;
    refused("nothing stored to keep", answer, Code::InvalidArgument, &["server.upstream_credential.value"]);
    let state = admin.state().await;
    assert!(!state.contains(CANARY) && !state.contains(&hex::encode(CANARY)), "{state}");
}

#[tokio::test]
async fn a_bad_server_is_refused_by_field_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    created(&person, "taken").await;
    let url = |url: &str| Server { endpoints: vec![Endpoint { url: url.into(), weight: 0 }], ..server() };
    let timeout = |seconds, nanos| Server { call_timeout: Some(prost_types::Duration { seconds, nanos }), ..server() };
    let header = |name: &str| Server { upstream_credential: credential(name, CANARY), ..server() };
    let value = |value: String| Server { upstream_credential: credential("x-api-key", &value), ..server() };
    let one = "server.endpoints[0].url";
    let (name, secret) = ("server.upstream_credential.header", "server.upstream_credential.value");
    let cases: Vec<(&str, Server, Vec<&str>)> = vec![
        ("no endpoint", Server { endpoints: vec![], ..server() }, vec!["server.endpoints"]),
        ("65 endpoints", Server { endpoints: vec![server().endpoints[0].clone(); 65], ..server() }, vec!["server.endpoints"]),
        ("relative", url("/mcp"), vec![one]),
        ("no scheme", url("example.com/mcp"), vec![one]),
        ("ftp", url("ftp://example.com/mcp"), vec![one]),
        ("user info", url(&format!("https://u:{CANARY}@example.com/mcp")), vec![one]),
        ("fragment", url(&format!("https://example.com/mcp#{CANARY}")), vec![one]),
        ("not a URL", url(&format!("https://exa mple.com/{CANARY}")), vec![one]),
        ("zero byte", url(&format!("https://example.com/{CANARY}\0")), vec![one]),
        ("long URL", url(&format!("https://example.com/{CANARY}{}", "x".repeat(2048))), vec![one]),
        (
            "a process that is none",
            Server { transport: Transport::Stdio.into(), ..server() },
            vec!["server.stdio", "server.endpoints"],
        ),
        ("unknown transport", Server { transport: 99, ..server() }, vec!["server.transport"]),
        ("unknown era", Server { era: 70_000, ..server() }, vec!["server.era"]),
        ("negative timeout", timeout(-1, 0), vec!["server.call_timeout"]),
        ("zero timeout", timeout(0, 0), vec!["server.call_timeout"]),
        ("below a millisecond", timeout(0, 999_999), vec!["server.call_timeout"]),
        ("a fraction of a millisecond", timeout(1, 1), vec!["server.call_timeout"]),
        ("over an hour", timeout(3600, 1_000_000), vec!["server.call_timeout"]),
        ("overflow", timeout(i64::MAX, 0), vec!["server.call_timeout"]),
        ("large body", Server { max_body_bytes: (64 << 20) + 1, ..server() }, vec!["server.max_body_bytes"]),
        ("huge body", Server { max_body_bytes: u32::MAX, ..server() }, vec!["server.max_body_bytes"]),
        ("long display name", Server { display_name: "ä".repeat(201), ..server() }, vec!["server.display_name"]),
        ("control character", Server { display_name: "a\u{0}b".into(), ..server() }, vec!["server.display_name"]),
        ("no header", header(""), vec![name]),
        ("not a header", header("x y"), vec![name]),
        ("host", header("Host"), vec![name]),
        ("hop by hop", header("Transfer-Encoding"), vec![name]),
        ("connection", header("connection"), vec![name]),
        ("content", header("Content-Length"), vec![name]),
        ("protocol", header("Mcp-Session-Id"), vec![name]),
        ("no value", value(String::new()), vec![secret]),
        ("line break in the value", value(format!("{CANARY}\r\nx: y")), vec![secret]),
        ("not ASCII", value(format!("{CANARY}ä")), vec![secret]),
        ("space around", value(format!("{CANARY} ")), vec![secret]),
        ("long value", value(CANARY.repeat(1000)), vec![secret]),
        (
            "all at once",
            Server { max_body_bytes: u32::MAX, upstream_credential: credential("host", "\n"), ..timeout(0, 0) },
            vec!["server.call_timeout", "server.max_body_bytes", name, secret],
        ),
    ];
    let before = admin.state().await;
    for (case, server, fields) in cases {
        let answer = person.servers().create_server(create("new", server)).await;
        refused(case, answer, Code::InvalidArgument, &fields);
    }
    for (case, id, code, fields) in [
        ("taken", "taken", Code::AlreadyExists, vec![]),
        ("no id", "", Code::InvalidArgument, vec!["server_id"]),
        ("upper case", "GitHub", Code::InvalidArgument, vec!["server_id"]),
        ("long id", "a23456789012345678901234567890123456789012345678901234567890abcd", Code::InvalidArgument, vec!["server_id"]),
    ] {
        refused(case, person.servers().create_server(create(id, server())).await, code, &fields);
    }
    let parent = |parent: &str| CreateServerRequest { parent: parent.into(), ..create("new", server()) };
    let none = CreateServerRequest { server: None, ..create("new", server()) };
    let id = CreateServerRequest { request_id: "one".into(), ..create("new", server()) };
    for (case, request, code, fields) in [
        ("no parent", parent(""), Code::InvalidArgument, vec!["parent"]),
        ("unknown organisation", parent("organizations/nobody"), Code::NotFound, vec![]),
        ("no server", none, Code::InvalidArgument, vec!["server"]),
        ("request id", id, Code::InvalidArgument, vec!["request_id"]),
    ] {
        refused(case, person.servers().create_server(request).await, code, &fields);
    }
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_bad_change_is_refused_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let first = created(&person, "github").await;
    let again = Server { display_name: "x".into(), ..first.clone() };
    let second = person.servers().update_server(update(again.clone(), &["display_name"])).await.unwrap().into_inner();
    let other = created(&person, "other").await;
    let before = admin.state().await;

    let answer = person.servers().update_server(update(again, &["display_name"])).await;
    refused("stale etag", answer, Code::Aborted, &[]);
    let foreign = Server { etag: other.etag, ..second.clone() };
    refused("etag of another", person.servers().update_server(update(foreign, &["*"])).await, Code::Aborted, &[]);
    for path in [
        "uid",
        "name",
        "etag",
        "endpoint_path",
        "config_version",
        "create_time",
        "upstream_credential.value",
        "nope",
        "endpoints[0]",
    ] {
        let answer = person.servers().update_server(update(second.clone(), &["display_name", path])).await;
        refused(path, answer, Code::InvalidArgument, &["update_mask"]);
    }
    let bad = Server { endpoints: vec![], ..second.clone() };
    refused(
        "no endpoints",
        person.servers().update_server(update(bad, &["endpoints"])).await,
        Code::InvalidArgument,
        &["server.endpoints"],
    );
    for (name, code, fields) in [
        ("organizations/acme/servers/none", Code::NotFound, vec![]),
        ("organizations/acme/servers/", Code::InvalidArgument, vec!["server.name"]),
        ("organizations/acme/servers/a\0b", Code::InvalidArgument, vec!["server.name"]),
        ("servers/github", Code::InvalidArgument, vec!["server.name"]),
    ] {
        let renamed = Server { name: name.into(), etag: String::new(), ..second.clone() };
        refused(name, person.servers().update_server(update(renamed, &["display_name"])).await, code, &fields);
    }
    let delete = |name: &str, etag: &str| DeleteServerRequest { name: name.into(), etag: etag.into(), ..Default::default() };
    let stale = person.servers().delete_server(delete(&first.name, &first.etag)).await;
    refused("stale etag on delete", stale, Code::Aborted, &[]);
    let missing = person.servers().delete_server(delete("organizations/acme/servers/none", "")).await;
    refused("delete of nothing", missing, Code::NotFound, &[]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn only_checks_are_run_when_only_they_are_asked_for() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let made = created(&person, "github").await;
    let before = admin.state().await;
    let request = CreateServerRequest { validate_only: true, ..create("new", server()) };
    assert_eq!(person.servers().create_server(request).await.unwrap().into_inner().config_version, 0);
    let taken = CreateServerRequest { validate_only: true, ..create("github", server()) };
    refused("taken", person.servers().create_server(taken).await, Code::AlreadyExists, &[]);
    let changed = UpdateServerRequest { validate_only: true, ..update(Server { disabled: true, ..made.clone() }, &["disabled"]) };
    assert!(person.servers().update_server(changed).await.unwrap().into_inner().disabled);
    let delete = DeleteServerRequest { name: made.name, validate_only: true, ..Default::default() };
    assert_eq!(person.servers().delete_server(delete).await.unwrap().into_inner().config_version, 0);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let request = CreateServerRequest { request_id: Uuid::now_v7().to_string(), ..create("github", server()) };
    let first = person.servers().create_server(request.clone()).await.unwrap().into_inner();
    let before = admin.state().await;
    assert_eq!(person.servers().create_server(request.clone()).await.unwrap().into_inner(), first);
    let another = CreateServerRequest { server_id: "another".into(), ..request };
    refused("another request", person.servers().create_server(another).await, Code::InvalidArgument, &["request_id"]);
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn of_two_changes_with_one_etag_exactly_one_wins() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let made = created(&person, "github").await;
    let version = admin.version().await;
    let change = |text: &str| {
        let (person, server) = (person.clone(), Server { display_name: text.into(), ..made.clone() });
        tokio::spawn(async move { person.servers().update_server(update(server, &["display_name"])).await })
    };
    let changes: Vec<_> = (0..8).map(|n| change(&n.to_string())).collect();
    let mut won = Vec::new();
    for change in changes {
        match change.await.unwrap() {
            Ok(server) => won.push(server.into_inner()),
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(admin.version().await, version + 1);
    assert_eq!(read(&person, &made.name).await, won[0]);
}

#[tokio::test]
async fn a_list_is_paged_in_order_and_its_tokens_fit_no_other_list() {
    let (mut admin, _, person) = Admin::with_acme().await;
    for id in ["c", "a-1", "b", "a", "aa"] {
        created(&person, id).await;
    }
    let list = |parent: &str, page_size, page_token: &str| ListServersRequest {
        parent: parent.into(),
        page_size,
        page_token: page_token.into(),
    };
    let (mut names, mut token, mut tokens) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = person.servers().list_servers(list(ACME, 2, &token)).await.unwrap().into_inner();
        names.extend(page.servers.into_iter().map(|server| server.name.rsplit('/').next().unwrap().to_owned()));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        tokens.push(token.clone());
    }
    assert_eq!((names, tokens.len()), (["a", "a-1", "aa", "b", "c"].map(String::from).to_vec(), 2));

    let platform = admin.platform_admin().await;
    admin.organization("other").await;
    let answer = platform.servers().list_servers(list("organizations/other", 2, &tokens[0])).await;
    refused("another parent", answer, Code::InvalidArgument, &["page_token"]);
    let altered = format!("A{}", &tokens[0][1..]);
    for (case, size, token) in [("altered", 2, altered.as_str()), ("made up", 2, "e30"), ("not base64", 2, "%%%")] {
        refused(case, person.servers().list_servers(list(ACME, size, token)).await, Code::InvalidArgument, &["page_token"]);
    }
    refused("negative size", person.servers().list_servers(list(ACME, -1, "")).await, Code::InvalidArgument, &["page_size"]);
}

#[tokio::test]
async fn another_organisation_cannot_be_told_from_one_that_does_not_exist() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let made = created(&person, "github").await;
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let before = admin.state().await;
    let mut seen = Vec::new();
    for parent in ["organizations/acme", "organizations/nobody"] {
        let name = format!("{parent}/servers/github");
        let statuses = [
            stranger.servers().get_server(GetServerRequest { name: name.clone() }).await.unwrap_err(),
            stranger
                .servers()
                .list_servers(ListServersRequest { parent: parent.into(), ..Default::default() })
                .await
                .unwrap_err(),
            stranger
                .servers()
                .create_server(CreateServerRequest { parent: parent.into(), ..create("github", server()) })
                .await
                .unwrap_err(),
            stranger.servers().update_server(update(Server { name: name.clone(), ..made.clone() }, &["*"])).await.unwrap_err(),
            stranger.servers().delete_server(DeleteServerRequest { name, ..Default::default() }).await.unwrap_err(),
        ];
        seen.push(statuses.map(|status| (status.code(), status.message().replace(parent, "it"))));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].iter().all(|(code, _)| *code == Code::NotFound), "{seen:?}");
    assert_eq!(admin.state().await, before);
}
