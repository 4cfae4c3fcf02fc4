//! Any history of good and bad versions.

use proptest::prelude::*;

use super::*;

const IDS: [(&str, &str); 3] = [(ACME, GITHUB), (RIVAL, RIVAL_SERVER), (THIRD, THIRD_SERVER)];
const SLUGS: [&str; 3] = ["acme", "rival", "third"];

proptest! {
    /// Over any history: who is good is served as it says, who is bad as it last was, and a restart changes nothing.
    #[test]
    fn no_poison_touches_another_organisation(
        history in prop::collection::vec(prop::array::uniform3(prop::option::of((any::<bool>(), 0..3_usize, 0..3_u8))), 1..12),
    ) {
        let mut scope = Scope::new();
        let mut previous: Option<Snapshot> = None;
        for version in history {
            let mut bundles: Vec<OrgBundle> = Vec::new();
            for ((id, server), state) in IDS.into_iter().zip(version) {
                let Some((good, name, content)) = state else { continue };
                let mut bundle = org(id, SLUGS[name], server);
                bundle.organization.as_mut().unwrap().display_name = content.to_string();
                if !good { poison(&mut bundle) }
                bundles.push(bundle);
            }
            if bundles.is_empty() { continue }
            let stated = bundles.clone();
            scope.org = bundles.remove(0);
            scope.others = bundles;
            scope.shard.keys.clear();
            scope.manifest.version += 1;
            let snapshot = scope.compile_after(previous.as_ref()).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_restores(&scope, &snapshot);
            for bundle in &stated {
                let id = bundle.org_id.as_str();
                let name = &bundle.organization.as_ref().unwrap().slug;
                let good = bundle.policies[0].r#match.is_some();
                let before = previous.as_ref().and_then(|before| before.org(id));
                let alone = stated.iter().all(|other| other.org_id == id || other.organization.as_ref().unwrap().slug != *name);
                let now = snapshot.org(id);
                match snapshot.quarantined().get(id) {
                    None => prop_assert!(good && now.is_some_and(|org| *org.slug == **name)),
                    Some(quarantine) => {
                        prop_assert!(!good || !alone, "a good one that nobody disputes is served: {:?}", quarantine.problems);
                        prop_assert_eq!(quarantine.serving, now.map(|org| org.digest));
                        prop_assert!(now.is_none_or(|now| before.is_some_and(|before| Arc::ptr_eq(before, now))));
                    }
                }
            }
            prop_assert!(snapshot.orgs().all(|org| stated.iter().any(|bundle| bundle.org_id == *org.id)), "deleted is gone");
            previous = Some(snapshot);
        }
    }
}
