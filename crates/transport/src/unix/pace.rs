//! How often a process and its user may do something: open a connection, be attested.
//!
//! Whoever has done it too often of late is told when the next time is. Our own process has no bound: the agent's health
//! checks must get through when everybody else is refused. Start at [`Pace::take`].

use std::time::Duration;

use tokio::time::Instant;

use super::buckets::{Buckets, Rate};
use super::crowd::{Crowded, is_ourselves};

/// How often, for each process and for each user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// Of one process; those that are not visible in our process namespace are not told apart and count by user only.
    pub per_process: Rate,
    /// Of all processes of one user.
    pub per_user: Rate,
}

/// It was done too often of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    /// Whether by the process, or by all of its user's.
    pub who: Crowded,
    /// When the next time is.
    pub after: Duration,
}

/// Counts how often it was done.
#[derive(Debug)]
pub struct Pace {
    processes: Buckets<i32>,
    users: Buckets<u32>,
    epoch: Instant,
}

impl Pace {
    /// Nobody has done it yet.
    pub fn new(limits: PaceLimits) -> Self {
        let (processes, users) = (Buckets::of(limits.per_process), Buckets::of(limits.per_user));
        Self { processes, users, epoch: Instant::now() }
    }

    /// Counts one time more of process `pid` of user `uid` in any case, and tells how long it has to wait for its turn.
    /// Who asks must bound how many wait.
    pub fn turn(&self, uid: u32, pid: i32) -> Duration {
        if is_ourselves(pid) {
            return Duration::ZERO;
        }
        let now = self.epoch.elapsed();
        let of_process = if pid > 0 { self.processes.reserve(pid, now) } else { Duration::ZERO };
        of_process.max(self.users.reserve(uid, now))
    }

    /// Counts one time of process `pid` of user `uid`.
    ///
    /// # Errors
    /// When the process or its user has no more for now.
    pub fn take(&self, uid: u32, pid: i32) -> Result<(), TooOften> {
        if is_ourselves(pid) {
            return Ok(());
        }
        let now = self.epoch.elapsed();
        if pid > 0 {
            self.processes.take(pid, now).map_err(|after| TooOften { who: Crowded::Process, after })?;
        }
        self.users.take(uid, now).map_err(|after| TooOften { who: Crowded::User, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(PaceLimits {
            per_process: Rate { burst: 3, per_sec: 2 },
            per_user: Rate { burst: 4, per_sec: 2 },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_has_its_bound_and_its_user_another_and_both_come_back() {
        let pace = pace();
        let take = |uid, pid| pace.take(uid, pid).map_err(|too_often| too_often.who);
        assert_eq!([take(1, 11), take(1, 11), take(1, 11)], [Ok(()); 3]);
        assert_eq!(take(1, 11), Err(Crowded::Process));
        assert_eq!(take(1, 12), Ok(()));
        assert_eq!(take(1, 13), Err(Crowded::User));
        assert_eq!([take(2, 21), take(3, 0)], [Ok(()); 2]);
        let after = pace.take(1, 11).unwrap_err().after;
        tokio::time::advance(after).await;
        assert_eq!(take(1, 11), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_as_often_as_the_slower_of_the_two_bounds_allows() {
        let pace = pace();
        let turn = |uid, pid| pace.turn(uid, pid).as_millis();
        assert_eq!([turn(1, 11), turn(1, 11), turn(1, 11)], [0; 3]);
        assert_eq!([turn(1, 11), turn(1, 12), turn(2, 21), turn(3, 0)], [500, 500, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_process_has_no_bound() {
        let (pace, ours) = (pace(), i32::try_from(std::process::id()).unwrap());
        assert!((0..100).all(|_| pace.take(1, ours).is_ok() && pace.turn(1, ours).is_zero()));
    }
}
