//! Randomness that repeats: a SplitMix64 sequence, fixed by its seed.

use std::sync::atomic::{AtomicU64, Ordering};

use spindle_spiffe_core::Entropy;

/// The step of SplitMix64: odd, so that the state passes through all 64-bit numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A reproducible source. Each 8 bytes asked for are the next number of the sequence, whoever asks.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let mut mixed = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_be_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // The reference values of SplitMix64 for seed 1234567.
        let entropy = SeededEntropy::new(1_234_567);
        let numbers = [entropy.number(), entropy.number(), entropy.number()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            (entropy.uuid(), entropy.serial(), entropy.number())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn nothing_repeats_early() {
        let entropy = SeededEntropy::new(0);
        let seen: BTreeSet<_> = (0..10_000).map(|_| entropy.serial()).collect();
        assert_eq!(seen.len(), 10_000);
    }

    #[test]
    fn odd_lengths_are_filled_to_the_end() {
        let mut bytes = [0; 13];
        SeededEntropy::new(1).fill(&mut bytes);
        assert!(bytes[8..].iter().any(|&byte| byte != 0), "{bytes:?}");
        SeededEntropy::new(1).fill(&mut []);
    }
}
