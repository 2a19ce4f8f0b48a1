//! The recent changes in memory, and the watchers that read them.
//!
//! Every change is appended once, in order. A watcher keeps only the revision it has seen, so that a slow one
//! costs nothing; one that falls behind what is retained gets an error and loads again. Start at [`Watch`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::WatchError;
use crate::record::Change;

/// Changes kept for watchers that are behind: some seconds of the heaviest load seen.
pub const RETAINED_CHANGES_MAX: usize = 4096;
/// Bytes of keys and values kept for them; the newest change is kept whatever its size.
pub const RETAINED_BYTES_MAX: usize = 8 << 20;

pub(crate) struct Log {
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The revision before the oldest retained change.
    floor: u64,
    latest: u64,
    closed: bool,
}

impl Log {
    pub(crate) fn new(revision: u64) -> Self {
        let (changes, floor, latest) = (VecDeque::new(), revision, revision);
        Self {
            state: Mutex::new(State { changes, bytes: 0, floor, latest, closed: false }),
            grown: Condvar::new(),
        }
    }

    /// No code panics while it holds this lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn append(&self, changes: &[Arc<Change>]) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.lock();
        changes.iter().for_each(|change| state.push(Arc::clone(change)));
        drop(state);
        self.grown.notify_all();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.grown.notify_all();
    }

    /// All retained changes later than `after`, or why there can be no such list.
    pub(crate) fn after(&self, after: u64) -> Result<Vec<Arc<Change>>, WatchError> {
        let state = self.lock();
        let start = state.place(after)?;
        Ok(state.changes.range(start..).cloned().collect())
    }
}

impl State {
    fn push(&mut self, change: Arc<Change>) {
        self.latest = change.revision;
        self.bytes += bytes(&change);
        self.changes.push_back(change);
        while self.changes.len() > RETAINED_CHANGES_MAX
            || (self.bytes > RETAINED_BYTES_MAX && self.changes.len() > 1)
        {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= bytes(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// Where the changes later than `after` start.
    fn place(&self, after: u64) -> Result<usize, WatchError> {
        if after < self.floor {
            return Err(WatchError::TooOld { after, oldest: self.floor });
        }
        if after > self.latest {
            return Err(WatchError::Ahead { after, latest: self.latest });
        }
        Ok(self.changes.partition_point(|change| change.revision <= after))
    }
}

fn bytes(change: &Change) -> usize {
    let puts: usize = change.puts.iter().map(|record| record.key.key.len() + record.value.len()).sum();
    puts + change.deletes.iter().map(|key| key.key.len()).sum::<usize>()
}

/// All changes later than a revision, in order, none left out, none twice.
///
/// As an iterator it blocks until there is a change and ends when the store is closed, after the last change.
/// An error is given once and ends it: the watcher must load again and watch from there.
pub struct Watch {
    log: Arc<Log>,
    seen: u64,
    ended: bool,
}

/// What [`Watch::next_timeout`] came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The next change.
    Change(Arc<Change>),
    /// The time passed without one.
    TimedOut,
    /// The store is closed and all its changes were given.
    Closed,
}

impl Watch {
    pub(crate) fn new(log: Arc<Log>, after: u64) -> Result<Self, WatchError> {
        log.lock().place(after)?;
        Ok(Self { log, seen: after, ended: false })
    }

    /// The revision of the last change given, or the one the watch started after.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next change; waits for at most `timeout`. With a zero timeout it only looks.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Waited, WatchError> {
        let log = Arc::clone(&self.log);
        let state = log.lock();
        let nothing_yet = |state: &mut State| !state.closed && state.latest == self.seen;
        let waited = log.grown.wait_timeout_while(state, timeout, nothing_yet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let idle = if state.closed { Waited::Closed } else { Waited::TimedOut };
        Ok(self.take(&state)?.map_or(idle, Waited::Change))
    }

    fn take(&mut self, state: &State) -> Result<Option<Arc<Change>>, WatchError> {
        let next = state.changes.get(state.place(self.seen)?);
        self.seen = next.map_or(self.seen, |change| change.revision);
        Ok(next.cloned())
    }
}

impl Iterator for Watch {
    type Item = Result<Arc<Change>, WatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let log = Arc::clone(&self.log);
        let nothing_yet = |state: &mut State| !state.closed && state.latest == self.seen;
        let state = log.grown.wait_while(log.lock(), nothing_yet).unwrap_or_else(PoisonError::into_inner);
        let next = self.take(&state).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Record, RecordKey};

    fn change(revision: u64, value_bytes: usize) -> Arc<Change> {
        let key = RecordKey::new(Kind(0), "");
        let puts = vec![Record { key, value: vec![0; value_bytes].into(), revision }];
        Arc::new(Change { revision, puts, deletes: Vec::new() })
    }

    fn log(revisions: std::ops::RangeInclusive<u64>) -> Arc<Log> {
        let log = Log::new(revisions.start() - 1);
        log.append(&revisions.map(|n| change(n, 1)).collect::<Vec<_>>());
        Arc::new(log)
    }

    #[test]
    fn a_watch_gives_every_later_change_once_and_ends_with_the_store() {
        let log = log(11..=15);
        let watch = Watch::new(Arc::clone(&log), 12).expect("retained");
        log.close();
        let seen: Vec<_> = watch.map(|change| change.expect("change").revision).collect();
        assert_eq!(seen, [13, 14, 15]);
    }

    #[test]
    fn a_watch_from_before_the_store_was_opened_is_refused() {
        let refused = Watch::new(log(11..=15), 9).err().expect("refused");
        assert_eq!(refused, WatchError::TooOld { after: 9, oldest: 10 });
    }

    #[test]
    fn a_watch_from_the_future_is_refused() {
        let refused = Watch::new(log(11..=15), 16).err().expect("refused");
        assert_eq!(refused, WatchError::Ahead { after: 16, latest: 15 });
    }

    #[test]
    fn a_watch_that_falls_behind_gets_one_error_and_ends() {
        let log = log(1..=1);
        let mut watch = Watch::new(Arc::clone(&log), 0).expect("retained");
        let more = RETAINED_CHANGES_MAX as u64 + 2;
        log.append(&(2..=more).map(|n| change(n, 1)).collect::<Vec<_>>());
        assert_eq!(watch.next(), Some(Err(WatchError::TooOld { after: 0, oldest: 2 })));
        assert_eq!(watch.next(), None);
    }

    #[test]
    fn retained_bytes_are_bounded_but_the_newest_change_is_kept() {
        let log = log(1..=3);
        log.append(&[change(4, RETAINED_BYTES_MAX)]);
        assert_eq!(log.after(3).expect("retained").len(), 1);
        assert_eq!(log.after(2), Err(WatchError::TooOld { after: 2, oldest: 3 }));
    }

    #[test]
    fn a_look_without_waiting_tells_idle_from_closed() {
        let log = log(1..=1);
        let mut watch = Watch::new(Arc::clone(&log), 1).expect("retained");
        assert_eq!(watch.next_timeout(Duration::ZERO), Ok(Waited::TimedOut));
        log.close();
        assert_eq!(watch.next_timeout(Duration::ZERO), Ok(Waited::Closed));
    }
}
