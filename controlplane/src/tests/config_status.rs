//! Where the configuration has arrived: once and watched, for platform administrators and for members.

use std::time::{SystemTime, UNIX_EPOCH};

use mcp_gateway::{
    proto::{
        admin::v1::{
            ConfigStatus, GetConfigStatusRequest, NodeCounts, NodeState, PoolStatus, Role, WatchConfigStatusRequest,
            config_status_service_client::ConfigStatusServiceClient,
        },
        google::rpc::Status as Refusal,
    },
    type_url::MANIFEST,
};
use tonic::{Code, Status, Streaming};

use super::{
    admin::{Admin, Person, refused},
    fleet::{connected, refusal},
};
use crate::{
    keys::token::ADMIN_AUDIENCE,
    nodes::client::{add_org, published, row_where},
    testing::Client,
};

async fn get(client: Client, pool: &str) -> Result<ConfigStatus, Status> {
    let request = GetConfigStatusRequest { pool: pool.into() };
    Ok(ConfigStatusServiceClient::new(client).get_config_status(request).await?.into_inner())
}

async fn watch(client: Client, pool: &str) -> Streaming<ConfigStatus> {
    let request = WatchConfigStatusRequest { pool: pool.into() };
    ConfigStatusServiceClient::new(client).watch_config_status(request).await.unwrap().into_inner()
}

/// The next status that fits.
async fn until(watched: &mut Streaming<ConfigStatus>, fits: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    loop {
        let status = watched.message().await.unwrap().expect("the watch goes on");
        if let Some(pool) = status.pools.into_iter().find(&fits) {
            return pool;
        }
    }
}

fn names(status: &ConfigStatus) -> Vec<&str> {
    status.pools.iter().map(|pool| pool.pool.as_str()).collect()
}

/// Lets another pool serve the person's organisation.
async fn pool_of(admin: &mut Admin, person: &Person, pool: &str) {
    let query = "UPDATE organizations SET pool = $1 FROM memberships m WHERE m.org_id = id AND m.user_id = $2";
    sqlx::query(query).bind(pool).bind(person.user).execute(&mut admin.sql).await.unwrap();
}

#[tokio::test]
async fn the_status_names_what_a_pool_should_run_and_who_does_not() {
    let mut admin = Admin::start().await;
    let person = admin.platform_admin().await;
    let version = add_org(&admin.running, 1).await;
    published(&admin.running).await;
    let (_joined, _stream) = connected(&admin, "default").await;
    let (away, gone) = connected(&admin, "edge").await;
    drop(gone);
    row_where(&admin.running, away.id(), |row| !row.connected).await;
    let status = get(person.client(), "").await.unwrap();
    assert_eq!(names(&status), ["default", "edge"]);
    assert_eq!((status.version, status.published_version, status.epoch), (version, version, 1));
    assert!(!status.replica.is_empty() && status.commit_time.is_some());
    let pool = &status.pools[0];
    assert_eq!(pool.counts, Some(NodeCounts { current: 1, ..Default::default() }));
    assert_eq!((pool.version, pool.digest.len(), pool.nodes.len()), (version, 64, 0));
    assert!(pool.resource_count > 0 && pool.size_bytes > 0 && pool.behind_since_time.is_none());
    let edge = &get(person.client(), "edge").await.unwrap().pools[0];
    assert_eq!(edge.counts, Some(NodeCounts { disconnected: 1, ..Default::default() }));
    assert_eq!(edge.nodes[0].state(), NodeState::Disconnected);
    refused("pool", get(person.client(), "nowhere").await, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_watch_sees_a_change_go_out_be_refused_and_be_applied_in_part() {
    let (mut admin, acme, member) = Admin::with_acme().await;
    let person = admin.platform_admin().await;
    published(&admin.running).await;
    let (joined, mut stream) = connected(&admin, "default").await;
    let (mut watched, mut theirs) = (watch(person.client(), "default").await, watch(member.client(), "").await);
    let first = until(&mut watched, |_| true).await;
    assert_eq!(first.counts, Some(NodeCounts { current: 1, ..Default::default() }));

    let version = add_org(&admin.running, 1).await;
    let behind = until(&mut watched, |pool| pool.version == version).await;
    assert_eq!(behind.counts, Some(NodeCounts { behind: 1, ..Default::default() }));
    assert!(behind.behind_since_time.is_some());
    stream.ack().await;
    let manifest = stream.next().await;
    stream.say.send(refusal(&manifest, "server x: bad")).await.unwrap();
    let refused = until(&mut watched, |pool| pool.counts.is_some_and(|counts| counts.refused == 1)).await;
    assert_eq!((refused.nodes[0].uid.clone(), refused.nodes[0].refused_version), (joined.id().to_string(), version));
    assert_eq!(refused.nodes[0].problems, ["server x: bad"]);
    let told = until(&mut theirs, |pool| pool.counts.is_some_and(|counts| counts.refused == 1)).await;
    assert!(!format!("{told:?}").contains("server x"), "{told:?}");

    // The next version is applied but for one organisation, which is not the member's.
    let other = uuid::Uuid::from_u128(1);
    let version = add_org(&admin.running, 2).await;
    stream.ack().await;
    let manifest = stream.next().await;
    let partly = |message: String| {
        let mut answer = refusal(&manifest, "");
        answer.error_detail = Some(Refusal { code: 0, message, ..Default::default() });
        assert_eq!(answer.type_url, MANIFEST);
        answer
    };
    stream.say.send(partly(format!("org/{other}: server y: bad"))).await.unwrap();
    let quarantining = until(&mut watched, |pool| pool.counts.is_some_and(|counts| counts.quarantining == 1)).await;
    assert_eq!(
        (quarantining.version, quarantining.nodes[0].problems.as_slice()),
        (version, &["organizations/org1: server y: bad".to_owned()][..])
    );
    let told = until(&mut theirs, |pool| pool.version == version && pool.counts.is_some_and(|counts| counts.behind == 0)).await;
    assert_eq!(
        (told.counts, told.nodes.len()),
        (Some(NodeCounts { current: 1, ..Default::default() }), 0),
        "{acme} has no problem"
    );
    assert_numbers(&admin, version).await;
}

/// The metrics page of a control plane whose only node refused a version and quarantines an organisation, with two watchers.
async fn assert_numbers(admin: &Admin, version: u64) {
    let core = &admin.running.core;
    core.overview.sample(core).await;
    let page = core.metrics.text();
    let lines = [
        "pool_nodes{pool=\"default\",state=\"quarantining\"} 1".to_owned(),
        "pool_nodes{pool=\"default\",state=\"current\"} 0".to_owned(),
        format!("pool_version{{pool=\"default\"}} {version}"),
        "pool_behind_seconds{pool=\"default\"} 0.0".to_owned(),
        "pool_held{pool=\"default\"} 0".to_owned(),
        format!("config_head_version {version}"),
        "status_watchers 2".to_owned(),
        "discovery_refused_total{type=\"Manifest\",code=\"invalid_argument\"} 1".to_owned(),
        "discovery_applied_in_part_total 1".to_owned(),
        "discovery_resyncs_total 0".to_owned(),
    ];
    for line in lines {
        assert!(page.contains(&format!("mcpgw_controlplane_{line}\n")), "{line}:\n{page}");
    }
}

#[tokio::test]
async fn members_see_the_pool_that_serves_them() {
    let (mut admin, acme, member) = Admin::with_acme().await;
    let (_default, _one) = connected(&admin, "default").await;
    let (_edge, _two) = connected(&admin, "edge").await;
    assert_eq!(names(&get(member.client(), "").await.unwrap()), ["default"]);
    let mut watched = watch(member.client(), "").await;
    until(&mut watched, |pool| pool.pool == "default").await;
    refused("other pool", get(member.client(), "edge").await, Code::NotFound, &[]);
    refused("no pool", get(member.client(), "nowhere").await, Code::NotFound, &[]);
    pool_of(&mut admin, &member, "edge").await;
    until(&mut watched, |pool| pool.pool == "edge").await;
    assert_eq!(names(&get(member.client(), "edge").await.unwrap()), ["edge"]);
    let plain = admin.member(acme, Role::Member).await;
    assert_eq!(get(plain.client(), "").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_watch_ends_with_the_right_to_watch() {
    let (mut admin, _, member) = Admin::with_acme().await;
    published(&admin.running).await;
    let mut watched = watch(member.client(), "").await;
    until(&mut watched, |_| true).await;
    let demote = "UPDATE memberships SET role = $1 WHERE user_id = $2";
    let role = i16::try_from(i32::from(Role::Member)).unwrap();
    sqlx::query(demote).bind(role).bind(member.user).execute(&mut admin.sql).await.unwrap();
    assert_eq!(watched.message().await.unwrap_err().code(), Code::PermissionDenied);

    let owner = admin.running.owner().await;
    let custody = &admin.running.core.custody;
    let issuer = &admin.running.core.config.issuer;
    let mut claims = custody.check_token(&owner.tokens.access_token, issuer, ADMIN_AUDIENCE).unwrap().unwrap();
    claims.exp = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + 1;
    let mut watched = watch(owner.with_token(&custody.sign_token(&claims).unwrap()), "").await;
    until(&mut watched, |_| true).await;
    assert_eq!(watched.message().await.unwrap_err().code(), Code::Unauthenticated);

    let mut watched = watch(owner, "").await;
    until(&mut watched, |_| true).await;
    admin.running.stop().await.unwrap();
    assert_eq!(watched.message().await.unwrap_err().code(), Code::Unavailable);
}
