//! Growing pauses between tries.
//!
//! Each pause is the former one times a factor, up to a maximum, then shifted by jitter so that many callers who failed
//! together do not come back together. The maximum holds after the shift too. Start at [`Backoff::next_pause`].

use std::time::Duration;

use crate::jitter::Jitter;

/// How pauses grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer, jitter included.
    pub max: Duration,
    /// Each pause in percent of the one before; below 100 counts as 100.
    pub growth_percent: u32,
    /// How far a pause is shifted at most, in percent of itself.
    pub jitter_percent: u32,
}

/// The pauses of one caller since its last success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    policy: BackoffPolicy,
    next: Duration,
}

impl Default for BackoffPolicy {
    /// One second, growing by half to one minute, jitter 10 %: SPIRE's growth and jitter, but a shorter end, because a
    /// server that is back should be found soon and can take one call a minute from every agent.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            growth_percent: 150,
            jitter_percent: 10,
        }
    }
}

impl Backoff {
    /// Starts at the policy's first pause.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, next: policy.first.min(policy.max) }
    }

    /// The pause after one more failure.
    pub fn next_pause(&mut self, jitter: Jitter) -> Duration {
        let pause = jitter.spread(micros(self.next), self.policy.jitter_percent);
        let grown = u128::from(micros(self.next)) * u128::from(self.policy.growth_percent.max(100)) / 100;
        let grown = Duration::from_micros(u64::try_from(grown).unwrap_or(u64::MAX));
        self.next = grown.min(self.policy.max);
        Duration::from_micros(pause).min(self.policy.max)
    }

    /// After a success the next failure starts anew.
    pub fn reset(&mut self) {
        *self = Self::new(self.policy);
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BackoffPolicy::default())
    }
}

fn micros(pause: Duration) -> u64 {
    u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_grow_by_half_up_to_the_maximum_and_start_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..13).map(|_| micros(backoff.next_pause(Jitter::NONE)) / 1000).collect();
        assert_eq!(pauses[..4], [1000, 1500, 2250, 3375]);
        assert_eq!(pauses[11..], [60_000, 60_000]);
        backoff.reset();
        assert_eq!(backoff.next_pause(Jitter::NONE), Duration::from_secs(1));
    }

    #[test]
    fn a_first_pause_above_the_maximum_is_cut() {
        let policy = BackoffPolicy { first: Duration::MAX, ..BackoffPolicy::default() };
        assert_eq!(Backoff::new(policy).next_pause(Jitter::NONE), policy.max);
    }

    proptest! {
        #[test]
        fn no_pause_passes_the_maximum_or_vanishes(
            draws in prop::collection::vec(any::<u64>(), 1..60),
            first_ms in 1u64..100_000,
            max_ms in 1u64..1_000_000,
            growth_percent in 0u32..1000,
            jitter_percent in 0u32..=50,
        ) {
            let (first, max) = (Duration::from_millis(first_ms), Duration::from_millis(max_ms));
            let mut backoff = Backoff::new(BackoffPolicy { first, max, growth_percent, jitter_percent });
            for draw in draws {
                let pause = backoff.next_pause(Jitter::from_number(draw));
                prop_assert!(pause <= max && pause >= first.min(max) / 2);
            }
        }

        #[test]
        fn without_jitter_no_pause_is_shorter_than_the_one_before(growth_percent in 0u32..1000) {
            let mut backoff = Backoff::new(BackoffPolicy { growth_percent, ..BackoffPolicy::default() });
            let mut former = Duration::ZERO;
            for _ in 0..40 {
                let pause = backoff.next_pause(Jitter::NONE);
                prop_assert!(pause >= former);
                former = pause;
            }
        }
    }
}
