//! A random fraction that spreads what would otherwise happen to everybody at once.

use spindle_spiffe_core::Entropy;

/// A number drawn once, evenly from the smallest to the largest, and applied to as many values as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter(u64);

impl Jitter {
    /// No shift at all.
    pub const NONE: Jitter = Jitter(1 << 63);

    /// Draws one.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self(entropy.number())
    }

    /// From an even random number, for callers that have one.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Shifts `value` by at most `percent` of itself, up or down; never below zero, never past `u64::MAX`.
    pub fn spread(self, value: u64, percent: u32) -> u64 {
        let width = i128::from(value) * i128::from(percent) / 100;
        // The drawn number counts from -2^63 to 2^63; the sign bit turned over makes it so.
        let offset = (width * i128::from((self.0 ^ 1 << 63).cast_signed())) >> 63;
        u64::try_from((i128::from(value) + offset).max(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_are_reached_and_the_middle_shifts_nothing() {
        assert_eq!(Jitter::from_number(0).spread(1000, 10), 900);
        assert_eq!(Jitter::NONE.spread(1000, 10), 1000);
        assert_eq!(Jitter::from_number(u64::MAX).spread(1000, 10), 1099);
        assert_eq!(Jitter::from_number(0).spread(1000, 200), 0);
        assert_eq!(Jitter::from_number(7).spread(0, 10), 0);
        assert_eq!(Jitter::from_number(u64::MAX).spread(u64::MAX, 100), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_value_keeps_within_its_percentage(number: u64, value in 0..u64::MAX / 4, percent in 0u32..=100) {
            let spread = Jitter::from_number(number).spread(value, percent);
            let width = u64::try_from(u128::from(value) * u128::from(percent) / 100).unwrap();
            prop_assert!(value - width <= spread && spread <= value + width);
        }

        #[test]
        fn a_larger_draw_never_comes_earlier(a: u64, b: u64, value in 0..u64::MAX / 4) {
            let at = |number| Jitter::from_number(number).spread(value, 10);
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
        }
    }
}
