//! Times, sizes and durations as people read them at a glance: `12s`, `3m`, `2h`, `5d`; machines get the exact ones as JSON.
//! Never asks the clock: whoever renders says what time it is. Called by the tables.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// The largest unit that fits, without a fraction.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        86_400.. => format!("{}d", seconds / 86_400),
    }
}

/// Exactly so long, in the largest unit that does it without a fraction: `90s`, `1m`, `1h`.
pub fn exact(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length)).unwrap_or((1, "s"));
    format!("{}{unit}", seconds / length)
}

/// How long ago a moment was; empty without one. Clocks differ: what seems to come was just now.
pub fn ago(moment: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(moment) = moment.and_then(|it| SystemTime::try_from(*it).ok()) else {
        return String::new();
    };
    short(now.duration_since(moment).unwrap_or_default())
}

/// When a moment comes, or how long it has been over; empty without one.
pub fn until(moment: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(moment) = moment.and_then(|it| SystemTime::try_from(*it).ok()) else {
        return String::new();
    };
    match moment.duration_since(now) {
        Ok(left) => format!("in {}", short(left)),
        Err(over) => format!("{} ago", short(over.duration())),
    }
}

/// A duration of a resource; empty for none and for less than a second.
pub fn lasting(duration: Option<&prost_types::Duration>) -> String {
    let duration = duration.and_then(|it| Duration::try_from(*it).ok()).unwrap_or_default();
    if duration.as_secs() == 0 { String::new() } else { short(duration) }
}

/// Bytes in the largest binary unit that fits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = ((bytes.ilog2() / 10) as usize).min(UNITS.len());
    let tenths = u128::from(bytes) * 10 / (1_u128 << (10 * exponent));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[exponent - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_their_largest_unit() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (86_399, "23h"), (200_000, "2d")] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
        for (seconds, text) in [(0, "0s"), (60, "1m"), (90, "90s"), (3_600, "1h"), (172_800, "2d")] {
            assert_eq!(exact(seconds), text);
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        assert_eq!([ago(Some(&at(940)), now), ago(Some(&at(1_005)), now), ago(None, now)], ["1m", "0s", ""]);
        assert_eq!([until(Some(&at(940)), now), until(Some(&at(1_005)), now)], ["1m ago", "in 5s"]);
        let half = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
        assert_eq!([lasting(Some(&half)), lasting(None)], ["", ""]);
    }

    #[test]
    fn sizes_are_told_by_their_largest_unit() {
        for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_587, "1.5 KiB"), (3 << 20, "3.0 MiB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
