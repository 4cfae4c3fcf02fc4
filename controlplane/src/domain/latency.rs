//! The buckets that calls are counted in by how long they took, and what they say of a percentile. Pure.
//!
//! Two buckets per doubling: a percentile is never off by more than half, and as a rule by far less. Rollups hold counts in this order,
//! so the bounds never change.

/// How many buckets there are.
pub const COUNT: usize = 43;
/// The shortest bound, in microseconds.
const FIRST: u64 = 64;

/// The upper bound of a bucket in microseconds, inclusive; none: of the last one, which has none.
pub fn bound(bucket: usize) -> Option<u64> {
    let base = if bucket.is_multiple_of(2) { FIRST } else { FIRST + FIRST / 2 };
    (bucket + 1 < COUNT).then_some(base << (bucket / 2))
}

/// The bucket of a call that took this many microseconds.
pub fn place(micros: u64) -> usize {
    (0..COUNT - 1).find(|bucket| bound(*bucket).is_some_and(|bound| micros <= bound)).unwrap_or(COUNT - 1)
}

/// Microseconds that a share of the calls (0.5: half of them) did not exceed, interpolated within its bucket; 0 without calls.
pub fn quantile(buckets: &[i64], share: f64) -> u64 {
    let counts = || buckets.iter().take(COUNT).map(|count| u64::try_from(*count).unwrap_or(0));
    let calls: u64 = counts().sum();
    if calls == 0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 1 to calls")]
    let rank = ((calls as f64 * share).ceil() as u64).clamp(1, calls);
    let mut before = 0;
    for (bucket, count) in counts().enumerate() {
        if before + count >= rank {
            let lower = bucket.checked_sub(1).and_then(bound).unwrap_or(0);
            let Some(upper) = bound(bucket) else { return lower };
            return lower + (upper - lower) * (rank - before) / count;
        }
        before += count;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_by_half_and_by_a_third_in_turn() {
        let bounds: Vec<u64> = (0..COUNT).filter_map(bound).collect();
        assert_eq!(&bounds[..5], [64, 96, 128, 192, 256]);
        assert_eq!((bounds.len(), bounds[COUNT - 2]), (COUNT - 1, 96 << 20));
        assert!(bounds.is_sorted());
        let table = [(0, 0), (64, 0), (65, 1), (96, 1), (97, 2), (96 << 20, COUNT - 2), (u64::MAX, COUNT - 1)];
        for (micros, expected) in table {
            assert_eq!(place(micros), expected, "{micros}");
        }
    }

    #[test]
    fn percentiles_are_near_what_was_counted() {
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[0; COUNT], 0.99), 0);
        let mut buckets = vec![0i64; COUNT];
        for micros in 1..=10_000u64 {
            buckets[place(micros)] += 1;
        }
        for (share, exact) in [(0.5, 5_000u64), (0.95, 9_500), (0.99, 9_900)] {
            let found = quantile(&buckets, share);
            assert!(found.abs_diff(exact) * 4 < exact, "{share}: {found}");
        }
        let mut slow = vec![0i64; COUNT];
        slow[COUNT - 1] = 3;
        assert_eq!(quantile(&slow, 0.5), 96 << 20, "no more is known than that it took longer");
    }
}
