//! Blocking threads for looks at processes, shared so that nobody can take them all.
//!
//! A program on a dead network drive hangs the look at it for ever, and its thread with it. So each process has a small
//! share, each user a larger one, and the node a bound: one hung program costs itself, one hostile user costs himself.
//! Start at [`Threads::run`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// Looks at one process at a time: enough to use two processors, too few for one hung program to use up its user's share.
const PER_PROCESS: usize = 2;

/// Looks at the processes of one user, per processor: the work is short and mostly in the kernel.
const PER_USER_AND_PROCESSOR: usize = 4;

/// However many processors there are.
const PER_USER_MAX: usize = 32;

/// Threads of the whole node: a quarter of what the runtime has for all blocking work. It takes several hostile users
/// to hang them all.
const THREADS_MAX: usize = 128;

/// Shares remembered before idle ones are dropped.
const SHARES_MAX: usize = 1024;

/// The threads of one agent. Cheap to clone.
#[derive(Clone)]
pub(super) struct Threads(Arc<Bounds>);

struct Bounds {
    processes: Shares<i32>,
    users: Shares<u32>,
    all: Arc<Semaphore>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let per_user = (processors * PER_USER_AND_PROCESSOR).min(PER_USER_MAX);
        Self(Arc::new(Bounds {
            processes: Shares::of(PER_PROCESS),
            users: Shares::of(per_user),
            all: Arc::new(Semaphore::new(THREADS_MAX)),
        }))
    }

    /// Runs `work` for process `pid` of user `uid` once all three shares have room. Work that hangs keeps its place in
    /// each, so that hanging threads cannot pile up. Cancel-safe: what was not begun is not begun later.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        uid: u32,
        pid: i32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // From the smallest share to the largest: who waits for his own holds nothing that others need.
        let process = self.0.processes.permit(pid).await;
        let user = self.0.users.permit(uid).await;
        let node = self.0.all.clone().acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _permits = (process, user, node);
            work()
        })
        .await
    }
}

/// A semaphore for each key that is in use.
struct Shares<K> {
    each: usize,
    in_use: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Hash + Eq> Shares<K> {
    fn of(each: usize) -> Self {
        Self { each, in_use: Mutex::default() }
    }

    /// None only if a semaphore were closed, which nobody does.
    async fn permit(&self, key: K) -> Option<OwnedSemaphorePermit> {
        let share = self.share(key);
        share.acquire_owned().await.ok()
    }

    /// A semaphore that nobody else holds has no permit out and nobody waiting, so it can be made anew later.
    fn share(&self, key: K) -> Arc<Semaphore> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if in_use.len() >= SHARES_MAX && !in_use.contains_key(&key) {
            in_use.retain(|_, share| Arc::strong_count(share) > 1);
        }
        in_use.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures_util::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    /// Looks that hang until `Sender` goes.
    fn hung() -> (Sender<()>, Arc<Mutex<Receiver<()>>>) {
        let (sender, receiver) = channel();
        (sender, Arc::new(Mutex::new(receiver)))
    }

    async fn hang(threads: Threads, uid: u32, pid: i32, until: Arc<Mutex<Receiver<()>>>) {
        let _ = threads.run(uid, pid, move || until.lock().is_ok_and(|until| until.recv().is_err())).await;
    }

    /// Runs while `looks` are under way, all of which hang.
    async fn beside<T>(looks: impl Future, other: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            _ = looks => panic!("they hang"),
            done = async { yield_now().await; other.await } => done,
        }
    }

    #[tokio::test]
    async fn a_hung_program_stops_no_other_of_the_same_user() {
        let (threads, (release, until)) = (Threads::new(), hung());
        let looks = join_all((0..1000).map(|_| hang(threads.clone(), 1, 1, until.clone())));
        assert_eq!(beside(looks, threads.run(1, 2, || 7)).await.unwrap(), 7);
        drop(release);
    }

    #[tokio::test]
    async fn a_user_whose_programs_all_hang_stops_no_other() {
        let (threads, (release, until)) = (Threads::new(), hung());
        let looks = join_all((1..1000).map(|pid| hang(threads.clone(), 1, pid, until.clone())));
        assert_eq!(beside(looks, threads.run(2, 5000, || 7)).await.unwrap(), 7);
        drop(release);
    }

    #[tokio::test]
    async fn shares_that_nobody_uses_are_forgotten() {
        let threads = Threads::new();
        for pid in 0..3 * SHARES_MAX as i32 {
            threads.run(1, pid, || ()).await.unwrap();
        }
        assert!(threads.0.processes.in_use.lock().unwrap().len() <= SHARES_MAX);
    }
}
