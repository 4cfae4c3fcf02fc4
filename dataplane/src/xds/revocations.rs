//! Which revocations hold after a set was received. Pure. Called by [`super::stream`].
//!
//! A replica that lags behind may send a set that is older than what is held, and nobody can tell by the contents which of two is newer:
//! entries come and expire. So a set says when its newest entry was made, and only a newer set may take something back.

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway::proto::config::v1::{Revocation, RevokedSubject};

/// The received set if it is newer than the held one, everything of both otherwise.
#[must_use]
pub fn onto(held: Option<&Revocation>, received: Revocation) -> Revocation {
    match held {
        Some(held) if received.newest_us <= held.newest_us => both(held, &received),
        Some(_) | None => received,
    }
}

fn both(one: &Revocation, other: &Revocation) -> Revocation {
    let names = |of: fn(&Revocation) -> &Vec<String>| -> Vec<String> {
        let names: BTreeSet<&String> = of(one).iter().chain(of(other)).collect();
        names.into_iter().cloned().collect()
    };
    let mut subjects: BTreeMap<&str, i64> = BTreeMap::new();
    for revoked in one.subjects.iter().chain(&other.subjects) {
        let not_before = subjects.entry(&revoked.subject).or_insert(revoked.not_before);
        *not_before = revoked.not_before.max(*not_before);
    }
    let subjects = subjects.into_iter().map(|(subject, not_before)| RevokedSubject { subject: subject.to_owned(), not_before });
    Revocation {
        api_keys: names(|set| &set.api_keys),
        login_sessions: names(|set| &set.login_sessions),
        subjects: subjects.collect(),
        newest_us: one.newest_us.max(other.newest_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(newest_us: u64, keys: &[&str], subject: i64) -> Revocation {
        Revocation {
            api_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            login_sessions: keys.iter().map(|key| format!("s-{key}")).collect(),
            subjects: vec![RevokedSubject { subject: "u".into(), not_before: subject }],
            newest_us,
        }
    }

    #[test]
    fn only_a_newer_set_takes_something_back() {
        let held = set(5, &["a", "b"], 50);
        for (received, expected) in [
            (set(6, &["c"], 10), set(6, &["c"], 10)),
            (set(5, &["b", "c"], 60), set(5, &["a", "b", "c"], 60)),
            (set(4, &["a"], 10), set(5, &["a", "b"], 50)),
            (set(0, &[], 0), set(5, &["a", "b"], 50)),
        ] {
            assert_eq!(onto(Some(&held), received), expected);
        }
        assert_eq!(onto(None, set(0, &["a"], 1)), set(0, &["a"], 1));
    }
}
