//! A wall clock that stands still until a test moves it, in either direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use spindle_spiffe_core::{Clock, Timestamp};

/// Where a [`ManualClock`] stands at first: 2027-01-15T08:00:00Z.
pub const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

/// A clock moved by hand. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn at(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.unix_secs())))
    }

    /// Puts the clock to `at`, forward or back.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.unix_secs(), Ordering::SeqCst);
    }

    /// Moves the clock by `secs`, back when negative, and returns the new time.
    pub fn advance(&self, secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(self.0.fetch_add(secs, Ordering::SeqCst) + secs)
    }

    /// The same clock for code that takes any clock.
    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }
}

impl Default for ManualClock {
    /// Stands at [`NOW`].
    fn default() -> Self {
        Self::at(NOW)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_secs(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_moves_only_when_told_and_all_its_handles_with_it() {
        let clock = ManualClock::default();
        let other = clock.shared();
        assert_eq!((clock.now(), other.now()), (NOW, NOW));
        assert_eq!(clock.advance(90), NOW + 90);
        assert_eq!(other.now(), NOW + 90);
        assert_eq!(clock.advance(-100), NOW - 10);
        clock.set(Timestamp::from_unix_secs(5));
        assert_eq!(other.now().unix_secs(), 5);
    }
}
