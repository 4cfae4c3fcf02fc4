//! One organisation cut into the bundles that travel. Pure: the same content gives the same bytes, whichever way it came to be.
//!
//! Who publishes cuts, and whoever checks or loads a configuration without a control plane cuts alike. Never judges content:
//! [`crate::snapshot::check_org`] does.

use prost::Message;

use crate::{proto::config::v1::OrgBundle, snapshot::ContentHash};

/// No bundle reaches this many bytes, as long as no single element does; a node refuses more than 256 kB.
pub const MOST_BYTES: usize = 192 * 1024;
/// About how full bundles are on average at most, once there are several: room for uneven shares.
const FILL_BYTES: usize = 96 * 1024;
/// Tag and length of an element.
const FRAME_BYTES: usize = 4;

/// The resource name of a bundle.
#[must_use]
pub fn name(bundle: &OrgBundle) -> String {
    format!("org/{}/{}", bundle.org_id, bundle.chunk)
}

/// Cuts an organisation that is given as one bundle of any size. Of a server, a policy or a limit, a stable hash of its id says which
/// bundle it is in, so that one change touches one bundle; how many there are is a power of two that grows with the size. A share
/// that is too large all the same is cut further, in the order of ids. The order of what is given does not matter.
#[must_use]
pub fn cut(whole: OrgBundle) -> Vec<OrgBundle> {
    let OrgBundle { org_id, organization, mut servers, mut policies, mut limits, .. } = whole;
    servers.sort_by(|a, b| a.id.cmp(&b.id));
    policies.sort_by(|a, b| a.id.cmp(&b.id));
    limits.sort_by(|a, b| a.id.cmp(&b.id));
    let settings = organization.as_ref().map_or(0, |settings| settings.encoded_len() + FRAME_BYTES);
    let elements = servers.iter().map(cost).chain(policies.iter().map(cost)).chain(limits.iter().map(cost));
    let size = elements.sum::<usize>() + settings;
    let mut shares: Vec<Share> = (0..count(size)).map(|_| Share::default()).collect();
    shares[0].pieces[0].taken = settings;
    for server in servers {
        let (share, size) = (share_of(&server.id, shares.len()), cost(&server));
        shares[share].room(size).servers.push(server);
    }
    for policy in policies {
        let (share, size) = (share_of(&policy.id, shares.len()), cost(&policy));
        shares[share].room(size).policies.push(policy);
    }
    for limit in limits {
        let (share, size) = (share_of(&limit.id, shares.len()), cost(&limit));
        shares[share].room(size).limits.push(limit);
    }
    let mut bundles: Vec<OrgBundle> = shares.into_iter().flat_map(|share| share.pieces).map(|piece| piece.bundle).collect();
    let chunk_count = u32::try_from(bundles.len()).unwrap_or(u32::MAX);
    for (chunk, bundle) in (0..).zip(&mut bundles) {
        (bundle.org_id, bundle.chunk, bundle.chunk_count) = (org_id.clone(), chunk, chunk_count);
    }
    bundles[0].organization = organization;
    bundles
}

/// What travels for an organisation whose content nobody can tell: no node takes it, each keeps what it has.
#[must_use]
pub fn unreadable(org_id: &str) -> OrgBundle {
    OrgBundle { org_id: org_id.to_owned(), ..OrgBundle::default() }
}

/// How many shares an organisation of `size` bytes has. Nothing but the size decides: no path may show.
fn count(size: usize) -> usize {
    if size <= MOST_BYTES { 1 } else { size.div_ceil(FILL_BYTES).next_power_of_two() }
}

/// Which of `shares` an id belongs to.
fn share_of(id: &str, shares: usize) -> usize {
    if shares == 1 {
        return 0;
    }
    let [a, b, c, d, ..] = *ContentHash::of(id.as_bytes()).as_bytes();
    u32::from_be_bytes([a, b, c, d]) as usize % shares
}

/// What falls to one hash: one piece, or several if it is too much for one.
struct Share {
    pieces: Vec<Piece>,
}

#[derive(Default)]
struct Piece {
    bundle: OrgBundle,
    taken: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { pieces: vec![Piece::default()] }
    }
}

impl Share {
    /// Where an element of `size` bytes goes.
    fn room(&mut self, size: usize) -> &mut OrgBundle {
        let full = self.pieces.last().is_none_or(|piece| piece.taken > 0 && piece.taken + size > MOST_BYTES);
        if full {
            self.pieces.push(Piece::default());
        }
        let piece = self.pieces.last_mut().expect("there is one from the start");
        piece.taken += size;
        &mut piece.bundle
    }
}

fn cost<M: Message>(element: &M) -> usize {
    element.encoded_len() + FRAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config::v1::{Match, Organization, Policy, RateLimit, Server};

    fn policy(n: usize, bytes: usize) -> Policy {
        let matching = Match { tools: vec!["x".repeat(bytes)], ..Match::default() };
        Policy { id: format!("00000000-0000-0000-0000-{n:012}"), r#match: Some(matching), ..Policy::default() }
    }

    fn whole(policies: Vec<Policy>) -> OrgBundle {
        let organization = Some(Organization { slug: "acme".into(), ..Organization::default() });
        let servers = (0..40).map(|n| Server { id: format!("server-{n}"), ..Server::default() }).collect();
        OrgBundle { org_id: "o".into(), organization, servers, policies, ..OrgBundle::default() }
    }

    fn differ(one: &[OrgBundle], other: &[OrgBundle]) -> usize {
        assert_eq!(one.len(), other.len());
        one.iter().zip(other).filter(|(one, other)| one != other).count()
    }

    #[test]
    fn a_small_organisation_is_one_bundle_and_an_empty_one_too() {
        assert_eq!(cut(whole(vec![policy(1, 100)])).len(), 1);
        let empty = cut(OrgBundle { org_id: "o".into(), ..OrgBundle::default() });
        assert_eq!((empty.len(), empty[0].chunk_count, name(&empty[0])), (1, 1, "org/o/0".to_owned()));
    }

    #[test]
    fn one_change_in_a_large_organisation_touches_one_bundle() {
        let rows = |count: usize| (0..count).map(|n| policy(n, 200)).collect::<Vec<_>>();
        let before = cut(whole(rows(5000)));
        assert!(before.len() >= 8 && before.len().is_power_of_two(), "{}", before.len());
        assert_eq!(differ(&before, &cut(whole(rows(5001)))), 1, "one more");
        assert_eq!(differ(&before, &cut(whole(rows(5000).split_off(1)))), 1, "the first one less");
        let mut edited = rows(5000);
        edited[2500].name = "new".into();
        assert_eq!(differ(&before, &cut(whole(edited))), 1, "another one");
        let mut backwards = rows(5000);
        backwards.reverse();
        assert_eq!(before, cut(whole(backwards)), "the order of the rows does not show");
    }

    #[test]
    fn nothing_is_lost_and_every_bundle_fits_whatever_the_sizes() {
        for bytes in [10, 1000, 20_000, 64_000, 100_000, 190_000] {
            for count in [1, 2, 3, 10, 33, 200] {
                let given = whole((0..count).map(|n| policy(n, bytes)).collect());
                let bundles = cut(given.clone());
                let (all, total) = (bundles.len(), u32::try_from(bundles.len()).unwrap());
                assert!(
                    bundles.iter().all(|bundle| bundle.encoded_len() <= 256_000 && bundle.chunk_count == total),
                    "{bytes} {count}"
                );
                assert!((0..).zip(&bundles).all(|(n, bundle)| bundle.chunk == n && bundle.organization.is_some() == (n == 0)));
                let mut policies: Vec<_> = bundles.iter().flat_map(|bundle| bundle.policies.clone()).collect();
                policies.sort_by(|a, b| a.id.cmp(&b.id));
                assert_eq!(policies, given.policies, "{bytes} {count} in {all}");
                assert_eq!(bundles.iter().map(|bundle| bundle.servers.len()).sum::<usize>(), 40);
            }
        }
    }

    #[test]
    fn limits_are_cut_as_policies_are() {
        let limit = |n: usize| RateLimit { id: format!("limit-{n:05}"), name: "x".repeat(200), ..RateLimit::default() };
        let with = |count: usize| OrgBundle { limits: (0..count).map(limit).collect(), ..whole(Vec::new()) };
        let (given, bundles) = (with(5000), cut(with(5000)));
        assert!(bundles.len() >= 8 && bundles.len().is_power_of_two(), "{}", bundles.len());
        assert!(bundles.iter().all(|bundle| bundle.encoded_len() <= MOST_BYTES));
        let mut limits: Vec<_> = bundles.iter().flat_map(|bundle| bundle.limits.clone()).collect();
        limits.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(limits, given.limits, "none is lost, none is there twice");
        assert_eq!(differ(&bundles, &cut(with(5001))), 1, "one more");
        let backwards = OrgBundle { limits: given.limits.iter().rev().cloned().collect(), ..with(0) };
        assert_eq!(cut(backwards), bundles, "the order of the rows does not show");
    }
}
