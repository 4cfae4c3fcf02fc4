use prost::Message;

use super::super::fixtures::{ACME, GITHUB, KEY, Scope, org};
use super::super::{Fallbacks, Staged, compile, restore, shard_of};
use super::*;
use crate::proto::config::v1::{OrgBundle, UpstreamCredential};
use crate::type_url;

mod history;
mod keys;

/// Ids in the order of the alphabet; ACME comes before both.
const RIVAL: &str = "0190a000-0000-7000-8000-0000000000a2";
const THIRD: &str = "0190a000-0000-7000-8000-0000000000a3";
const RIVAL_SERVER: &str = "0190a000-0000-7000-8000-0000000000b2";
const THIRD_SERVER: &str = "0190a000-0000-7000-8000-0000000000b3";

/// Version 7 with ACME and RIVAL.
fn two() -> Scope {
    let mut scope = Scope::new();
    scope.others.push(org(RIVAL, "rival", RIVAL_SERVER));
    scope
}

fn next(scope: &mut Scope, previous: &Snapshot) -> Snapshot {
    scope.manifest.version += 1;
    let snapshot = scope.compile_after(Some(previous)).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_restores(scope, &snapshot);
    snapshot
}

/// Another process with the same resources and what this one kept comes to the same.
fn assert_restores(scope: &Scope, snapshot: &Snapshot) {
    let staged = scope.staged();
    let restored = restore(&scope.manifest, &staged, &scope.pool_keys(), &snapshot.fallbacks());
    let restored = restored.unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(served(&restored), served(snapshot));
    assert_eq!(restored.digest(), snapshot.digest());
    let serving = |snapshot: &Snapshot| -> Vec<_> {
        snapshot.quarantined().iter().map(|(id, quarantine)| (id.clone(), quarantine.serving)).collect()
    };
    assert_eq!(serving(&restored), serving(snapshot));
    assert_eq!(restored.fallbacks(), snapshot.fallbacks());
}

/// Every organisation that is served: id, slug, digest.
fn served(snapshot: &Snapshot) -> Vec<(String, String, Digest)> {
    for org in snapshot.orgs() {
        let by_slug = snapshot.server_by_slug(&org.slug, "github").map(|(found, _)| &found.id);
        assert!(by_slug.is_none_or(|id| *id == org.id), "{} is served by {by_slug:?}", org.slug);
        for server in org.servers() {
            assert_eq!(snapshot.server(&server.id).map(|(found, _)| &found.id), Some(&org.id), "{}", server.id);
            assert!(server.credential_id.as_deref().is_none_or(|id| snapshot.upstream_credential(id).is_some()));
        }
    }
    snapshot.orgs().map(|org| (org.id.to_string(), org.slug.to_string(), org.digest)).collect()
}

fn poison(bundle: &mut OrgBundle) {
    bundle.policies[0].r#match = None;
}

/// Any change that compiles.
fn rename(bundle: &mut OrgBundle) {
    bundle.organization.as_mut().unwrap().display_name.push('x');
}

fn slug(bundle: &mut OrgBundle, slug: &str) {
    bundle.organization.as_mut().unwrap().slug = slug.into();
}

fn serving(snapshot: &Snapshot, id: &str) -> Option<Digest> {
    snapshot.org(id).map(|org| org.digest)
}

type Break = fn(&mut OrgBundle);

#[test]
fn a_bad_organisation_keeps_its_last_good_configuration_and_every_other_moves_on() {
    let table: &[(&str, Break)] = &[
        ("policy engineers: match: at least one", poison),
        ("policy engineers: effect: 0", |org| org.policies[0].effect = 0),
        ("server github: transport: 99", |org| org.servers[0].transport = 99),
        ("chunks: expected each of 0 to 2", |org| org.chunk_count = 2),
        ("the control plane cannot read this", |org| *org = crate::bundle::unreadable(RIVAL)),
        ("slug: \"Rival!\"", |org| slug(org, "Rival!")),
        ("credential_id: \"gone\" is not in", |org| org.servers[0].credential_id = "gone".into()),
        ("slug: \"acme\" is also the slug of", |org| slug(org, "acme")),
        ("server id: \"0190a000-0000-7000-8000-0000000000b1\" is also", |org| org.servers[0].id = GITHUB.into()),
    ];
    for (expected, break_it) in table {
        let mut scope = two();
        let first = scope.good(None);
        rename(&mut scope.org);
        break_it(&mut scope.others[0]);
        let second = next(&mut scope, &first);
        assert_ne!(serving(&second, ACME), serving(&first, ACME), "{expected}");
        assert!(Arc::ptr_eq(first.org(RIVAL).unwrap(), second.org(RIVAL).unwrap()), "{expected}");
        let quarantine = &second.quarantined()[RIVAL];
        assert_eq!(quarantine.serving, serving(&first, RIVAL), "{expected}");
        let report = second.report();
        assert!(report[0].starts_with(&format!("org/{RIVAL}: ")) && report[0].contains(expected), "{expected}: {report:?}");
        assert_eq!(report[0].matches(RIVAL).count(), 1, "{report:?}");
        assert_eq!((second.quarantined().len(), report.len()), (1, 1), "{expected}: {report:?}");

        // The next version is about somebody else: nothing is forgotten.
        rename(&mut scope.org);
        let third = next(&mut scope, &second);
        assert_eq!((third.report(), third.quarantined()), (report, second.quarantined()), "{expected}");
        // And it heals.
        scope.others[0] = org(RIVAL, "rival", RIVAL_SERVER);
        rename(&mut scope.others[0]);
        let healed = next(&mut scope, &third);
        assert!(healed.quarantined().is_empty() && serving(&healed, RIVAL) != serving(&first, RIVAL), "{expected}");
        assert_eq!(healed.fallbacks(), Fallbacks::new());
    }
}

#[test]
fn a_new_organisation_that_is_bad_is_denied_and_a_deleted_one_is_gone() {
    let mut scope = Scope::new();
    let first = scope.good(None);
    scope.others.push(org(RIVAL, "rival", RIVAL_SERVER));
    poison(&mut scope.others[0]);
    let second = next(&mut scope, &first);
    assert_eq!(second.quarantined()[RIVAL].serving, None);
    assert!(second.org(RIVAL).is_none() && second.server(RIVAL_SERVER).is_none());
    assert!(second.server_by_slug("rival", "github").is_none());
    scope.others.clear();
    let third = next(&mut scope, &second);
    assert!(third.quarantined().is_empty());

    let mut scope = two();
    let first = scope.good(None);
    poison(&mut scope.others[0]);
    let second = next(&mut scope, &first);
    assert!(second.org(RIVAL).is_some());
    scope.others.clear();
    let third = next(&mut scope, &second);
    assert!(third.org(RIVAL).is_none() && third.quarantined().is_empty(), "deleted is deleted, quarantine or not");
}

#[test]
fn a_bundle_that_nobody_can_read_or_that_is_another_organisations_harms_only_its_own() {
    let scope = two();
    let first = scope.good(None);
    let name = format!("org/{RIVAL}/0");
    let acmes = scope.staged().body(type_url::ORG_BUNDLE, &format!("org/{ACME}/0")).unwrap().clone();
    for body in [vec![0xff; 9].into(), acmes] {
        let mut staged = scope.staged();
        staged.put(type_url::ORG_BUNDLE, &name, body).unwrap();
        let second = compile(&scope.manifest, &staged, &scope.pool_keys(), Some(&first)).ok().unwrap();
        assert_eq!(served(&second), served(&first));
        assert_eq!(second.quarantined()[RIVAL].serving, serving(&first, RIVAL));
        let restored = restore(&scope.manifest, &staged, &scope.pool_keys(), &second.fallbacks()).ok().unwrap();
        assert_eq!(served(&restored), served(&first));
    }
    // Chunk 0 alone went missing.
    let mut staged = scope.staged();
    let rest = OrgBundle { chunk: 1, chunk_count: 2, org_id: RIVAL.into(), ..OrgBundle::default() };
    staged.remove(type_url::ORG_BUNDLE, &name);
    staged.put(type_url::ORG_BUNDLE, &format!("org/{RIVAL}/1"), rest.encode_to_vec().into()).unwrap();
    let second = compile(&scope.manifest, &staged, &scope.pool_keys(), Some(&first)).ok().unwrap();
    assert_eq!(served(&second), served(&first));
}

/// Who answers under `/o/acme`: never somebody by another's rules.
struct Dispute {
    what: &'static str,
    /// What was in force; `None`: nothing was.
    before: Option<Change>,
    after: Change,
    holder: Option<&'static str>,
    quarantined: &'static [&'static str],
}

type Change = fn(&mut Scope);

impl Dispute {
    fn settles(&self) {
        let what = self.what;
        let mut scope = two();
        let first = self.before.map(|change| {
            change(&mut scope);
            scope.good(None)
        });
        (self.after)(&mut scope);
        scope.manifest.version += 1;
        let second = scope.compile_after(first.as_ref()).unwrap_or_else(|problems| panic!("{what}: {problems:?}"));
        assert_restores(&scope, &second);
        let found = second.server_by_slug("acme", "github").map(|(org, _)| &*org.id);
        assert_eq!(found, self.holder, "{what}: {:?}", second.report());
        assert_eq!(second.quarantined().keys().map(|id| &**id).collect::<Vec<_>>(), self.quarantined, "{what}");
        let third = next(&mut scope, &second);
        let (now, then) = (third.report(), second.report());
        assert_eq!((served(&third), now.first()), (served(&second), then.first()), "{what}: again");
    }
}

fn newcomer(scope: &mut Scope) {
    scope.others.push(org(THIRD, "acme", THIRD_SERVER));
}

fn dispute(
    what: &'static str,
    before: Option<Change>,
    after: Change,
    (holder, quarantined): (Option<&'static str>, &'static [&'static str]),
) -> Dispute {
    Dispute { what, before, after, holder, quarantined }
}

#[test]
fn what_two_good_ones_claim_goes_to_who_had_it() {
    let table = [
        dispute("nobody had it: the smaller id", None, newcomer, (Some(ACME), &[THIRD])),
        dispute("it was given up", Some(|scope| slug(&mut scope.org, "other")), newcomer, (Some(THIRD), &[])),
        dispute(
            "who had it keeps it from a smaller id",
            Some(|scope| {
                slug(&mut scope.org, "other");
                slug(&mut scope.others[0], "acme");
            }),
            |scope| slug(&mut scope.org, "acme"),
            (Some(RIVAL), &[ACME]),
        ),
        dispute(
            "two swap",
            Some(|_| {}),
            |scope| {
                slug(&mut scope.org, "rival");
                slug(&mut scope.others[0], "acme");
            },
            (Some(RIVAL), &[]),
        ),
    ];
    table.iter().for_each(Dispute::settles);
}

#[test]
fn what_a_bad_one_had_stays_its_own_until_it_says_otherwise() {
    let table = [
        dispute(
            "it says that it still has it",
            Some(|_| {}),
            |scope| {
                poison(&mut scope.org);
                newcomer(scope);
            },
            (Some(ACME), &[ACME, THIRD]),
        ),
        dispute(
            "it cannot be read",
            Some(|_| {}),
            |scope| {
                scope.org.chunk_count = 2;
                newcomer(scope);
            },
            (Some(ACME), &[ACME, THIRD]),
        ),
        dispute(
            "it gave it up",
            Some(|_| {}),
            |scope| {
                poison(&mut scope.org);
                slug(&mut scope.org, "other");
                newcomer(scope);
            },
            (Some(THIRD), &[ACME]),
        ),
        dispute(
            "it never had it, whatever its id",
            None,
            |scope| {
                poison(&mut scope.org);
                slug(&mut scope.others[0], "acme");
            },
            (Some(RIVAL), &[ACME]),
        ),
    ];
    table.iter().for_each(Dispute::settles);
}

#[test]
fn a_server_is_one_organisations_like_a_slug() {
    let table = [
        dispute(
            "moved away from a bad one, which is denied then",
            Some(|_| {}),
            |scope| {
                poison(&mut scope.org);
                scope.org.servers[0].id = THIRD_SERVER.into();
                scope.others[0].servers[0].id = GITHUB.into();
            },
            (None, &[ACME]),
        ),
        dispute(
            "a bad one says that it still has it",
            Some(|_| {}),
            |scope| {
                poison(&mut scope.org);
                scope.others[0].servers[0].id = GITHUB.into();
            },
            (Some(ACME), &[ACME, RIVAL]),
        ),
    ];
    table.iter().for_each(Dispute::settles);
}

fn credential(id: &str, value: &str) -> UpstreamCredential {
    UpstreamCredential { id: id.into(), header: "authorization".into(), value: value.into() }
}

#[test]
fn a_credential_that_is_gone_or_unusable_harms_only_who_names_it_and_the_last_good_one_goes_on() {
    for (after, expected) in [(None, "credential_id: \"c1\" is not in"), (Some("a\nb"), "credential \"c1\": value")] {
        let mut scope = two();
        scope.others[0].servers[0].credential_id = "c1".into();
        scope.secrets.credentials = vec![credential("c1", "old"), credential("c2", "else")];
        let first = scope.good(None);
        rename(&mut scope.org);
        scope.secrets.credentials = after.map(|value| credential("c1", value)).into_iter().collect();
        let second = next(&mut scope, &first);
        assert!(second.report()[0].contains(expected), "{:?}", second.report());
        assert_eq!(serving(&second, RIVAL), serving(&first, RIVAL));
        assert_eq!(second.upstream_credential("c1").unwrap().value, "old");
        assert!(second.upstream_credential("c2").is_none(), "nobody in quarantine names it");
        assert!(!format!("{:?} {:?}", second.fallbacks(), second.report()).contains("old"), "a credential is not for logs");

        // What is kept for one is not there for others.
        scope.org.servers[0].credential_id = "c1".into();
        let third = next(&mut scope, &second);
        assert_eq!(third.quarantined().len(), 2);
        scope.secrets.credentials = vec![credential("c1", "new")];
        let healed = next(&mut scope, &third);
        assert!(healed.quarantined().is_empty());
        assert_eq!(healed.upstream_credential("c1").unwrap().value, "new");
    }
}

#[test]
fn what_is_common_to_all_fails_the_whole() {
    let table: &[fn(&mut Scope)] = &[|scope| scope.global.pool = "other".into(), |scope| scope.secrets.session_keys.clear()];
    for break_it in table {
        let mut scope = two();
        let first = scope.good(None);
        break_it(&mut scope);
        assert!(scope.compile_after(Some(&first)).is_err());
    }
    let (scope, shard) = (two(), format!("credentials/default/{}", shard_of(KEY)));
    for (type_url, name) in [
        (type_url::GLOBAL, "global/default"),
        (type_url::SECRET_ENVELOPE, "secrets/default"),
        (type_url::CREDENTIAL_SHARD, &shard),
    ] {
        let mut staged: Staged = scope.staged();
        staged.put(type_url, name, vec![0xff; 9].into()).unwrap();
        assert!(compile(&scope.manifest, &staged, &scope.pool_keys(), None).is_err(), "{name}");
    }
    let mut staged = scope.staged();
    let body = staged.body(type_url::CREDENTIAL_SHARD, &shard).unwrap().clone();
    staged.put(type_url::CREDENTIAL_SHARD, &format!("credentials/default/{}", shard_of(KEY).wrapping_add(1)), body).unwrap();
    assert!(compile(&scope.manifest, &staged, &scope.pool_keys(), None).is_err(), "a shard under another's name");
}

#[test]
fn a_report_that_is_cut_leaves_no_organisation_out() {
    let mut scope = two();
    for bundle in [&mut scope.org, &mut scope.others[0]] {
        bundle.policies[0].r#match = None;
        bundle.policies[0].subjects = None;
    }
    let report = scope.compile().ok().unwrap().report();
    assert_eq!(report.len(), 4);
    assert!(report[0].starts_with(&format!("org/{ACME}: ")) && report[1].starts_with(&format!("org/{RIVAL}: ")), "{report:?}");
}
