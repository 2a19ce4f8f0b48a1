//! Wall-clock time in whole seconds, as certificates count it, and the one-method clock trait.

use std::fmt;
use std::ops::{Add, Sub};

/// Seconds since 1970-01-01T00:00:00Z. Arithmetic saturates, so no input can overflow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `unix_secs` seconds after the Unix epoch.
    pub const fn from_unix_secs(unix_secs: i64) -> Self {
        Self(unix_secs)
    }

    /// Seconds since the Unix epoch.
    pub const fn unix_secs(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to `self`; negative when `self` is the earlier one.
    pub const fn secs_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<i64> for Timestamp {
    type Output = Timestamp;

    fn add(self, secs: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(secs))
    }
}

impl Sub<i64> for Timestamp {
    type Output = Timestamp;

    fn sub(self, secs: i64) -> Timestamp {
        Timestamp(self.0.saturating_sub(secs))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, such as `2026-11-24T04:15:33Z`; the bare number outside the years 0 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = time::OffsetDateTime::from_unix_timestamp(self.0)
            .ok()
            .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A span of validity. Both ends belong to it, as in RFC 5280 4.1.2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    /// First valid second.
    pub not_before: Timestamp,
    /// Last valid second.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether `now` lies within.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether `now` is past the end.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now > self.not_after
    }

    /// Length in seconds, zero when the ends are reversed.
    pub fn secs(&self) -> i64 {
        self.not_after.secs_since(self.not_before).max(0)
    }
}

/// Tells the wall-clock time. Only shells hold one; pure code takes `now`.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    #[test]
    fn both_ends_belong_to_a_validity() {
        let validity = Validity { not_before: at(10), not_after: at(20) };
        for (now, is_within, is_over) in
            [(9, false, false), (10, true, false), (20, true, false), (21, false, true)]
        {
            assert_eq!(
                (validity.contains(at(now)), validity.is_over(at(now))),
                (is_within, is_over),
                "{now}"
            );
        }
        assert_eq!(validity.secs(), 10);
    }

    #[test]
    fn a_reversed_validity_contains_nothing_and_has_no_length() {
        let validity = Validity { not_before: at(20), not_after: at(10) };
        assert!((0..30).all(|now| !validity.contains(at(now))));
        assert_eq!(validity.secs(), 0);
    }

    #[test]
    fn arithmetic_stops_at_the_ends_instead_of_wrapping() {
        assert_eq!(at(i64::MAX) + 1, at(i64::MAX));
        assert_eq!(at(i64::MIN) - 1, at(i64::MIN));
        assert_eq!(at(i64::MAX).secs_since(at(-1)), i64::MAX);
        assert_eq!(at(5).secs_since(at(7)), -2);
    }

    #[test]
    fn a_time_prints_as_rfc_3339_and_far_ones_as_a_number() {
        assert_eq!(at(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_800_000_000).to_string(), "2027-01-15T08:00:00Z");
        assert_eq!(at(i64::MAX).to_string(), i64::MAX.to_string());
    }
}
