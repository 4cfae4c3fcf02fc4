//! API keys, which belong to an organisation and are in none of its bundles.

use super::*;
use crate::proto::config::v1::ApiKey;

fn key(id: &str, org: &str) -> ApiKey {
    ApiKey {
        key_id: id.into(),
        org_id: org.into(),
        secret_sha256: vec![7; 32].into(),
        subject: format!("key:{id}"),
        ..ApiKey::default()
    }
}

/// Another id of the same shard.
fn sibling(of: &str) -> String {
    (0..).map(|number| format!("key{number}")).find(|id| shard_of(id) == shard_of(of)).unwrap()
}

#[test]
fn a_bad_api_key_is_left_out_and_named_and_nothing_else_happens() {
    let sibling = sibling(KEY);
    let good = || key(&sibling, ACME);
    let table: Vec<(&str, Vec<ApiKey>, &str)> = vec![
        ("short hash", vec![ApiKey { secret_sha256: vec![1].into(), ..key(KEY, ACME) }, good()], ACME),
        ("no subject", vec![ApiKey { subject: String::new(), ..key(KEY, ACME) }, good()], ACME),
        ("twice", vec![key(KEY, ACME), key(KEY, RIVAL), good()], ACME),
        ("of nobody", vec![key(KEY, THIRD), good()], THIRD),
    ];
    for (what, keys, owner) in table {
        let mut scope = two();
        let first = scope.good(None);
        scope.shard.keys = keys;
        let second = next(&mut scope, &first);
        assert!(second.quarantined().is_empty(), "{what}: a key is not in the organisation's bundles");
        assert!(second.report()[0].starts_with(&format!("org/{owner}: ")) && second.report()[0].contains(KEY), "{what}");
        assert_eq!(served(&second), served(&first), "{what}");
        assert!(second.api_key(&sibling).is_some(), "{what}");
        assert!(second.api_key(KEY).is_none_or(|key| second.org(&key.org_id).is_none()), "{what}");
        // The shard is used again as it was read, and what was wrong with it is not forgotten.
        let third = next(&mut scope, &second);
        assert_eq!(third.report(), second.report(), "{what}");
    }
}

#[test]
fn keys_of_an_organisation_in_quarantine_come_and_go_at_once() {
    let mut scope = Scope::new();
    let first = scope.good(None);
    poison(&mut scope.org);
    scope.shard.keys = vec![key(&sibling(KEY), ACME)];
    let second = next(&mut scope, &first);
    assert!(second.api_key(KEY).is_none(), "revoked");
    assert!(second.api_key(&sibling(KEY)).is_some());
    assert_eq!(second.report().len(), 1, "keys of an organisation that is denied need no line of their own");
    assert!(compile(&scope.manifest, &scope.staged(), &scope.pool_keys(), None).ok().unwrap().report().len() == 1);
}
