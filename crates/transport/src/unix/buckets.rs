//! Token buckets: what is asked for at once is bounded, and so is what is asked for in the long run. Pure: who asks tells
//! the time. Memory is bounded, too. Start at [`Buckets::take`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Keys that are told apart. When more are busy at once, the rest are not counted.
const BUSY_MAX: usize = 16_384;

/// How long after full buckets were looked for, in vain perhaps, they are looked for again.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(100);

/// So many at once, and after that so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A full bucket.
    pub burst: u32,
    /// What flows in each second.
    pub per_sec: u32,
}

impl Rate {
    /// So many a second, and ten seconds' worth at once: a node starts all its workloads at the same moment.
    pub const fn of_callers(per_sec: u32) -> Self {
        Self { burst: per_sec.saturating_mul(10), per_sec }
    }
}

/// One bucket for each key that is busy, as the moment at which it is full again. Moments count from one fixed point.
#[derive(Debug)]
pub struct Buckets<K> {
    each: Duration,
    full: Duration,
    busy: Mutex<Busy<K>>,
}

/// When each bucket is full again.
#[derive(Debug)]
struct Busy<K> {
    full_at: HashMap<K, Duration>,
    /// When full ones may be looked for.
    look_at: Duration,
}

impl<K: Hash + Eq> Buckets<K> {
    /// One bucket of this size for each key.
    pub fn of(rate: Rate) -> Self {
        let each = Duration::from_secs(1) / rate.per_sec.max(1);
        let busy = Busy { full_at: HashMap::new(), look_at: Duration::ZERO };
        Self { each, full: each * rate.burst.max(1), busy: Mutex::new(busy) }
    }

    /// Takes one in any case and tells how long after `now` it is there: at once while the bucket is not empty, and then one
    /// after the other. Who asks must bound how many wait.
    pub fn reserve(&self, key: K, now: Duration) -> Duration {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.make_room(&key, now) {
            return Duration::ZERO;
        }
        let bucket = busy.full_at.entry(key).or_default();
        *bucket = (*bucket).max(now) + self.each;
        bucket.saturating_sub(now + self.full)
    }

    /// Takes one at `now`, which counts from the same moment at each call.
    ///
    /// # Errors
    /// When the bucket is empty: how long it takes until there is one.
    pub fn take(&self, key: K, now: Duration) -> Result<(), Duration> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.make_room(&key, now) {
            return Ok(());
        }
        let bucket = busy.full_at.entry(key).or_default();
        let full_at = (*bucket).max(now) + self.each;
        match full_at.checked_sub(now + self.full).filter(|pause| !pause.is_zero()) {
            Some(pause) => Err(pause),
            None => {
                *bucket = full_at;
                Ok(())
            }
        }
    }
}

impl<K: Hash + Eq> Busy<K> {
    /// Whether `key` has a bucket, or can have one.
    fn make_room(&mut self, key: &K, now: Duration) -> bool {
        if self.full_at.len() < BUSY_MAX || self.full_at.contains_key(key) {
            return true;
        }
        if now >= self.look_at {
            self.look_at = now + LOOKED_FOR_EVERY;
            // A full bucket is as good as none.
            self.full_at.retain(|_, full_at| *full_at > now);
            self.full_at.shrink_to(BUSY_MAX / 8);
        }
        self.full_at.len() < BUSY_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_sec: 2 };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_what_flows_in() {
        let buckets = Buckets::of(RATE);
        let take = |now| buckets.take(1, now);
        assert_eq!([take(secs(5)), take(secs(5)), take(secs(5))], [Ok(()); 3]);
        assert_eq!(take(secs(5)), Err(Duration::from_millis(500)));
        assert_eq!([take(secs(6)), take(secs(6))], [Ok(()); 2]);
        assert!(take(secs(6)).is_err() && buckets.take(2, secs(6)).is_ok(), "another has its own");
        assert_eq!([take(secs(60)), take(secs(60)), take(secs(60))], [Ok(()); 3]);
        assert!(take(secs(60)).is_err(), "a long rest is worth one bucket and no more");
    }

    #[test]
    fn those_who_wait_have_their_turn_one_after_the_other() {
        let buckets = Buckets::of(RATE);
        let turns: Vec<u128> = (0..6).map(|_| buckets.reserve(1, secs(5)).as_millis()).collect();
        assert_eq!(turns, [0, 0, 0, 500, 1000, 1500]);
        assert_eq!(buckets.reserve(1, secs(7)), Duration::ZERO, "all have had theirs");
        assert_eq!(buckets.reserve(2, secs(5)), Duration::ZERO, "another has its own");
    }

    #[test]
    fn however_many_processes_call_memory_is_bounded() {
        let buckets = Buckets::of(RATE);
        for pid in 0..3 * BUSY_MAX as i32 {
            buckets.take(pid, secs(0)).unwrap();
        }
        assert!(buckets.busy.lock().unwrap().full_at.len() <= BUSY_MAX);
        assert!(buckets.take(-1, secs(60)).is_ok());
        assert_eq!(buckets.busy.lock().unwrap().full_at.len(), 1, "those who rest are forgotten");
    }
}
