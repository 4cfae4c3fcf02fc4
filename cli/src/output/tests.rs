//! Rendering: what people and scripts get to see.

use mcp_gateway::document::{Document, Faults};
use mcp_gateway::proto::admin::v1::{FoundOut, Node, NodeState, Policy, Server};
use mcp_gateway::proto::config::v1::{Effect, Endpoint, Era, Match, Stdio, Subjects, Transport};
use prost_types::{Duration, Timestamp};

use super::{Format, render_many, render_one};

fn parse(text: &str) -> Result<Document<Policy>, Faults> {
    Document::parse(text, &mut |_| Err("no secrets here".into()))
}

fn server(slug: &str) -> Server {
    Server {
        name: format!("organizations/demo/servers/{slug}"),
        display_name: "two\nlines \u{1b}[31m".into(),
        transport: Transport::StreamableHttp.into(),
        endpoints: vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 2 }],
        call_timeout: Some(Duration { seconds: 5, nanos: 0 }),
        create_time: Some(Timestamp { seconds: 1_795_377_845, nanos: 0 }),
        config_version: 12,
        ..Server::default()
    }
}

fn policy() -> Policy {
    Policy {
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: vec!["engineer".into()], anonymous: true, ..Subjects::default() }),
        servers: vec!["github".into()],
        r#match: Some(Match { tools: vec!["search_*".into(), "get_issue".into()], ..Match::default() }),
        ..Policy::default()
    }
}

#[test]
fn json_names_are_the_protos() {
    let text = render_one(Format::Json, &server("time")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["displayName"], "two\nlines \u{1b}[31m");
    assert_eq!(value["transport"], "TRANSPORT_STREAMABLE_HTTP");
    assert_eq!(value["callTimeout"], "5s");
    assert_eq!(value["createTime"], "2026-11-22T20:04:05Z");
    assert_eq!(value["configVersion"], "12");
    assert_eq!(value.get("disabled"), None);
}

#[test]
fn a_list_as_json_is_an_array() {
    let text = render_many(Format::Json, &[server("a"), server("b")]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[1]["name"], "organizations/demo/servers/b");
    assert_eq!(render_many::<Server>(Format::Json, &[]).unwrap(), "[]");
}

#[test]
fn a_list_as_table_has_a_line_per_resource() {
    let process = Server {
        transport: Transport::Stdio.into(),
        endpoints: Vec::new(),
        stdio: Some(Stdio { command: vec!["uvx".into(), "it's".into(), String::new()], ..Stdio::default() }),
        ..server("clock")
    };
    let unknown = Server { transport: Transport::Unspecified.into(), ..server("weather-of-the-world") };
    let of_node = |era: Era| FoundOut { transport: Transport::HttpSse.into(), era: era.into(), ..FoundOut::default() };
    let agreed = Server { found_out: vec![of_node(Era::Legacy); 2], ..Server { name: "maps".into(), ..unknown.clone() } };
    let at_odds = vec![of_node(Era::Modern), of_node(Era::Legacy)];
    let at_odds = Server { name: "news".into(), transport: Transport::Websocket.into(), found_out: at_odds, ..server("") };
    let text = render_many(Format::Table, &[server("time"), unknown, agreed, at_odds, process]).unwrap();
    let expected = "\
SERVER                TRANSPORT         ERA                    REACHED BY              ANONYMOUS  DISABLED  VERSION
time                  streamable-http                          http://127.0.0.1:9/mcp                       12
weather-of-the-world  auto                                     http://127.0.0.1:9/mcp                       12
maps                  http-sse (found)  legacy (found)         http://127.0.0.1:9/mcp                       12
news                  websocket         legacy|modern (found)  http://127.0.0.1:9/mcp                       12
clock                 stdio                                    uvx 'it'\\''s' ''                             12";
    assert_eq!(text, expected);
}

#[test]
fn one_resource_as_table_has_a_line_per_field_and_no_control_characters() {
    let text = render_one(Format::Table, &server("time")).unwrap();
    let expected = "\
name                 organizations/demo/servers/time
displayName          two lines  [31m
transport            TRANSPORT_STREAMABLE_HTTP
endpoints[0].url     http://127.0.0.1:9/mcp
endpoints[0].weight  2
callTimeout          5s
createTime           2026-11-22T20:04:05Z
configVersion        12
";
    assert_eq!(text, expected);
}

#[test]
fn yaml_that_was_written_can_be_read_again() {
    let written = render_one(Format::Yaml, &policy()).unwrap();
    assert_eq!(parse(&written).unwrap().resource, policy());
}

#[test]
fn a_policy_is_read_as_people_write_it() {
    let text = "
effect: allow
subjects: { roles: [engineer], anonymous: true }
servers: [github]
match: { tools: ['search_*', get_issue] }
";
    let document = parse(text).unwrap();
    assert_eq!(document.resource, policy());
    assert_eq!(document.fields, ["effect", "match", "servers", "subjects"]);
}

#[test]
fn what_only_the_server_sets_is_not_a_field_to_change() {
    let text = "{name: x, etag: e, uid: u, createTime: '2026-11-22T20:04:05Z', displayName: d}";
    let document = parse(text).unwrap();
    assert_eq!(document.fields, ["display_name"]);
    assert_eq!(document.resource.etag, "e");
}

#[test]
fn a_wrong_document_is_refused_by_name() {
    for (text, named) in [("effekt: allow", "effekt"), ("effect: maybe", "maybe"), ("[1]", "map"), ("a: [", "line")] {
        let error = parse(text).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains(named), "{text}: {message}");
    }
}

#[test]
fn a_node_as_table_says_how_it_stands_and_the_first_reason() {
    let node = Node {
        name: "nodes/n1".into(),
        display_name: "edge-1".into(),
        pool: "default".into(),
        labels: std::collections::BTreeMap::from([("ring".into(), "canary".into())]),
        state: NodeState::Refused.into(),
        applied_version: 41,
        target_version: 45,
        target_epoch: 1,
        stale_duration: Some(Duration { seconds: 130, nanos: 0 }),
        spool_frames: 12,
        spool_oldest_duration: Some(Duration { seconds: 3, nanos: 0 }),
        open_streams: 2,
        build: "0.1.0".into(),
        problems: vec!["organizations/acme: server x: bad".into(), "more".into()],
        ..Node::default()
    };
    let text = render_many(Format::Table, &[node]).unwrap();
    let expected = "\
NODE  NAME    POOL     LABELS       STATE    APPLIED   BEHIND  STALE  SPOOL    STREAMS  BUILD  CERTIFICATE  SEEN  PROBLEMS
n1    edge-1  default  ring=canary  refused  41 of 45          2m     12 (3s)  2        0.1.0                     organizations/acme: server x: bad (and 1 more)";
    assert_eq!(text, expected);
}

#[test]
fn a_difference_shows_what_is_new_gone_and_changed() {
    use mcp_gateway::proto::admin::v1::{ConfigDiff, FieldDiff, ResourceDiff};
    let one = |operation: &str, before: &str, after: &str| ResourceDiff {
        kind: "policy".into(),
        resource: "organizations/acme/policies/all\u{1b}[31m".into(),
        operation: operation.into(),
        fields: vec![FieldDiff { field: "when".into(), before: before.into(), after: after.into() }],
        ..ResourceDiff::default()
    };
    let resources = vec![one("create", "", "1"), one("update", "1", "2"), one("delete", "2", "")];
    let text = super::diff::table(&ConfigDiff { resources, resources_omitted: 2, ..ConfigDiff::default() });
    let expected = "+ policy organizations/acme/policies/all [31m\n    + when: 1\n~ policy organizations/acme/policies/all [31m\n    \
                    - when: 1\n    + when: 2\n- policy organizations/acme/policies/all [31m\n    - when: 2\n… and 2 more\n";
    assert_eq!(text, expected);
    assert_eq!(super::diff::table(&ConfigDiff::default()), "no difference\n");
}
