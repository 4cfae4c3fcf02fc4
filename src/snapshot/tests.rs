use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use proptest::prelude::*;

use super::fixtures::{ACME, GITHUB, KEY, POLICY, Scope, allow, server};
use super::pattern::Pattern;
use super::*;
use crate::proto::config::v1::{Effect, Match, Mode, Policy, Subjects, TokenIssuer, UpstreamCredential, VerificationKey};
use crate::type_url;

const OTHER_ID: &str = "0190a000-0000-7000-8000-0000000000ff";

fn engineer(roles: &[String]) -> Subject<'_> {
    Subject { subject: "u1", api_key: None, roles, groups: &[], anonymous: false }
}

fn judge<'s>(snapshot: &'s Snapshot, roles: &[&str], ask: Ask<'_>) -> Verdict<'s> {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    let (org, server) = snapshot.server(GITHUB).expect("the fixture has this server");
    org.judge(server, &engineer(&roles), ask)
}

#[test]
fn a_valid_scope_compiles_and_is_found_by_every_key() {
    let snapshot = Scope::new().compile().unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(snapshot.version(), Version { epoch: 1, version: 7 });
    assert_eq!(snapshot.server(GITHUB).map(|(org, _)| &*org.slug), Some("acme"));
    assert_eq!(snapshot.server_by_slug("acme", "github").map(|(_, server)| &*server.id), Some(GITHUB));
    assert_eq!(snapshot.api_key(KEY).map(|key| key.org_id.as_str()), Some(ACME));
    assert_eq!(snapshot.session_keys().current().map(|key| key.key_id.as_str()), Some("s1"));
    assert!(snapshot.server_by_slug("acme", "gitlab").is_none() && snapshot.api_key("nope").is_none());
}

#[test]
fn nothing_matching_is_a_deny_and_a_match_names_its_rule() {
    let snapshot = Scope::new().compile().ok().unwrap();
    let allowed = judge(&snapshot, &["engineer"], Ask::Tool("search_code"));
    assert_eq!((allowed.allowed, allowed.rule.map(|rule| &*rule.id)), (true, Some(POLICY)));
    for (roles, ask) in [
        (&["engineer"][..], Ask::Tool("delete_repo")),
        (&["engineer"][..], Ask::Prompt("search_code")),
        (&["guest"][..], Ask::Tool("search_code")),
        (&["guest"][..], Ask::Something),
        (&[][..], Ask::Tool("get_issue")),
    ] {
        let refused = judge(&snapshot, roles, ask);
        assert!(!refused.allowed && refused.rule.is_none(), "{roles:?} {ask:?}");
    }
    assert!(judge(&snapshot, &["engineer"], Ask::Something).allowed);
    assert!(judge(&snapshot, &["engineer"], Ask::ServerMethod("sampling/createMessage")).allowed);
}

#[test]
fn deny_beats_allow_and_shadow_changes_nothing() {
    let mut scope = Scope::new();
    let deny = Policy { effect: Effect::Deny.into(), ..allow(OTHER_ID, "no-secrets", &["*"], &["search_secrets"]) };
    scope.org.policies.push(deny.clone());
    let snapshot = scope.compile().ok().unwrap();
    let verdict = judge(&snapshot, &["engineer"], Ask::Tool("search_secrets"));
    assert_eq!((verdict.allowed, verdict.rule.map(|rule| &*rule.name)), (false, Some("no-secrets")));

    scope.org.policies[1] = Policy { mode: Mode::Shadow.into(), ..deny };
    let snapshot = scope.compile().ok().unwrap();
    let verdict = judge(&snapshot, &["engineer"], Ask::Tool("search_secrets"));
    assert_eq!((verdict.allowed, verdict.rule.map(|rule| &*rule.name)), (true, Some("engineers")));
    assert_eq!(verdict.shadow.map(|(rule, allows)| (&*rule.name, allows)), Some(("no-secrets", false)));
}

#[test]
fn anonymous_callers_match_only_rules_that_say_so() {
    let mut scope = Scope::new();
    scope.org.policies.push(allow(OTHER_ID, "everyone", &["*"], &["open"]));
    let snapshot = scope.compile().ok().unwrap();
    let (org, server) = snapshot.server(GITHUB).unwrap();
    let nobody = Subject { subject: "anonymous", api_key: None, roles: &[], groups: &[], anonymous: true };
    assert!(!org.judge(server, &nobody, Ask::Tool("open")).allowed, "`*` is every authenticated principal");
    scope.org.policies[1].subjects = Some(Subjects { anonymous: true, ..Subjects::default() });
    let snapshot = scope.compile().ok().unwrap();
    let (org, server) = snapshot.server(GITHUB).unwrap();
    assert!(org.judge(server, &nobody, Ask::Tool("open")).allowed);
}

#[test]
fn the_cost_of_a_decision_does_not_grow_with_rules_that_cannot_match() {
    let mut scope = Scope::new();
    for number in 1000..2000 {
        let id = format!("0190a000-0000-7000-8000-{number:012x}");
        let mut policy = allow(&id, &format!("p{number}"), &["engineer"], &[&format!("tool_{number}")]);
        if number % 2 == 0 {
            policy = allow(&id, &format!("p{number}"), &[&format!("role{number}")], &["*"]);
        }
        scope.org.policies.push(policy);
    }
    let snapshot = scope.compile().ok().unwrap();
    assert_eq!(judge(&snapshot, &["engineer"], Ask::Tool("tool_1501")).evaluated, 1);
    assert_eq!(judge(&snapshot, &["role1500"], Ask::Tool("tool_1501")).evaluated, 1);
}

#[test]
fn an_unchanged_organisation_is_reused_and_a_changed_one_is_not() {
    let mut scope = Scope::new();
    let first = scope.compile().ok().unwrap();
    scope.manifest.version += 1;
    let second = scope.compile_after(Some(&first)).ok().unwrap();
    assert!(Arc::ptr_eq(first.org(ACME).unwrap(), second.org(ACME).unwrap()));
    scope.org.policies.clear();
    let third = scope.compile_after(Some(&second)).ok().unwrap();
    assert!(!Arc::ptr_eq(second.org(ACME).unwrap(), third.org(ACME).unwrap()));
    assert_ne!(second.digest(), third.digest());
}

#[test]
fn a_disabled_server_answers_as_if_it_did_not_exist_and_its_rules_wait() {
    let mut scope = Scope::new();
    scope.org.servers[0].disabled = true;
    let snapshot = scope.compile().ok().unwrap();
    assert!(snapshot.server(GITHUB).is_none() && snapshot.server_by_slug("acme", "github").is_none());
}

type Break = fn(&mut Scope);

/// Every defect is found, named, and says which resource and field.
#[test]
fn each_way_of_being_wrong_has_its_name() {
    let cases: &[(&str, Break)] = &[
        ("pool: expected the manifest's scope \"default\"", |s| s.global.pool = "other".into()),
        ("allowed_origins[0]: \"nonsense\"", |s| s.global.allowed_origins = vec!["nonsense".into()]),
        ("key \"k\": an Ed25519 key has 32 bytes", |s| s.global.issuers = vec![issuer(vec![1])]),
        ("chunks: expected each of 0 to 2", |s| s.org.chunk_count = 2),
        ("organization: expected in chunk 0", |s| s.org.organization = None),
        ("slug: \"Acme!\"", |s| s.org.organization.as_mut().unwrap().slug = "Acme!".into()),
        ("server github: id: \"x\"", |s| s.org.servers[0].id = "x".into()),
        ("server slug: \"github\" is used twice", |s| s.org.servers.push(server(OTHER_ID, "github"))),
        ("server id: ", |s| s.org.servers.push(server(GITHUB, "gitlab"))),
        ("server github: stdio: expected what to start", |s| s.org.servers[0].transport = 4),
        ("server github: transport: 99 is not a value", |s| s.org.servers[0].transport = 99),
        ("server github: era: 9 is not a value", |s| s.org.servers[0].era = 9),
        ("endpoints: at least one", |s| s.org.servers[0].endpoints.clear()),
        ("endpoints[0].url: its scheme", |s| s.org.servers[0].endpoints[0].url = "ftp://h/".into()),
        ("endpoints[0].url: it has user info", |s| s.org.servers[0].endpoints[0].url = "http://u:p@h/".into()),
        ("endpoints[0].url: it has a fragment", |s| s.org.servers[0].endpoints[0].url = "http://h/#f".into()),
        ("max_body_bytes: 67108865", |s| s.org.servers[0].max_body_bytes = (64 << 20) + 1),
        ("credential_id: \"c9\" is not in this snapshot", |s| s.org.servers[0].credential_id = "c9".into()),
        ("policy engineers: servers[0]: server \"gitlab\" is not", |s| s.org.policies[0].servers = vec!["gitlab".into()]),
        ("policy engineers: servers: at least one", |s| s.org.policies[0].servers.clear()),
        ("policy engineers: subjects: at least one", |s| s.org.policies[0].subjects = None),
        ("policy engineers: match: at least one", |s| s.org.policies[0].r#match = None),
        ("match.tools[0]: a pattern cannot be empty", |s| tools(s, "")),
        ("match.tools[0]: a pattern has at most 8 stars", |s| tools(s, "*a*a*a*a*a*a*a*a*a")),
        ("match.methods: only deny rules", |s| s.org.policies[0].r#match.as_mut().unwrap().methods = vec!["sampling/x".into()]),
        ("when: conditions are not served", |s| s.org.policies[0].when = "true".into()),
        ("effect: 0 is not a value", |s| s.org.policies[0].effect = 0),
        ("mode: 7 is not a value", |s| s.org.policies[0].mode = 7),
        ("policy id: ", |s| s.org.policies.push(allow(POLICY, "again", &["x"], &["y"]))),
        ("policy name: \"engineers\" is used twice", |s| s.org.policies.push(allow(OTHER_ID, "engineers", &["x"], &["y"]))),
        ("secret_sha256: 32 bytes", |s| s.shard.keys[0].secret_sha256 = vec![1].into()),
        ("key_id: it belongs to another shard", |s| s.shard.shard = (s.shard.shard + 1) % 256),
        ("subject: a subject is expected", |s| s.shard.keys[0].subject.clear()),
        ("organisation 0190a000-0000-7000-8000-0000000000ff is not", |s| s.shard.keys[0].org_id = OTHER_ID.into()),
        ("session_keys: exactly one current", |s| s.secrets.session_keys[0].current = false),
        ("session key \"s1\": expected 32 bytes", |s| s.secrets.session_keys[0].key = vec![1].into()),
        ("credential \"c1\": value: a header value", |s| {
            s.secrets.credentials = vec![credential("a\nb")];
            s.org.servers[0].credential_id = "c1".into();
        }),
    ];
    for (expected, break_it) in cases {
        let mut scope = Scope::new();
        break_it(&mut scope);
        let texts = match scope.compile() {
            Ok(snapshot) => snapshot.report(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: found {texts:?}");
    }
}

fn tools(scope: &mut Scope, pattern: &str) {
    scope.org.policies[0].r#match = Some(Match { tools: vec![pattern.to_owned()], ..Match::default() });
}

fn issuer(public_key: Vec<u8>) -> TokenIssuer {
    let key = VerificationKey { key_id: "k".into(), algorithm: 1, public_key: public_key.into() };
    TokenIssuer { issuer: "https://i".into(), keys: vec![key], audiences: vec![] }
}

fn credential(value: &str) -> UpstreamCredential {
    UpstreamCredential { id: "c1".into(), header: "authorization".into(), value: value.into() }
}

#[test]
fn undecodable_resources_and_foreign_names_are_named() {
    let scope = Scope::new();
    let mut staged = scope.staged();
    staged.put(type_url::ORG_BUNDLE, "org/x/0", vec![0xff].into()).unwrap();
    let body = staged.body(type_url::ORG_BUNDLE, &format!("org/{ACME}/0")).unwrap().clone();
    staged.put(type_url::ORG_BUNDLE, "org/y/0", body).unwrap();
    let keys = BTreeMap::from([("p1".to_owned(), scope.pool_key.clone())]);
    let snapshot = compile(&scope.manifest, &staged, &keys, None).ok().unwrap();
    let problems = |org: &str| &snapshot.quarantined()[org].problems[..];
    assert!(matches!(problems("x"), [Problem::Undecodable { resource, .. }] if resource == "org/x/0"));
    assert!(matches!(problems("y"), [Problem::NameMismatch { resource, .. }] if resource == "org/y/0"));
    assert!(matches!(staged.put("type.googleapis.com/x.Y", "z", vec![].into()), Err(Problem::UnknownType { .. })));
}

#[test]
fn secrets_need_the_right_pool_key() {
    let scope = Scope::new();
    let without = compile(&scope.manifest, &scope.staged(), &BTreeMap::new(), None).err().unwrap();
    assert!(matches!(&without[..], [Problem::PoolKeyUnknown { .. }]), "{without:?}");
    let wrong = BTreeMap::from([("p1".to_owned(), crate::seal::PoolKey::generate().unwrap())]);
    let unreadable = compile(&scope.manifest, &scope.staged(), &wrong, None).err().unwrap();
    assert!(matches!(&unreadable[..], [Problem::SecretsUnreadable { .. }]), "{unreadable:?}");
}

#[test]
fn a_manifest_is_believed_only_with_a_known_key_and_an_untouched_content() {
    let key = Ed25519KeyPair::generate().unwrap();
    let keys = BTreeMap::from([("m1".to_owned(), key.public_key().as_ref().to_vec())]);
    let mut manifest = Scope::new().manifest;
    sign_manifest(&mut manifest, "m1", &key);
    assert_eq!(verify_manifest(&manifest, &keys), Ok(()));
    let mut forged = manifest.clone();
    forged.version += 1;
    assert!(matches!(verify_manifest(&forged, &keys), Err(ManifestError::Forged { .. })));
    manifest.key_id = "m2".into();
    assert!(matches!(verify_manifest(&manifest, &keys), Err(ManifestError::UnknownKey { .. })));
}

#[test]
fn the_digest_does_not_depend_on_order_and_depends_on_everything_else() {
    let hash = ContentHash::of(b"x");
    let one = digest([("t", "a", hash), ("t", "b", hash)]);
    assert_eq!(one, digest([("t", "b", hash), ("t", "a", hash)]));
    assert_ne!(one, digest([("t", "a", hash)]));
    assert_ne!(one, digest([("t", "a", hash), ("u", "b", hash)]));
    assert_ne!(one, digest([("t", "a", hash), ("t", "b", ContentHash::of(b"y"))]));
}

#[test]
fn patterns_match_as_documented() {
    let table = [
        ("get_issue", "get_issue", true),
        ("get_issue", "get_issues", false),
        ("search_*", "search_", true),
        ("search_*", "research_x", false),
        ("*", "", true),
        ("*_admin", "super_admin", true),
        ("*_admin", "admin", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("repo://acme/*", "repo://acme/x/y", true),
        ("caf*", "café", true),
    ];
    for (pattern, name, expected) in table {
        assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} ~ {name}");
    }
}

proptest! {
    /// The index decides as the definition does: look at every rule.
    #[test]
    fn the_index_agrees_with_reading_every_rule(
        rules in prop::collection::vec((any::<bool>(), "[ab]{1}", prop::sample::select(vec!["*", "a*", "*b", "ab", "a*b", "b"])), 0..12),
        role in "[abc]{1}",
        name in "[ab]{0,3}",
    ) {
        let mut scope = Scope::new();
        scope.org.policies = rules.iter().enumerate().map(|(number, (allows, role, pattern))| {
            let id = format!("0190a000-0000-7000-8000-{number:012x}");
            let effect = if *allows { Effect::Allow } else { Effect::Deny };
            Policy { effect: effect.into(), ..allow(&id, &format!("p{number}"), &[role], &[pattern]) }
        }).collect();
        let snapshot = scope.compile().ok().unwrap();
        let matching = |wanted: bool| rules.iter()
            .any(|(allows, subject, pattern)| *allows == wanted && *subject == role && Pattern::new(pattern).matches(&name));
        let expected = matching(true) && !matching(false);
        prop_assert_eq!(judge(&snapshot, &[&role], Ask::Tool(&name)).allowed, expected);
    }
}
