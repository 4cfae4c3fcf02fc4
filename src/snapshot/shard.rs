//! API keys by shard. A shard that cannot be read fails the whole configuration: nobody can say whose keys it holds. A key that is wrong
//! by itself is left out, which denies it, and counts as a problem of its organisation.
//! Called by [`super::compile`]; never says what a key may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::compile::decode;
use super::model::{ApiKey, Org, Shard};
use super::validate::shard_of;
use super::{ContentHash, Problem, Snapshot, Staged};
use crate::proto::config::v1::{self as wire, CredentialShard};
use crate::type_url;

pub(super) type Shards = BTreeMap<u8, Arc<Shard>>;

/// What is wrong, by the id of the organisation that it is reported for.
pub(super) type Problems = BTreeMap<Arc<str>, Vec<Problem>>;

/// Every shard; those that `previous` already read are used again. `problems` are those of the whole configuration.
pub(super) fn read_shards(staged: &Staged, previous: Option<&Snapshot>, problems: &mut Vec<Problem>) -> Shards {
    let mut shards = Shards::new();
    for (name, held) in staged.of_type(type_url::CREDENTIAL_SHARD) {
        let Some(number) = name.rsplit('/').next().and_then(|number| number.parse().ok()) else {
            let expected = "credentials/<pool>/<0 to 255>".to_owned();
            problems.push(Problem::NameMismatch { resource: name.to_owned(), expected });
            continue;
        };
        let known = previous.and_then(|snapshot| snapshot.shards.get(&number)).filter(|shard| shard.hash == held.hash);
        if let Some(shard) = known {
            shards.insert(number, shard.clone());
        } else if let Some(shard) = decode::<CredentialShard>(name, &held.body, problems) {
            if !name.ends_with(&format!("/{}", shard.shard)) {
                let expected = format!("credentials/<pool>/{}", shard.shard);
                problems.push(Problem::NameMismatch { resource: name.to_owned(), expected });
            }
            shards.insert(number, Arc::new(build_shard(name, held.hash, shard)));
        }
    }
    shards
}

/// What the shards say that cannot be used, for the organisations that it is about: keys left out, and keys of nobody.
/// Those of an organisation in `refused` need no mention: that it is not served is on record.
pub(super) fn key_problems(shards: &Shards, orgs: &BTreeMap<Arc<str>, Arc<Org>>, refused: impl Fn(&str) -> bool) -> Problems {
    let mut found = Problems::new();
    for shard in shards.values() {
        for (org, problem) in &shard.faults {
            found.entry(org.clone()).or_default().push(problem.clone());
        }
        let nobodys = shard.keys.values().filter(|key| !orgs.contains_key(key.org_id.as_str()) && !refused(&key.org_id));
        for key in nobodys {
            let (key_id, org) = (key.key_id.clone(), key.org_id.clone());
            let problem = Problem::DanglingOrg { resource: shard.name.clone(), key_id, org };
            found.entry(key.org_id.as_str().into()).or_default().push(problem);
        }
    }
    // A shard keeps its keys in no order, and what is reported should not depend on that.
    found.values_mut().for_each(|problems| problems.sort_by_cached_key(ToString::to_string));
    found
}

fn build_shard(name: &str, hash: ContentHash, shard: CredentialShard) -> Shard {
    let mut seen = HashSet::with_capacity(shard.keys.len());
    let twice: HashSet<&str> = shard.keys.iter().map(|key| key.key_id.as_str()).filter(|id| !seen.insert(*id)).collect();
    let mut keys = HashMap::with_capacity(shard.keys.len());
    let mut faults = Vec::new();
    for key in &shard.keys {
        let usable = match <[u8; 32]>::try_from(key.secret_sha256.as_ref()) {
            Err(_) => Err("secret_sha256: 32 bytes are expected"),
            // Which of the two is meant, nobody can say.
            Ok(_) if twice.contains(key.key_id.as_str()) => Err("key_id: it is used twice; neither was taken"),
            Ok(_) if u32::from(shard_of(&key.key_id)) != shard.shard => Err("key_id: it belongs to another shard"),
            Ok(_) if key.subject.is_empty() => Err("subject: a subject is expected"),
            Ok(secret_sha256) => Ok(api_key(key, secret_sha256)),
        };
        match usable {
            Ok(compiled) => drop(keys.insert(key.key_id.clone(), compiled)),
            Err(expected) => {
                let problem = Problem::InvalidApiKey { resource: name.to_owned(), key_id: key.key_id.clone(), expected };
                faults.push((key.org_id.as_str().into(), problem));
            }
        }
    }
    Shard { name: name.to_owned(), hash, keys, faults }
}

fn api_key(key: &wire::ApiKey, secret_sha256: [u8; 32]) -> ApiKey {
    ApiKey {
        key_id: key.key_id.clone(),
        org_id: key.org_id.clone(),
        secret_sha256,
        subject: key.subject.clone(),
        roles: key.roles.clone(),
        groups: key.groups.clone(),
        expires_at: (key.expires_at != 0).then_some(key.expires_at),
    }
}
