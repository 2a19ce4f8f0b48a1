//! The buckets of one limit: each is one point in time, so thousands of callers cost little, and how many are told apart is
//! bounded. Identities and addresses are kept apart, so that strangers cannot crowd out those who are known.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spindle_spiffe_core::SpiffeId;

use super::source::Key;

/// Callers of one kind told apart: a large fleet. When so many are busy at once, the rest share some buckets.
pub(super) const CALLERS_MAX: usize = 16_384;

/// Buckets for the rest. Which one a caller gets nobody can foretell, so none can be aimed at.
const SHARED: usize = 1024;

/// One second's worth: a bucket holds as much as flows in within it.
pub(super) const FULL: Duration = Duration::from_secs(1);

/// Too many are before this call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// How long it would have to wait.
    pub(super) pause: Duration,
}

/// When the bucket is full again, if nothing more is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket(Duration);

#[derive(Debug, Default)]
pub(super) struct Buckets {
    identities: Mutex<Shelf<SpiffeId>>,
    addresses: Mutex<Shelf<IpAddr>>,
}

impl Buckets {
    /// Takes what flows in within `takes` out of the caller's bucket, and tells how long to wait until it was in there.
    /// Takes nothing when that is longer than `most`. `now` counts from any fixed point.
    pub(super) fn reserve(
        &self,
        caller: &Key,
        takes: Duration,
        now: Duration,
        most: Duration,
    ) -> Result<Duration, Excess> {
        match caller {
            Key::Identity(id) => locked(&self.identities).of(id, now).take(takes, now, most),
            Key::Address(address) => locked(&self.addresses).of(address, now).take(takes, now, most),
        }
    }

    /// Puts back what was taken for a call that has gone before its turn. `full_at` is when the bucket was to be full again
    /// right after it was taken.
    pub(super) fn give_back(&self, caller: &Key, takes: Duration, full_at: Duration, now: Duration) {
        match caller {
            Key::Identity(id) => locked(&self.identities).of(id, now).put_back(takes, full_at, now),
            Key::Address(address) => locked(&self.addresses).of(address, now).put_back(takes, full_at, now),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Shelf<K> {
    own: HashMap<K, Bucket>,
    shared: Vec<Bucket>,
    hasher: RandomState,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { own: HashMap::new(), shared: Vec::new(), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone> Shelf<K> {
    fn of(&mut self, caller: &K, now: Duration) -> &mut Bucket {
        if self.own.len() >= CALLERS_MAX && !self.own.contains_key(caller) {
            // A full bucket is as good as none.
            self.own.retain(|_, bucket| bucket.0 > now);
            if self.own.len() >= CALLERS_MAX {
                self.shared.resize(SHARED, Bucket::default());
                let at = usize::try_from(self.hasher.hash_one(caller) % SHARED as u64).unwrap_or(0);
                return &mut self.shared[at];
            }
        }
        self.own.entry(caller.clone()).or_default()
    }
}

impl Bucket {
    fn take(&mut self, takes: Duration, now: Duration, most: Duration) -> Result<Duration, Excess> {
        let full_at = self.0.max(now) + takes;
        let pause = full_at.saturating_sub(now + FULL);
        if pause > most {
            return Err(Excess { pause });
        }
        self.0 = full_at;
        Ok(pause)
    }

    /// As Go's limiter does it: less what others have taken since, for their turns do not move and would come in one burst
    /// with those who got the same moment again.
    fn put_back(&mut self, takes: Duration, full_at: Duration, now: Duration) {
        let taken_since = self.0.saturating_sub(full_at);
        self.0 = self.0.saturating_sub(takes.saturating_sub(taken_since)).max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    fn address(n: u32) -> Key {
        Key::Address(Ipv4Addr::from(n).into())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_a_second_passes_and_the_next_wait_in_a_queue() {
        let buckets = Buckets::default();
        let reserve = |at| buckets.reserve(&address(1), FULL, secs(at), MOST);
        assert_eq!(reserve(5), Ok(secs(0)));
        assert_eq!((reserve(5), reserve(5)), (Ok(secs(1)), Ok(secs(2))));
        assert_eq!(reserve(8), Ok(secs(0)), "the queue is over");
        assert_eq!(reserve(1000), Ok(secs(0)));
        assert_eq!(reserve(1000), Ok(secs(1)), "a long rest is worth one bucket and no more");
        assert_eq!(buckets.reserve(&address(2), FULL, secs(1000), MOST), Ok(secs(0)), "another has its own");
        let known = Key::Identity("spiffe://example.org/a".parse().unwrap());
        assert_eq!(buckets.reserve(&known, FULL, secs(1000), MOST), Ok(secs(0)));
    }

    #[test]
    fn what_is_taken_in_parts_adds_up() {
        let buckets = Buckets::default();
        let reserve = |millis| buckets.reserve(&address(1), Duration::from_millis(millis), secs(0), MOST);
        assert_eq!(reserve(1000), Ok(secs(0)));
        assert_eq!(reserve(500), Ok(Duration::from_millis(500)));
        assert_eq!(reserve(1000), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn who_would_wait_too_long_is_refused_and_takes_nothing() {
        let buckets = Buckets::default();
        let reserve = |at| buckets.reserve(&address(1), FULL, secs(at), MOST);
        for n in 0..=30 {
            assert_eq!(reserve(0), Ok(secs(n)));
        }
        assert_eq!(
            (reserve(0), reserve(0)),
            (Err(Excess { pause: secs(31) }), Err(Excess { pause: secs(31) }))
        );
        assert_eq!(reserve(1), Ok(secs(30)));
        assert_eq!(buckets.reserve(&address(1), FULL, secs(2), secs(5)), Err(Excess { pause: secs(30) }));
    }

    #[test]
    fn what_is_given_back_is_less_what_others_took_since_and_never_more_than_a_full_bucket() {
        let buckets = Buckets::default();
        let millis = Duration::from_millis;
        let reserve = |takes| buckets.reserve(&address(1), millis(takes), secs(5), MOST);
        assert_eq!(
            (reserve(1000), reserve(800), reserve(300)),
            (Ok(secs(0)), Ok(millis(800)), Ok(millis(1100)))
        );
        // The second of them: the third holds 300 of what it took.
        buckets.give_back(&address(1), millis(800), millis(6800), secs(5));
        assert_eq!(reserve(100), Ok(millis(700)));
        buckets.give_back(&address(1), millis(100), millis(6700), secs(9));
        let reserve = |at| buckets.reserve(&address(1), FULL, secs(at), MOST);
        assert_eq!((reserve(9), reserve(9)), (Ok(secs(0)), Ok(secs(1))), "one bucket and no more");
        buckets.give_back(&address(2), FULL, secs(1), secs(9));
        assert_eq!(buckets.reserve(&address(2), FULL, secs(9), MOST), Ok(secs(0)));
    }

    #[test]
    fn however_many_addresses_call_memory_is_bounded_and_identities_have_room() {
        let buckets = Buckets::default();
        let reserve = |n, at| buckets.reserve(&address(n), FULL, secs(at), MOST);
        let bound = u32::try_from(CALLERS_MAX).unwrap();
        for n in 0..bound {
            assert_eq!(reserve(n, 0), Ok(secs(0)));
        }
        for n in bound..2 * bound {
            // More than the shared buckets can take: some wait, and some are refused.
            let _ = reserve(n, 0);
        }
        assert_eq!(reserve(0, 0), Ok(secs(1)), "who has a bucket keeps it");
        let known = Key::Identity("spiffe://example.org/a".parse().unwrap());
        assert_eq!(buckets.reserve(&known, FULL, secs(0), MOST), Ok(secs(0)));
        let sizes = |buckets: &Buckets| {
            let addresses = buckets.addresses.lock().unwrap();
            (addresses.own.len(), addresses.shared.len())
        };
        assert_eq!(sizes(&buckets), (CALLERS_MAX, SHARED));
        assert_eq!(reserve(3 * bound, 9), Ok(secs(0)));
        assert_eq!(sizes(&buckets).0, 1, "those that rest are forgotten");
    }
}
