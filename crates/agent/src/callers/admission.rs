//! How much one process and one user may ask for before it is known who they are: calls at a time, and attestations in a
//! stretch of time.
//!
//! An attestation costs the agent far more than the call costs its caller. So each process and each user has a bucket of
//! them, large enough for a node that starts everything at once, refilled at a rate that leaves room for others. The
//! agent's own process has no bound. Start at [`Admission::enter`] and [`Admission::attestation`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spindle_transport::{Crowd, CrowdLimits, Crowded, LocalPeer, Place, is_ourselves};
use tokio::time::Instant;

use crate::config::CallerLimits;

/// Processes, and users, that are told apart. When more are busy at once, the rest of the processes count by user only, and
/// the rest of the users not at all.
const BUSY_MAX: usize = 16_384;

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

/// The bounds of one agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Bounds>);

struct Bounds {
    calls: Crowd,
    processes: Buckets<i32>,
    users: Buckets<u32>,
    epoch: Instant,
}

/// Too many attestations were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// Whether by the process, or by all of its user's.
    pub(crate) who: Crowded,
    /// When the next one is possible.
    pub(crate) after: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &CallerLimits) -> Self {
        let calls = CrowdLimits {
            total: usize::MAX,
            per_user: limits.calls_per_user,
            per_process: limits.calls_per_process,
        };
        Self(Arc::new(Bounds {
            calls: Crowd::new(calls),
            processes: Buckets::of(limits.attestations_per_process),
            users: Buckets::of(limits.attestations_per_user),
            epoch: Instant::now(),
        }))
    }

    /// A place for one more call, for as long as it lasts.
    ///
    /// # Errors
    /// The bound that it would be beyond.
    pub(crate) fn enter(&self, peer: &LocalPeer) -> Result<Place, Crowded> {
        self.0.calls.enter(peer.uid, peer.pid)
    }

    /// Counts one attestation.
    ///
    /// # Errors
    /// When the bucket of the process or of its user is empty.
    pub(crate) fn attestation(&self, peer: &LocalPeer) -> Result<(), TooOften> {
        if is_ourselves(peer.pid) {
            return Ok(());
        }
        let (bounds, now) = (&self.0, self.0.epoch.elapsed());
        if peer.pid > 0 {
            bounds
                .processes
                .take(peer.pid, now)
                .map_err(|after| TooOften { who: Crowded::Process, after })?;
        }
        bounds.users.take(peer.uid, now).map_err(|after| TooOften { who: Crowded::User, after })
    }
}

/// One bucket for each key that is busy, as the moment at which it is full again. Moments count from one fixed point.
struct Buckets<K> {
    each: Duration,
    full: Duration,
    busy: Mutex<HashMap<K, Duration>>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn of(rate: Rate) -> Self {
        let each = Duration::from_secs(1) / rate.per_sec.max(1);
        Self { each, full: each * rate.burst.max(1), busy: Mutex::default() }
    }

    /// Takes one, or tells how long it takes until there is one.
    fn take(&self, key: K, now: Duration) -> Result<(), Duration> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.len() >= BUSY_MAX && !busy.contains_key(&key) {
            // A full bucket is as good as none.
            busy.retain(|_, full_at| *full_at > now);
            busy.shrink_to(BUSY_MAX / 8);
            if busy.len() >= BUSY_MAX {
                return Ok(());
            }
        }
        let bucket = busy.entry(key).or_default();
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

#[cfg(test)]
mod tests {
    use spindle_transport::Notes;

    use super::*;

    const RATE: Rate = Rate { burst: 3, per_sec: 2 };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn peer(uid: u32, pid: i32) -> LocalPeer {
        LocalPeer { pid, uid, gid: 1, pidfd: None, notes: Notes::default() }
    }

    fn limits() -> CallerLimits {
        CallerLimits {
            calls_per_process: 2,
            calls_per_user: 3,
            attestations_per_process: RATE,
            attestations_per_user: Rate { burst: 4, per_sec: 2 },
            ..CallerLimits::default()
        }
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
    fn however_many_processes_call_memory_is_bounded() {
        let buckets = Buckets::of(RATE);
        for pid in 0..3 * BUSY_MAX as i32 {
            buckets.take(pid, secs(0)).unwrap();
        }
        assert!(buckets.busy.lock().unwrap().len() <= BUSY_MAX);
        assert!(buckets.take(-1, secs(60)).is_ok());
        assert_eq!(buckets.busy.lock().unwrap().len(), 1, "those who rest are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_attests_too_often_is_refused_and_others_of_its_user_are_not() {
        let admission = Admission::new(&limits());
        let attest = |uid, pid| admission.attestation(&peer(uid, pid)).map_err(|refused| refused.who);
        assert_eq!([attest(1, 11), attest(1, 11), attest(1, 11)], [Ok(()); 3]);
        assert_eq!(attest(1, 11), Err(Crowded::Process));
        assert_eq!(attest(1, 12), Ok(()));
        assert_eq!(attest(1, 13), Err(Crowded::User), "the user's bucket is empty");
        assert_eq!(attest(2, 21), Ok(()));
        tokio::time::advance(secs(1)).await;
        assert_eq!(attest(1, 11), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_process_may_attest_and_call_without_bound() {
        let admission = Admission::new(&limits());
        let ours = peer(1, i32::try_from(std::process::id()).unwrap());
        let places: Vec<Place> = (0..100).map(|_| admission.enter(&ours).unwrap()).collect();
        assert!((0..100).all(|_| admission.attestation(&ours).is_ok()) && places.len() == 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_and_a_user_have_so_many_calls_at_a_time() {
        let admission = Admission::new(&limits());
        let enter = |uid, pid| admission.enter(&peer(uid, pid));
        let first = [enter(1, 11).unwrap(), enter(1, 11).unwrap()];
        assert_eq!(enter(1, 11).unwrap_err(), Crowded::Process);
        let second = enter(1, 12).unwrap();
        assert_eq!(enter(1, 13).unwrap_err(), Crowded::User);
        assert!(enter(2, 21).is_ok());
        drop((first, second));
        assert!(enter(1, 11).is_ok());
    }
}
