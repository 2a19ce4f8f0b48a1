//! How much a process, a user and all together have at a time, so that nobody takes all there is room for: connections of a
//! listener, calls of a service.
//!
//! Counts only; what is done with one too many is decided by who asks. Our own process has no bound: the agent's health
//! checks must get through when everybody else is refused. Start at [`Crowd::enter`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};

/// Connections of one user to a socket for tools.
const TOOLS_PER_USER_MAX: usize = 4096;

/// Connections of one process to a socket for workloads: a client library opens one, a proxy a handful.
const WORKLOADS_PER_PROCESS_MAX: usize = 1024;

/// Descriptors kept for everything but workloads' connections: the server's connection, files, looks at processes.
const DESCRIPTORS_RESERVED: usize = 512;

/// Refused connections that are closed later.
const HELD_MAX: usize = 16_384;

/// How many of something are let in at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Of all together.
    pub total: usize,
    /// Of one user.
    pub per_user: usize,
    /// Of one process; those that are not visible in our process namespace are not told apart and count by user only.
    pub per_process: usize,
}

impl CrowdLimits {
    /// Connections of a socket that a few tools use.
    pub(crate) const TOOLS: Self =
        Self { total: usize::MAX, per_user: TOOLS_PER_USER_MAX, per_process: TOOLS_PER_USER_MAX };

    /// Refused connections that are told so; more of them are held, and closed without a word.
    pub(crate) const TOLD: Self = Self { total: 128, per_user: 64, per_process: 8 };

    /// Connections of a socket that every process of the node may use. Each costs one descriptor and some 20 KiB. All but a
    /// reserve of this process's descriptors can be connections, and one user may have three quarters of those.
    pub fn workload_connections() -> Self {
        let (descriptors, held) = (descriptors(), Self::held().total);
        let total = descriptors.saturating_sub(DESCRIPTORS_RESERVED + held).max(descriptors / 2);
        Self { total, per_user: total / 4 * 3, per_process: WORKLOADS_PER_PROCESS_MAX }
    }

    /// Refused connections of such a socket that are closed later only. Each costs one descriptor, and the kernel some
    /// kibibytes.
    pub(crate) fn held() -> Self {
        let total = (descriptors() / 8).min(HELD_MAX);
        Self { total, per_user: total / 4 * 3, per_process: total / 2 }
    }
}

/// The bound that one more would be beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// That of its process.
    Process,
    /// That of its user.
    User,
    /// That of all together.
    All,
}

impl Crowded {
    /// Who has too many.
    pub fn who(self) -> &'static str {
        match self {
            Self::Process => "the process",
            Self::User => "the user",
            Self::All => "the node",
        }
    }
}

/// Those that were let in. Clones share them.
#[derive(Clone, Debug)]
pub struct Crowd {
    limits: CrowdLimits,
    inside: Arc<Mutex<Tally>>,
}

/// By whom they belong to.
#[derive(Debug, Default)]
struct Tally {
    total: usize,
    users: HashMap<u32, usize>,
    processes: HashMap<i32, usize>,
}

/// A place inside, given back on drop.
#[derive(Debug)]
pub struct Place {
    inside: Arc<Mutex<Tally>>,
    uid: u32,
    pid: i32,
}

impl Crowd {
    /// Nobody, and room for so many.
    pub fn new(limits: CrowdLimits) -> Self {
        Self { limits, inside: Arc::default() }
    }

    /// A place for one more of process `pid` of user `uid`.
    ///
    /// # Errors
    /// The bound that it would be beyond.
    pub fn enter(&self, uid: u32, pid: i32) -> Result<Place, Crowded> {
        let mut inside = lock(&self.inside);
        match inside.crowded(&self.limits, uid, pid) {
            Some(crowded) if !is_ourselves(pid) => return Err(crowded),
            _ => inside.add(uid, pid),
        }
        Ok(Place { inside: self.inside.clone(), uid, pid })
    }
}

impl Tally {
    fn crowded(&self, limits: &CrowdLimits, uid: u32, pid: i32) -> Option<Crowded> {
        if pid > 0 && count(&self.processes, &pid) >= limits.per_process {
            Some(Crowded::Process)
        } else if count(&self.users, &uid) >= limits.per_user {
            Some(Crowded::User)
        } else if self.total >= limits.total {
            Some(Crowded::All)
        } else {
            None
        }
    }

    fn add(&mut self, uid: u32, pid: i32) {
        self.total += 1;
        *self.users.entry(uid).or_default() += 1;
        *self.processes.entry(pid).or_default() += 1;
    }

    fn remove(&mut self, uid: u32, pid: i32) {
        self.total = self.total.saturating_sub(1);
        one_less(&mut self.users, &uid);
        one_less(&mut self.processes, &pid);
    }
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Whether `pid` is the number of this very process.
pub fn is_ourselves(pid: i32) -> bool {
    // Asking the kernel each time would be a good part of what a refused connection costs.
    static OURSELVES: LazyLock<u32> = LazyLock::new(std::process::id);
    u32::try_from(pid).is_ok_and(|pid| pid == *OURSELVES)
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

/// Who has none left is forgotten, and so is the room for a crowd that has gone.
fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
    if counts.is_empty() {
        counts.shrink_to_fit();
    }
}

fn lock(inside: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.inside).remove(self.uid, self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CrowdLimits = CrowdLimits { total: 10, per_user: 6, per_process: 4 };

    /// Takes places until one is refused.
    fn fill(crowd: &Crowd, uid: u32, pid: i32) -> (Vec<Place>, Crowded) {
        let mut places = Vec::new();
        loop {
            match crowd.enter(uid, pid) {
                Ok(place) => places.push(place),
                Err(crowded) => return (places, crowded),
            }
        }
    }

    #[test]
    fn a_process_a_user_and_all_together_have_so_many_and_no_more() {
        let crowd = Crowd::new(LIMITS);
        let (first, why) = fill(&crowd, 1, 11);
        assert_eq!((first.len(), why), (4, Crowded::Process));
        let (second, why) = fill(&crowd, 1, 12);
        assert_eq!((second.len(), why), (2, Crowded::User), "the user's other process");
        let (third, why) = fill(&crowd, 2, 21);
        assert_eq!((third.len(), why), (4, Crowded::Process), "another user has his own");
        assert_eq!(fill(&crowd, 3, 31).1, Crowded::All);
        drop(first);
        assert_eq!(fill(&crowd, 3, 31).0.len(), 4);
    }

    #[test]
    fn places_are_given_back_and_who_left_is_forgotten() {
        let crowd = Crowd::new(LIMITS);
        let (mut places, _) = fill(&crowd, 1, 11);
        places.pop();
        assert!(crowd.enter(1, 11).is_ok());
        drop(places);
        let inside = lock(&crowd.inside);
        assert!(inside.users.is_empty() && inside.processes.is_empty() && inside.total == 0);
    }

    #[test]
    fn processes_that_are_not_visible_are_bounded_by_their_user() {
        let (places, why) = fill(&Crowd::new(LIMITS), 1, 0);
        assert_eq!((places.len(), why), (6, Crowded::User));
    }

    #[test]
    fn our_own_process_is_never_refused() {
        let crowd = Crowd::new(CrowdLimits { total: 0, per_user: 0, per_process: 0 });
        assert!(crowd.enter(1, i32::try_from(std::process::id()).unwrap()).is_ok());
        assert_eq!(crowd.enter(1, 1).unwrap_err(), Crowded::Process);
    }

    #[test]
    fn one_user_cannot_take_all_descriptors_of_the_agent() {
        let limits = CrowdLimits::workload_connections();
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!((limits.total as u64) < soft && limits.per_user < limits.total, "{limits:?}");
    }
}
