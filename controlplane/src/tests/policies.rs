//! PolicyService, over gRPC, on a real database; and what holds between policies and servers.

use mcp_gateway::proto::{
    admin::v1::{
        CreatePolicyRequest, CreateServerRequest, DeletePolicyRequest, DeleteServerRequest, GetPolicyRequest,
        ListPoliciesRequest, ListServersRequest, Policy, Server, UpdatePolicyRequest,
    },
    config::v1::{Effect, Endpoint, Match, Mode, Subjects},
};
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::admin::{Admin, CANARY, Person, email, mask, refused};
use crate::store;

const ACME: &str = "organizations/acme";

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn policy() -> Policy {
    Policy {
        effect: Effect::Allow.into(),
        subjects: Some(Subjects { roles: strings(&["engineer"]), ..Default::default() }),
        servers: strings(&["github"]),
        r#match: Some(Match { tools: strings(&["search_*", "get_issue"]), ..Default::default() }),
        ..Default::default()
    }
}

fn create(id: &str, policy: Policy) -> CreatePolicyRequest {
    CreatePolicyRequest { parent: ACME.into(), policy_id: id.into(), policy: Some(policy), ..Default::default() }
}

fn update(policy: Policy, paths: &[&str]) -> UpdatePolicyRequest {
    UpdatePolicyRequest { policy: Some(policy), update_mask: mask(paths), ..Default::default() }
}

async fn created(person: &Person, id: &str) -> Policy {
    person.policies().create_policy(create(id, policy())).await.unwrap().into_inner()
}

async fn server(person: &Person, id: &str) -> Server {
    let endpoints = vec![Endpoint { url: "http://127.0.0.1:9/mcp".into(), weight: 1 }];
    let server = Some(Server { endpoints, ..Default::default() });
    let request = CreateServerRequest { parent: ACME.into(), server_id: id.into(), server, ..Default::default() };
    person.servers().create_server(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_policy_is_created_read_changed_and_deleted_each_change_with_its_version() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let before = admin.version().await;

    let made = created(&person, "engineers").await;
    let expected = Policy {
        name: "organizations/acme/policies/engineers".into(),
        mode: Mode::Enforce.into(),
        uid: made.uid.clone(),
        etag: made.etag.clone(),
        create_time: made.create_time,
        update_time: made.create_time,
        config_version: before + 1,
        ..policy()
    };
    assert_eq!(made, expected);
    assert_eq!(Uuid::parse_str(&made.uid).unwrap().get_version_num(), 7);
    let read = person.policies().get_policy(GetPolicyRequest { name: made.name.clone() }).await.unwrap().into_inner();
    assert_eq!(read, made);
    let (actor, action, resource, version, detail) = admin.newest_audit().await;
    assert_eq!((actor, action, resource), (email(person.user), "policy.create".into(), made.name.clone()));
    assert_eq!((version.unsigned_abs(), &detail["rule"]["servers"]), (before + 1, &serde_json::json!(["github"])));

    let change = Policy { name: made.name.clone(), etag: made.etag.clone(), mode: Mode::Shadow.into(), ..Default::default() };
    let changed = person.policies().update_policy(update(change, &["mode"])).await.unwrap().into_inner();
    assert_eq!((changed.mode(), changed.config_version), (Mode::Shadow, before + 2));
    assert_eq!((&changed.servers, &changed.r#match, &changed.subjects), (&made.servers, &made.r#match, &made.subjects));
    let change = Policy { display_name: "Engineers".into(), ..changed.clone() };
    let whole = person.policies().update_policy(update(change.clone(), &["*"])).await.unwrap().into_inner();
    assert_eq!(Policy { etag: changed.etag, update_time: changed.update_time, config_version: before + 2, ..whole }, change);

    let delete = DeletePolicyRequest { name: made.name.clone(), ..Default::default() };
    let gone = person.policies().delete_policy(delete).await.unwrap().into_inner();
    assert_eq!((gone.config_version, admin.version().await), (before + 4, before + 4));
    let answer = person.policies().get_policy(GetPolicyRequest { name: made.name }).await;
    refused("deleted", answer, Code::NotFound, &[]);
}

#[tokio::test]
async fn a_bad_policy_is_refused_by_field_and_changes_nothing() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    created(&person, "taken").await;
    let matching = |matching: Match| Policy { r#match: Some(matching), ..policy() };
    let tools = |tools: &[&str]| matching(Match { tools: strings(tools), ..Default::default() });
    let methods = |effect: Effect, methods: &[&str]| Policy {
        effect: effect.into(),
        ..matching(Match { methods: strings(methods), ..Default::default() })
    };
    let subjects = |subjects| Policy { subjects: Some(subjects), ..policy() };
    let servers = |names: &[&str]| Policy { servers: strings(names), ..policy() };
    let large = vec!["x".repeat(1000); 100];
    let cases: Vec<(&str, Policy, Vec<&str>)> = vec![
        ("no effect", Policy { effect: 0, ..policy() }, vec!["policy.effect"]),
        ("unknown effect", Policy { effect: 77, ..policy() }, vec!["policy.effect"]),
        ("unknown mode", Policy { mode: 77, ..policy() }, vec!["policy.mode"]),
        ("no subjects", Policy { subjects: None, ..policy() }, vec!["policy.subjects"]),
        ("empty subjects", subjects(Subjects::default()), vec!["policy.subjects"]),
        ("empty role", subjects(Subjects { roles: strings(&["a", ""]), ..Default::default() }), vec!["policy.subjects.roles[1]"]),
        ("zero byte", subjects(Subjects { users: strings(&["a\0"]), ..Default::default() }), vec!["policy.subjects.users[0]"]),
        (
            "501 groups",
            subjects(Subjects { groups: vec!["g".into(); 501], ..Default::default() }),
            vec!["policy.subjects.groups"],
        ),
        ("no servers", servers(&[]), vec!["policy.servers"]),
        ("a server that does not exist", servers(&["gone"]), vec!["policy.servers[0]"]),
        ("the second does not exist", servers(&["github", "gone", "*"]), vec!["policy.servers[1]"]),
        ("no match", Policy { r#match: None, ..policy() }, vec!["policy.match"]),
        ("empty match", matching(Match::default()), vec!["policy.match"]),
        ("empty pattern", tools(&["a", ""]), vec!["policy.match.tools[1]"]),
        ("many stars", tools(&["*a*a*a*a*a*a*a*a*"]), vec!["policy.match.tools[0]"]),
        ("long pattern", tools(&[&"x".repeat(1025)]), vec!["policy.match.tools[0]"]),
        ("zero byte in a pattern", tools(&["a\0"]), vec!["policy.match.tools[0]"]),
        ("methods on allow", methods(Effect::Allow, &["sampling/createMessage"]), vec!["policy.match.methods"]),
        ("a star in a method", methods(Effect::Deny, &["sampling/*"]), vec!["policy.match.methods[0]"]),
        ("a condition", Policy { when: format!("args.x == '{CANARY}'"), ..policy() }, vec!["policy.when"]),
        ("a large rule", matching(Match { resources: large, ..Default::default() }), vec!["policy"]),
        ("long display name", Policy { display_name: "x".repeat(201), ..policy() }, vec!["policy.display_name"]),
        (
            "two at once",
            Policy { servers: strings(&["gone"]), ..tools(&[""]) },
            vec!["policy.servers[0]", "policy.match.tools[0]"],
        ),
    ];
    let before = admin.state().await;
    for (case, policy, fields) in cases {
        let answer = person.policies().create_policy(create("new", policy)).await;
        refused(case, answer, Code::InvalidArgument, &fields);
    }
    let none = CreatePolicyRequest { policy: None, ..create("new", policy()) };
    for (case, request, code, fields) in [
        ("taken", create("taken", policy()), Code::AlreadyExists, vec![]),
        ("bad id", create("-a", policy()), Code::InvalidArgument, vec!["policy_id"]),
        ("no policy", none, Code::InvalidArgument, vec!["policy"]),
    ] {
        refused(case, person.policies().create_policy(request).await, code, &fields);
    }
    let now = person.policies().get_policy(GetPolicyRequest { name: "organizations/acme/policies/taken".into() }).await;
    let now = now.unwrap().into_inner();
    for (case, policy, paths, code, fields) in [
        ("stale etag", Policy { etag: "AAAA".into(), ..now.clone() }, vec!["mode"], Code::Aborted, vec![]),
        ("unknown field", now.clone(), vec!["mode", "match.tools"], Code::InvalidArgument, vec!["update_mask"]),
        ("output only", now.clone(), vec!["uid"], Code::InvalidArgument, vec!["update_mask"]),
        (
            "clearing the match",
            Policy { r#match: None, ..now.clone() },
            vec!["match"],
            Code::InvalidArgument,
            vec!["policy.match"],
        ),
        ("a condition", Policy { when: "true".into(), ..now.clone() }, vec!["when"], Code::InvalidArgument, vec!["policy.when"]),
        ("no such policy", Policy { name: format!("{ACME}/policies/no"), ..now.clone() }, vec!["mode"], Code::NotFound, vec![]),
    ] {
        refused(case, person.policies().update_policy(update(policy, &paths)).await, code, &fields);
    }
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn only_checks_are_run_and_repeated_requests_are_answered_as_before() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let request = CreatePolicyRequest { request_id: Uuid::now_v7().to_string(), ..create("engineers", policy()) };
    let made = person.policies().create_policy(request.clone()).await.unwrap().into_inner();
    let before = admin.state().await;
    assert_eq!(person.policies().create_policy(request).await.unwrap().into_inner(), made);
    let dry = CreatePolicyRequest { validate_only: true, ..create("new", policy()) };
    assert_eq!(person.policies().create_policy(dry).await.unwrap().into_inner().config_version, 0);
    let dry = UpdatePolicyRequest {
        validate_only: true,
        ..update(Policy { servers: strings(&["gone"]), ..made.clone() }, &["servers"])
    };
    refused("a dry change", person.policies().update_policy(dry).await, Code::InvalidArgument, &["policy.servers[0]"]);
    let dry = DeletePolicyRequest { name: made.name, validate_only: true, ..Default::default() };
    person.policies().delete_policy(dry).await.unwrap();
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_server_that_a_policy_names_stays_until_the_policy_is_gone() {
    let (mut admin, _, person) = Admin::with_acme().await;
    let github = server(&person, "github").await;
    let other = server(&person, "other").await;
    created(&person, "b").await;
    created(&person, "a").await;
    let all = Policy { servers: strings(&["*"]), ..policy() };
    person.policies().create_policy(create("everything", all)).await.unwrap();
    let before = admin.state().await;
    let delete = |name: &str| DeleteServerRequest { name: name.into(), ..Default::default() };
    let status = person.servers().delete_server(delete(&github.name)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let named: Vec<String> =
        status.get_details_precondition_failure().unwrap().violations.into_iter().map(|v| v.subject).collect();
    assert_eq!(named, ["organizations/acme/policies/a", "organizations/acme/policies/b"]);
    assert_eq!(admin.state().await, before);
    person.servers().delete_server(delete(&other.name)).await.unwrap();
    for name in named {
        person.policies().delete_policy(DeletePolicyRequest { name, ..Default::default() }).await.unwrap();
    }
    person.servers().delete_server(delete(&github.name)).await.unwrap();
}

#[tokio::test]
async fn a_server_deleted_while_a_policy_begins_to_name_it_leaves_no_dangling_name() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    for round in 0..5 {
        let slug = format!("s{round}");
        let made = server(&person, &slug).await;
        let naming = Policy { servers: vec![slug], ..policy() };
        let delete = {
            let person = person.clone();
            tokio::spawn(async move {
                person.servers().delete_server(DeleteServerRequest { name: made.name, ..Default::default() }).await
            })
        };
        let named = person.policies().create_policy(create(&format!("p{round}"), naming)).await;
        let deleted = delete.await.unwrap();
        assert!(named.is_ok() != deleted.is_ok(), "{named:?} {deleted:?}");
        let rows = store::orgs::rows(&mut admin.sql, acme).await.unwrap().unwrap();
        assert_eq!(crate::domain::bundle::problems(&rows), []);
    }
}

#[tokio::test]
async fn of_two_changes_with_one_etag_exactly_one_wins() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    let made = created(&person, "engineers").await;
    let version = admin.version().await;
    let change = |text: &str| {
        let (person, policy) = (person.clone(), Policy { display_name: text.into(), ..made.clone() });
        tokio::spawn(async move { person.policies().update_policy(update(policy, &["display_name"])).await })
    };
    let changes: Vec<_> = (0..8).map(|n| change(&n.to_string())).collect();
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
async fn a_list_is_paged_and_does_not_take_the_token_of_the_servers() {
    let (mut admin, _, person) = Admin::with_acme().await;
    server(&person, "github").await;
    server(&person, "other").await;
    for id in ["c", "b", "a"] {
        created(&person, id).await;
    }
    let list = |page_token: String| ListPoliciesRequest { parent: ACME.into(), page_size: 2, page_token };
    let first = person.policies().list_policies(list(String::new())).await.unwrap().into_inner();
    let second = person.policies().list_policies(list(first.next_page_token)).await.unwrap().into_inner();
    let names: Vec<_> =
        first.policies.iter().chain(&second.policies).map(|policy| policy.name.rsplit('/').next().unwrap()).collect();
    assert_eq!((names, second.next_page_token.as_str()), (vec!["a", "b", "c"], ""));
    let servers = ListServersRequest { parent: ACME.into(), page_size: 1, ..Default::default() };
    let token = person.servers().list_servers(servers).await.unwrap().into_inner().next_page_token;
    refused("another list", person.policies().list_policies(list(token)).await, Code::InvalidArgument, &["page_token"]);

    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, mcp_gateway::proto::admin::v1::Role::Owner).await;
    refused("a stranger", stranger.policies().list_policies(list(String::new())).await, Code::NotFound, &[]);
    let name = first.policies[0].name.clone();
    refused("a stranger", stranger.policies().get_policy(GetPolicyRequest { name: name.clone() }).await, Code::NotFound, &[]);
    let delete = DeletePolicyRequest { name, ..Default::default() };
    refused("a stranger", stranger.policies().delete_policy(delete).await, Code::NotFound, &[]);
}
