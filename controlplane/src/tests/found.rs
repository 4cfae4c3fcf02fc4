//! What nodes found out about servers, from their reports to the API.

use mcp_gateway::proto::{
    admin::v1::{CreateServerRequest, FoundOut, GetServerRequest, ListServersRequest, Role, Server, UpdateServerRequest},
    config::v1::{Endpoint, Era, Transport},
    node::v1::{FoundServer, ReportStatusRequest},
};
use tonic::Code;

use super::admin::{Admin, Person, mask, refused};
use crate::nodes::client::Joined;

const ACME: &str = "organizations/acme";

async fn server(person: &Person, slug: &str) -> Server {
    let endpoints = vec![Endpoint { url: format!("https://{slug}.example.com/mcp"), weight: 0 }];
    let server = Some(Server { endpoints, ..Default::default() });
    let create = CreateServerRequest { parent: ACME.into(), server_id: slug.into(), server, ..Default::default() };
    person.servers().create_server(create).await.unwrap().into_inner()
}

fn told(server: &Server, transport: Transport, era: Era) -> FoundServer {
    FoundServer { server_id: server.uid.clone(), transport: transport.into(), era: era.into(), found_at_ms: 5_000 }
}

async fn report(node: &Joined, found_servers: Vec<FoundServer>) {
    let request = ReportStatusRequest { found_servers, ..Default::default() };
    node.service().await.report_status(request).await.unwrap();
}

async fn found(person: &Person, server: &Server) -> Vec<FoundOut> {
    person.servers().get_server(GetServerRequest { name: server.name.clone() }).await.unwrap().into_inner().found_out
}

/// Node and era, by node.
fn eras(found: &[FoundOut]) -> Vec<(&str, Era)> {
    found.iter().map(|it| (it.node.as_str(), it.era())).collect()
}

#[tokio::test]
async fn each_node_says_what_it_found_out_about_servers_of_its_pool() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let (github, search) = (server(&person, "github").await, server(&person, "search").await);
    assert_eq!(github.found_out, []);
    let (one, two) = (Joined::to(&admin.running, "default").await, Joined::to(&admin.running, "default").await);
    let elsewhere = Joined::to(&admin.running, "edge").await;
    let names = [&one, &two].map(|node| format!("nodes/{}", node.id()));
    let both = |era| vec![told(&github, Transport::StreamableHttp, era), told(&search, Transport::Unspecified, Era::Both)];
    report(&one, both(Era::Legacy)).await;
    report(&two, both(Era::Modern)).await;
    report(&elsewhere, both(Era::Legacy)).await;
    let mut expected = vec![(names[0].as_str(), Era::Legacy), (names[1].as_str(), Era::Modern)];
    expected.sort_unstable_by_key(|(name, _)| *name);
    let seen = found(&person, &github).await;
    assert_eq!(eras(&seen), expected, "another pool's node is not believed");
    assert_eq!((seen[0].transport(), seen[0].find_time.unwrap().seconds), (Transport::StreamableHttp, 5));
    let list = ListServersRequest { parent: ACME.into(), ..Default::default() };
    let listed = person.servers().list_servers(list).await.unwrap().into_inner().servers;
    assert_eq!(listed.iter().map(|server| server.found_out.len()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(listed[1].found_out[0].transport(), Transport::Unspecified);

    report(&one, vec![told(&github, Transport::StreamableHttp, Era::Both)]).await;
    assert!(eras(&found(&person, &github).await).contains(&(&names[0], Era::Both)), "the newest report tells");
    assert_eq!(eras(&found(&person, &search).await), [(names[1].as_str(), Era::Both)], "what is not reported is not known");

    let old = "UPDATE node_status SET reported_at = now() - interval '46 seconds', last_seen_at = now() WHERE node_id = $1";
    sqlx::query(old).bind(two.id()).execute(&mut admin.sql).await.unwrap();
    assert_eq!(eras(&found(&person, &github).await), [(names[0].as_str(), Era::Both)], "a node that is silent does not count");
    sqlx::query("UPDATE organizations SET pool = 'edge' WHERE id = $1").bind(acme).execute(&mut admin.sql).await.unwrap();
    assert_eq!(found(&person, &github).await, [], "what the old pool's nodes told is void");
}

#[tokio::test]
async fn what_was_found_out_goes_with_its_server_and_with_its_node_and_nobody_else_sets_it() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let (github, search) = (server(&person, "github").await, server(&person, "search").await);
    let node = Joined::to(&admin.running, "default").await;
    let both = [&github, &search].map(|server| told(server, Transport::HttpSse, Era::Legacy));
    report(&node, both.to_vec()).await;

    let forged = vec![FoundOut { node: "nodes/x".into(), ..Default::default() }];
    let given = Server { found_out: forged, display_name: "new".into(), ..github.clone() };
    let named = UpdateServerRequest { server: Some(given.clone()), update_mask: mask(&["found_out"]), ..Default::default() };
    refused("named", person.servers().update_server(named).await, Code::InvalidArgument, &["update_mask"]);
    let update = UpdateServerRequest { server: Some(given), ..Default::default() };
    let updated = person.servers().update_server(update).await.unwrap().into_inner();
    assert_eq!((updated.display_name.as_str(), updated.found_out.len()), ("new", 1));
    assert_eq!(updated.found_out[0].node, format!("nodes/{}", node.id()));

    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let ask = GetServerRequest { name: github.name.clone() };
    refused("a stranger", stranger.servers().get_server(ask).await, Code::NotFound, &[]);

    let rows = "SELECT count(*) FROM found_servers";
    sqlx::query("DELETE FROM mcp_servers WHERE slug = 'search' AND org_id = $1")
        .bind(acme)
        .execute(&mut admin.sql)
        .await
        .unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(rows).fetch_one(&mut admin.sql).await.unwrap(), 1);
    sqlx::query("DELETE FROM nodes WHERE id = $1").bind(node.id()).execute(&mut admin.sql).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(rows).fetch_one(&mut admin.sql).await.unwrap(), 0);
}
