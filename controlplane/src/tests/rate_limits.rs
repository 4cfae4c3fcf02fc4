//! RateLimitService over gRPC, on a real database.

use mcp_gateway::{
    proto::{
        admin::v1::{
            CreateRateLimitRequest, CreateServerRequest, DeleteRateLimitRequest, DeleteServerRequest, GetRateLimitRequest,
            ListPoliciesRequest, ListRateLimitsRequest, RateLimit, Role, RollbackConfigRequest, Server, UpdateRateLimitRequest,
        },
        config::v1::{Endpoint, LimitAway, LimitCost, LimitPer, LimitWindow, Match, OrgBundle, Subjects},
    },
    type_url,
};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::admin::{Admin, CANARY, Person, email, mask, refused};

const ACME: &str = "organizations/acme";

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn window(limit: u64, seconds: u32) -> LimitWindow {
    LimitWindow { limit, seconds }
}

fn searches() -> RateLimit {
    RateLimit {
        per: vec![LimitPer::User.into(), LimitPer::Endpoint.into()],
        subjects: Some(Subjects { roles: strings(&["engineer"]), ..Default::default() }),
        servers: strings(&["github"]),
        r#match: Some(Match { tools: strings(&["search_*", "export"]), ..Default::default() }),
        windows: vec![window(100, 60), window(1000, 3600)],
        max_concurrent: 4,
        costs: vec![LimitCost { tools: "export".into(), cost: 10 }],
        ..Default::default()
    }
}

fn create(id: &str, limit: RateLimit) -> CreateRateLimitRequest {
    CreateRateLimitRequest { parent: ACME.into(), rate_limit_id: id.into(), rate_limit: Some(limit), ..Default::default() }
}

fn update(limit: RateLimit, paths: &[&str]) -> UpdateRateLimitRequest {
    UpdateRateLimitRequest { rate_limit: Some(limit), update_mask: mask(paths), ..Default::default() }
}

async fn created(person: &Person, id: &str) -> RateLimit {
    person.rate_limits().create_rate_limit(create(id, searches())).await.unwrap().into_inner()
}

async fn server(person: &Person, id: &str) -> Server {
    let endpoints = vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 1 }];
    let server = Some(Server { endpoints, ..Default::default() });
    let request = CreateServerRequest { parent: ACME.into(), server_id: id.into(), server, ..Default::default() };
    person.servers().create_server(request).await.unwrap().into_inner()
}

/// What nodes of the pool `default` get of limits, once it is published up to `version`.
async fn published(admin: &Admin, version: u64) -> Vec<mcp_gateway::proto::config::v1::RateLimit> {
    admin.running.core.publications.wake();
    let mut watch = admin.running.core.publications.watch();
    let arrived = watch.wait_for(|now| now.as_ref().is_some_and(|now| now.head.version.version >= version));
    let now = tokio::time::timeout(std::time::Duration::from_secs(60), arrived).await.expect("it is published").unwrap();
    let bundles = &now.as_ref().unwrap().scopes["default"].types[type_url::ORG_BUNDLE];
    bundles.values().flat_map(|encoded| OrgBundle::decode(encoded.body.clone()).unwrap().limits).collect()
}

#[tokio::test]
async fn a_limit_is_created_read_changed_and_deleted_each_change_with_its_version() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let before = admin.version().await;

    let made = created(&person, "searches").await;
    let expected = RateLimit {
        name: "organizations/acme/rateLimits/searches".into(),
        when_away: LimitAway::Share.into(),
        uid: made.uid.clone(),
        etag: made.etag.clone(),
        create_time: made.create_time,
        update_time: made.create_time,
        config_version: before + 1,
        ..searches()
    };
    assert_eq!(made, expected);
    let read = person.rate_limits().get_rate_limit(GetRateLimitRequest { name: made.name.clone() }).await.unwrap().into_inner();
    assert_eq!(read, made);
    let (actor, action, resource, version, detail) = admin.newest_audit().await;
    assert_eq!((actor, action, resource), (email(person.user), "rate_limit.create".into(), made.name.clone()));
    assert_eq!((version.unsigned_abs(), &detail["rule"]["windows"][0]["limit"]), (before + 1, &serde_json::json!(100)));
    let sent = published(&admin, made.config_version).await;
    assert_eq!((sent.len(), &sent[0].id, sent[0].name.as_str()), (1, &made.uid, "searches"));
    assert_eq!((&sent[0].windows, &sent[0].costs, sent[0].max_concurrent), (&made.windows, &made.costs, 4));

    let wider = RateLimit { name: made.name.clone(), windows: vec![window(200, 60)], ..Default::default() };
    let changed = person.rate_limits().update_rate_limit(update(wider, &["windows"])).await.unwrap().into_inner();
    assert_eq!((&changed.windows, changed.config_version), (&vec![window(200, 60)], before + 2));
    assert_eq!((&changed.uid, &changed.r#match, &changed.costs), (&made.uid, &made.r#match, &made.costs));
    assert_eq!(published(&admin, changed.config_version).await[0].windows, [window(200, 60)]);

    let delete = DeleteRateLimitRequest { name: made.name.clone(), ..Default::default() };
    let gone = person.rate_limits().delete_rate_limit(delete).await.unwrap().into_inner();
    assert_eq!((gone.config_version, admin.version().await), (before + 3, before + 3));
    refused("deleted", person.rate_limits().get_rate_limit(GetRateLimitRequest { name: made.name }).await, Code::NotFound, &[]);
    assert_eq!(published(&admin, gone.config_version).await, []);
}

#[tokio::test]
async fn a_bad_limit_is_refused_by_field_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    created(&person, "taken").await;
    let windows = |windows: &[(u64, u32)]| RateLimit {
        windows: windows.iter().map(|(limit, seconds)| window(*limit, *seconds)).collect(),
        ..searches()
    };
    let tools = |tools: &[&str]| RateLimit { r#match: Some(Match { tools: strings(tools), ..Default::default() }), ..searches() };
    let cost = |tools: &str, cost| RateLimit { costs: vec![LimitCost { tools: tools.into(), cost }], ..searches() };
    let users =
        |users: &[&str]| RateLimit { subjects: Some(Subjects { users: strings(users), ..Default::default() }), ..searches() };
    let nothing = RateLimit { max_concurrent: 0, costs: vec![], ..windows(&[]) };
    let many = vec![LimitCost { tools: "a".into(), cost: 1 }; 65];
    let large = Match { resources: vec!["x".repeat(1000); 100], ..Default::default() };
    let per = |per: &[i32]| RateLimit { per: per.to_vec(), ..searches() };
    let cases: Vec<(&str, RateLimit, Vec<&str>)> = vec![
        ("neither window nor cap", nothing, vec!["rate_limit.windows"]),
        ("five windows", windows(&[(10, 1), (20, 2), (30, 3), (40, 4), (50, 5)]), vec!["rate_limit.windows"]),
        ("nothing fits", windows(&[(0, 1)]), vec!["rate_limit.windows[0].limit", "rate_limit.costs[0].cost"]),
        ("no time", windows(&[(10, 0)]), vec!["rate_limit.windows[0].seconds"]),
        ("31 days", windows(&[(10, 60), (10, 2_678_400)]), vec!["rate_limit.windows[1].seconds"]),
        ("one length twice", windows(&[(10, 60), (20, 60)]), vec!["rate_limit.windows[1].seconds"]),
        ("per what", per(&[0]), vec!["rate_limit.per[0]"]),
        ("per user twice", per(&[1, 1]), vec!["rate_limit.per[1]"]),
        ("per something new", per(&[77]), vec!["rate_limit.per[0]"]),
        ("per endpoint of everything", RateLimit { r#match: None, ..searches() }, vec!["rate_limit.match"]),
        ("unknown behaviour", RateLimit { when_away: 77, ..searches() }, vec!["rate_limit.when_away"]),
        ("no such server", RateLimit { servers: strings(&["gone"]), ..searches() }, vec!["rate_limit.servers[0]"]),
        ("an empty user", users(&[""]), vec!["rate_limit.subjects.users[0]"]),
        ("a zero byte", tools(&[&format!("{CANARY}\0")]), vec!["rate_limit.match.tools[0]"]),
        ("many stars", tools(&["*a*a*a*a*a*a*a*a*"]), vec!["rate_limit.match.tools[0]"]),
        ("costs nothing", cost("a", 0), vec!["rate_limit.costs[0].cost"]),
        ("never fits", cost("a", 101), vec!["rate_limit.costs[0].cost"]),
        ("a cost of no tool", cost("", 1), vec!["rate_limit.costs[0].tools"]),
        ("65 costs", RateLimit { costs: many, ..searches() }, vec!["rate_limit.costs"]),
        ("a large limit", RateLimit { r#match: Some(large), ..searches() }, vec!["rate_limit"]),
        ("long name", RateLimit { display_name: "x".repeat(201), ..searches() }, vec!["rate_limit.display_name"]),
    ];
    let before = admin.state().await;
    for (case, limit, fields) in cases {
        refused(case, person.rate_limits().create_rate_limit(create("new", limit)).await, Code::InvalidArgument, &fields);
    }
    let none = CreateRateLimitRequest { rate_limit: None, ..create("new", searches()) };
    for (case, request, code, fields) in [
        ("taken", create("taken", searches()), Code::AlreadyExists, vec![]),
        ("bad id", create("-a", searches()), Code::InvalidArgument, vec!["rate_limit_id"]),
        ("no limit", none, Code::InvalidArgument, vec!["rate_limit"]),
    ] {
        refused(case, person.rate_limits().create_rate_limit(request).await, code, &fields);
    }
    let now = person.rate_limits().get_rate_limit(GetRateLimitRequest { name: format!("{ACME}/rateLimits/taken") }).await;
    let now = now.unwrap().into_inner();
    let absent = RateLimit { name: format!("{ACME}/rateLimits/no"), ..now.clone() };
    for (case, limit, path, code, fields) in [
        ("stale etag", RateLimit { etag: "AAAA".into(), ..now.clone() }, "windows", Code::Aborted, vec![]),
        ("unknown field", now.clone(), "match.tools", Code::InvalidArgument, vec!["update_mask"]),
        ("output only", now.clone(), "uid", Code::InvalidArgument, vec!["update_mask"]),
        ("clearing", RateLimit { r#match: None, ..now.clone() }, "match", Code::InvalidArgument, vec!["rate_limit.match"]),
        ("no such limit", absent, "windows", Code::NotFound, vec![]),
    ] {
        refused(case, person.rate_limits().update_rate_limit(update(limit, &[path])).await, code, &fields);
    }
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn only_checks_are_run_and_repeated_requests_are_answered_as_before() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let request = CreateRateLimitRequest { request_id: Uuid::now_v7().to_string(), ..create("searches", searches()) };
    let made = person.rate_limits().create_rate_limit(request.clone()).await.unwrap().into_inner();
    let before = admin.state().await;
    assert_eq!(person.rate_limits().create_rate_limit(request).await.unwrap().into_inner(), made);
    let dry = CreateRateLimitRequest { validate_only: true, ..create("new", searches()) };
    assert_eq!(person.rate_limits().create_rate_limit(dry).await.unwrap().into_inner().config_version, 0);
    let dry = RateLimit { servers: strings(&["gone"]), ..made.clone() };
    let dry = UpdateRateLimitRequest { validate_only: true, ..update(dry, &["servers"]) };
    refused("a dry change", person.rate_limits().update_rate_limit(dry).await, Code::InvalidArgument, &["rate_limit.servers[0]"]);
    let dry = DeleteRateLimitRequest { name: made.name, validate_only: true, ..Default::default() };
    person.rate_limits().delete_rate_limit(dry).await.unwrap();
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_server_that_a_limit_names_stays_until_the_limit_is_gone() {
    let (_admin, _, person) = Admin::with_acme().await;
    let github = server(&person, "github").await;
    created(&person, "b").await;
    let everywhere = RateLimit { servers: vec![], ..searches() };
    person.rate_limits().create_rate_limit(create("a", everywhere)).await.unwrap();
    let delete = || DeleteServerRequest { name: github.name.clone(), ..Default::default() };
    let status = person.servers().delete_server(delete()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let violations = status.get_details_precondition_failure().unwrap().violations;
    let named: Vec<&str> = violations.iter().map(|violation| violation.subject.as_str()).collect();
    assert_eq!(named, ["organizations/acme/rateLimits/b"]);
    let name = named[0].to_owned();
    person.rate_limits().delete_rate_limit(DeleteRateLimitRequest { name, ..Default::default() }).await.unwrap();
    person.servers().delete_server(delete()).await.unwrap();
}

#[tokio::test]
async fn of_two_changes_with_one_etag_exactly_one_wins() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let made = created(&person, "searches").await;
    let version = admin.version().await;
    let change = |cap: u32| {
        let (person, limit) = (person.clone(), RateLimit { max_concurrent: cap, ..made.clone() });
        tokio::spawn(async move { person.rate_limits().update_rate_limit(update(limit, &["max_concurrent"])).await })
    };
    let changes: Vec<_> = (10..18).map(change).collect();
    let mut won = 0;
    for change in changes {
        match change.await.unwrap() {
            Ok(_) => won += 1,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
        }
    }
    assert_eq!((won, admin.version().await), (1, version + 1));
}

#[tokio::test]
async fn a_rollback_brings_limits_back_under_the_ids_that_counts_are_kept_by() {
    let (mut admin, _, person) = Admin::with_acme().await;
    for id in ["github", "other", "third"] {
        server(&person, id).await;
    }
    let made = created(&person, "searches").await;
    let wider = RateLimit { windows: vec![window(7, 7)], costs: vec![], etag: String::new(), ..made.clone() };
    person.rate_limits().update_rate_limit(update(wider, &["windows", "costs"])).await.unwrap();
    let delete = DeleteRateLimitRequest { name: made.name.clone(), ..Default::default() };
    person.rate_limits().delete_rate_limit(delete).await.unwrap();
    let later = created(&person, "searches").await; // another one of that name
    assert_ne!(later.uid, made.uid);
    let back =
        RollbackConfigRequest { organization: ACME.into(), version: made.config_version, ..RollbackConfigRequest::default() };
    let done = person.config_versions().rollback_config(back).await.unwrap().into_inner();
    let found = person.rate_limits().get_rate_limit(GetRateLimitRequest { name: made.name.clone() }).await.unwrap().into_inner();
    assert_eq!((&found.uid, &found.windows, &found.costs), (&made.uid, &made.windows, &made.costs));
    assert_eq!(done.config_version, admin.version().await);
    let diff = done.diff.unwrap();
    let kinds: Vec<&str> = diff.resources.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, ["rate_limit"]);
}

#[tokio::test]
async fn a_list_is_paged_and_does_not_take_the_token_of_another() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    for id in ["c", "b", "a"] {
        created(&person, id).await;
    }
    let list = |page_token: String| ListRateLimitsRequest { parent: ACME.into(), page_size: 2, page_token };
    let first = person.rate_limits().list_rate_limits(list(String::new())).await.unwrap().into_inner();
    let token = first.next_page_token.clone();
    let second = person.rate_limits().list_rate_limits(list(token.clone())).await.unwrap().into_inner();
    let names: Vec<_> =
        first.rate_limits.iter().chain(&second.rate_limits).map(|limit| limit.name.rsplit('/').next().unwrap()).collect();
    assert_eq!((names, second.next_page_token.as_str()), (vec!["a", "b", "c"], ""));
    let policies = ListPoliciesRequest { parent: ACME.into(), page_size: 1, page_token: token };
    refused("another list", person.policies().list_policies(policies).await, Code::InvalidArgument, &["page_token"]);

    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    refused("a stranger", stranger.rate_limits().list_rate_limits(list(String::new())).await, Code::NotFound, &[]);
    let name = first.rate_limits[0].name.clone();
    let get = GetRateLimitRequest { name: name.clone() };
    refused("a stranger", stranger.rate_limits().get_rate_limit(get).await, Code::NotFound, &[]);
    let delete = DeleteRateLimitRequest { name, ..Default::default() };
    refused("a stranger", stranger.rate_limits().delete_rate_limit(delete).await, Code::NotFound, &[]);
}
