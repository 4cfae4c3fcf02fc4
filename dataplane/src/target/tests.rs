use proptest::prelude::*;

use super::*;

const ID: &str = "0d9f4a52-7c1e-4f8a-9a53-1b2c3d4e5f60";

#[test]
fn reads_every_form() {
    let by_id = |rest| parse_owned(&format!("/servers/{ID}/{rest}"));
    assert_eq!(by_id("mcp"), Ok((format!("id {ID}"), Endpoint::Mcp)));
    assert_eq!(by_id("mcp/status"), Ok((format!("id {ID}"), Endpoint::McpStatus)));
    assert_eq!(by_id("mcp/capabilities"), Ok((format!("id {ID}"), Endpoint::McpCapabilities)));
    assert_eq!(parse_owned("/o/acme/servers/git-hub2/mcp"), Ok(("slug acme git-hub2".into(), Endpoint::Mcp)));
    assert_eq!(parse_owned("/o/acme/servers/git/mcp/status"), Ok(("slug acme git".into(), Endpoint::McpStatus)));
    assert_eq!(parse_owned("/mcp"), Ok(("all".into(), Endpoint::Mcp)));
    assert_eq!(parse_owned("/mcp/status"), Ok(("all".into(), Endpoint::McpStatus)));
}

fn parse_owned(path: &str) -> Result<(String, Endpoint), NotFound> {
    parse(path).map(|(address, endpoint)| {
        let address = match address {
            Address::Federated => "all".to_owned(),
            Address::Id(id) => format!("id {id}"),
            Address::Slug { org, server } => format!("slug {org} {server}"),
        };
        (address, endpoint)
    })
}

#[test]
fn any_other_spelling_is_not_found() {
    let with_id = [
        "/servers/ID",
        "/servers/ID/",
        "/servers/ID/mcp/",
        "/servers/ID/mcp.",
        "/servers/ID/mcp;v=1",
        "/servers/ID/mcp%2f",
        "/servers/ID/mcp%00",
        "/servers/ID/MCP",
        "/servers/ID/mcp/status/",
        "/servers/ID/mcp/other",
        "/servers/ID//mcp",
        "/servers//ID/mcp",
        "//servers/ID/mcp",
        "/./servers/ID/mcp",
        "/servers/./ID/mcp",
        "/servers/../servers/ID/mcp",
        "/servers/ID/../ID/mcp",
        "/servers/ID/%6dcp",
        "/servers/%49D/mcp",
        "/servers/ID;x/mcp",
        "/servers/ID%20/mcp",
        "/servers/ID./mcp",
        "/Servers/ID/mcp",
        "/SERVERS/ID/mcp",
        "servers/ID/mcp",
        "/servers/ID\\mcp",
        "\\servers/ID/mcp",
        "/x/servers/ID/mcp",
        "/o/acme/servers/ID/mcp",
        "/servers/ID/mcp?x=1",
        "/servers/ID/mcp#x",
    ];
    let others = [
        "",
        "/",
        "*",
        "/mcp/",
        "//mcp",
        "/MCP",
        "/mcp/mcp",
        "/servers/mcp",
        "/servers//mcp",
        "/servers/../mcp",
        "/servers/0D9F4A52-7C1E-4F8A-9A53-1B2C3D4E5F60/mcp",
        "/servers/0d9f4a527c1e4f8a9a531b2c3d4e5f60/mcp",
        "/servers/{0d9f4a52-7c1e-4f8a-9a53-1b2c3d4e5f60}/mcp",
        "/servers/github/mcp",
        "/o/acme/servers//mcp",
        "/o//servers/x/mcp",
        "/o/Acme/servers/x/mcp",
        "/o/acme/servers/X/mcp",
        "/o/acme/servers/../mcp",
        "/o/../servers/x/mcp",
        "/o/acme/servers/x.y/mcp",
        "/o/acme/servers/x%2fy/mcp",
        "/o/acme/servers/x;y/mcp",
        "/o/acme/server/x/mcp",
        "/o/acme/mcp",
        "/o/ac\u{fc}me/servers/x/mcp",
        "/health",
        "/favicon.ico",
    ];
    // A slug cannot look like a UUID that starts with a digit, so the id under /o/ is not found either.
    for path in with_id.iter().map(|path| path.replace("ID", ID)).chain(others.map(String::from)) {
        assert_eq!(parse(&path), Err(NotFound), "{path}");
    }
}

proptest! {
    #[test]
    fn arbitrary_paths_never_panic_and_only_plain_ones_pass(path in "[/a-zA-Z0-9%.;?\\\\_ -]{0,80}") {
        if parse(&path).is_ok() {
            prop_assert!(path.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'/')));
        }
    }
}
