//! The operating system's randomness, through the process-wide generator of aws-lc.

use spindle_spiffe_core::Entropy;

/// Cryptographically strong randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // aws-lc aborts the process itself when the system has no randomness; an error here cannot be survived either.
        aws_lc_rs::rand::fill(bytes).expect("the operating system provides randomness");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_differ() {
        let (a, b) = (SystemEntropy.serial(), SystemEntropy.serial());
        assert_ne!(a, b);
        assert!(a[0] < 0x80 && b[0] < 0x80);
    }
}
