//! Remembers which tokens were shown, so that each is accepted once (JWT-SVID 7.1, WIT-SVID 7.2).
//!
//! Pure and bounded. What is remembered is a hash: of the token's ID where it has one, else of what was signed, because
//! from one ECDSA signature anybody can make another that verifies. A full memory refuses; nothing that could still be
//! accepted is ever forgotten, also when the clock is set back. Start at [`ReplayCache::admit`].

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;

use crate::reason::Reason;
use crate::time::Timestamp;

/// A token that was shown, and until when it could be shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    token: Fingerprint,
    until: Timestamp,
}

type Fingerprint = [u8; 32];

/// The tokens shown and not yet over, at most a fixed number. Each takes about 150 bytes.
#[derive(Debug)]
pub struct ReplayCache {
    capacity: usize,
    seen: BTreeMap<Fingerprint, Timestamp>,
    by_end: BTreeSet<(Timestamp, Fingerprint)>,
    /// Everything that ended before this was forgotten.
    forgotten_before: Timestamp,
}

/// Why a token is not accepted, though it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was shown before.
    #[error("the token was shown before, and each is accepted once")]
    Seen,
    /// The memory is full of tokens that have not ended.
    #[error("{0} tokens that have not ended were shown, and no more can be remembered")]
    Full(usize),
    /// The clock was set back to before the end of tokens that were forgotten.
    #[error("the token may have been shown before the clock was set back")]
    Forgotten,
}

impl ReplayError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(self) -> Reason {
        match self {
            Self::Seen | Self::Forgotten => Reason::TokenReplayed,
            Self::Full(_) => Reason::Overloaded,
        }
    }
}

impl Sighting {
    /// Of the token that these texts name, which is over at `until`.
    pub(crate) fn new(name: &[&str], until: Timestamp) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for text in name {
            // The length in front keeps apart what would read alike when joined.
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        let mut token = Fingerprint::default();
        token.copy_from_slice(hash.finish().as_ref());
        Self { token, until }
    }
}

impl ReplayCache {
    /// Remembers at most `capacity` tokens that have not ended.
    pub fn new(capacity: usize) -> Self {
        let forgotten_before = Timestamp::from_unix_secs(i64::MIN);
        Self { capacity, seen: BTreeMap::new(), by_end: BTreeSet::new(), forgotten_before }
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Accepts a token that was not shown before, and remembers it to its end.
    ///
    /// # Errors
    /// When it was shown before, may have been, or cannot be remembered.
    pub fn admit(&mut self, sighting: Sighting, now: Timestamp) -> Result<(), ReplayError> {
        self.forget_ended(now);
        let Sighting { token, until } = sighting;
        if self.seen.contains_key(&token) {
            return Err(ReplayError::Seen);
        }
        if until <= self.forgotten_before {
            return Err(ReplayError::Forgotten);
        }
        if self.seen.len() >= self.capacity {
            return Err(ReplayError::Full(self.capacity));
        }
        self.seen.insert(token, until);
        self.by_end.insert((until, token));
        Ok(())
    }

    fn forget_ended(&mut self, now: Timestamp) {
        while let Some(&(until, token)) = self.by_end.first()
            && until <= now
        {
            self.by_end.pop_first();
            self.seen.remove(&token);
            self.forgotten_before = self.forgotten_before.max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    fn token(name: u8, until: i64) -> Sighting {
        Sighting::new(&[&name.to_string()], at(until))
    }

    #[test]
    fn a_token_is_accepted_once_while_it_lasts() {
        let mut cache = ReplayCache::new(9);
        assert_eq!(cache.admit(token(1, 10), at(0)), Ok(()));
        assert_eq!(cache.admit(token(1, 10), at(9)), Err(ReplayError::Seen));
        assert_eq!(cache.admit(token(2, 10), at(9)), Ok(()));
        assert_eq!(ReplayError::Seen.reason(), Reason::TokenReplayed);
    }

    #[test]
    fn a_full_memory_refuses_and_forgets_nothing_until_a_token_ends() {
        let mut cache = ReplayCache::new(2);
        cache.admit(token(1, 10), at(0)).unwrap();
        cache.admit(token(2, 20), at(0)).unwrap();
        assert_eq!(cache.admit(token(3, 30), at(9)), Err(ReplayError::Full(2)));
        assert_eq!(ReplayError::Full(2).reason(), Reason::Overloaded);
        assert_eq!(cache.admit(token(1, 10), at(9)), Err(ReplayError::Seen), "also while it is full");
        assert_eq!(cache.admit(token(3, 30), at(10)), Ok(()));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_revives_no_token() {
        let mut cache = ReplayCache::new(9);
        cache.admit(token(1, 10), at(0)).unwrap();
        cache.admit(token(2, 50), at(20)).unwrap();
        assert_eq!(cache.len(), 1, "the first has ended");
        assert_eq!(cache.admit(token(1, 10), at(5)), Err(ReplayError::Forgotten));
        assert_eq!(cache.admit(token(3, 11), at(5)), Ok(()), "nothing that ends later was forgotten");
    }

    #[test]
    fn names_that_read_alike_when_joined_are_different_tokens() {
        let until = at(1);
        assert_ne!(Sighting::new(&["a", "bc"], until), Sighting::new(&["ab", "c"], until));
        assert_ne!(Sighting::new(&["a", ""], until), Sighting::new(&["a"], until));
    }

    proptest! {
        /// Whatever the clock does, no token is accepted twice, and the memory keeps its bound.
        #[test]
        fn no_token_is_accepted_twice(
            capacity in 1usize..6,
            shown in prop::collection::vec((0u8..8, 0i64..40), 0..80),
        ) {
            let mut cache = ReplayCache::new(capacity);
            let mut accepted = BTreeSet::new();
            for (name, now) in shown {
                let until = 10 + 5 * i64::from(name);
                // A validator refuses what has ended before it asks.
                if now < until && cache.admit(token(name, until), at(now)).is_ok() {
                    prop_assert!(accepted.insert(name), "{} twice", name);
                }
                prop_assert!(cache.len() <= capacity && cache.by_end.len() == cache.len());
            }
        }
    }
}
