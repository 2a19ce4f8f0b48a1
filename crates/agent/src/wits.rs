//! WIT-SVIDs for local workloads: made for the entries that somebody has an open stream for, and for no others.
//!
//! One task owns the plan ([`WitKeeper`]); streams say what they want and read what is held ([`WitSource`]). A WIT-SVID is
//! renewed by the rules of X509-SVIDs, the availability target among them, replaced when its authority is tainted, and gone with
//! its entry. Never given: one whose authority has left the own bundle. When nobody wants it any more it is kept until it would be
//! renewed, so that callers that come and go need no new one. Whether there are WIT-SVIDs at all is told by the own bundle: a
//! trust domain without keys for them has none (WIT-SVID 6.2). Start at [`WitSource::want`].

mod answer;
pub(crate) mod ask;
mod batch;
mod keeper;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_spiffe_core::{Bundle, EntryId, Selectors, SpiffeId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::{Cache, Matched, Unready};

use answer::Answers;
pub(crate) use answer::WitAnswer;
pub(crate) use keeper::{Parts, WitKeeper};
pub(crate) use token::HeldWit;

/// How long a server that says it has no WIT-SVIDs, although the bundle has keys for them, is believed.
const UNSUPPORTED_FOR: Duration = Duration::from_secs(60);

/// Where WIT-SVIDs come from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WitSource(Arc<Shared>);

struct Shared {
    cache: Arc<Cache>,
    state: Mutex<State>,
    answers: Mutex<Answers>,
    /// Counts the changes of what is held.
    changes: watch::Sender<u64>,
    /// Wakes the task when streams want other entries.
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// How many streams want each entry; none is not listed.
    wants: HashMap<EntryId, usize>,
    held: HashMap<EntryId, Result<Arc<HeldWit>, Unready>>,
    /// Until then the server's word that it has none is believed.
    unsupported_until: Option<Instant>,
}

/// One identity of an answer.
pub(crate) struct ShownWit {
    /// The identity, its hint unique among the caller's.
    pub(crate) matched: Matched,
    /// Its WIT-SVID, or why there is none.
    pub(crate) state: Result<Arc<HeldWit>, Unready>,
}

impl WitSource {
    /// A source that holds nothing yet.
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let (changes, wanted) = (watch::Sender::new(0), Notify::new());
        let (state, answers) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { cache, state, answers, changes, wanted }))
    }

    /// Whether this trust domain has WIT-SVIDs, as far as is known. Before the first sync nothing is.
    pub(crate) fn is_supported(&self) -> bool {
        let is_doubted = self.lock().unsupported_until.is_some_and(|until| Instant::now() < until);
        !is_doubted && !self.own_bundle().wit_authorities.is_empty()
    }

    /// A stream's wish list, empty at first. What is on it is kept signed until the list is dropped.
    pub(crate) fn want(&self) -> Wants {
        Wants { source: self.clone(), ids: BTreeSet::new() }
    }

    /// Told of each change of what is held.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The identities that a workload with `selectors` matches at this moment, or those of `spiffe_id`, the default one first.
    pub(crate) fn shown(&self, selectors: &Selectors, spiffe_id: Option<&SpiffeId>) -> Vec<ShownWit> {
        let mut matching = self.0.cache.matching(selectors);
        matching.retain(|one| spiffe_id.is_none_or(|id| one.entry.spiffe_id == *id));
        let (bundle, state) = (self.own_bundle(), self.lock());
        let shown = matching.into_iter().map(|matched| {
            let held = state.held.get(&matched.entry.id).cloned().unwrap_or(Err(Unready::Signing));
            let state = held.and_then(|held| match held.serves(&matched.entry, &bundle) {
                true => Ok(held),
                false => Err(Unready::Signing),
            });
            ShownWit { matched, state }
        });
        shown.collect()
    }

    /// The answer with what is ready of `shown`, the same one for all who are shown the same.
    pub(crate) fn answer(&self, shown: &[ShownWit]) -> Arc<WitAnswer> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).shared(shown)
    }

    fn own_bundle(&self) -> Arc<Bundle> {
        self.0.cache.snapshot().own_bundle().whole.clone()
    }

    /// Replaces what is held of one entry; none forgets it.
    fn hold(&self, id: &EntryId, state: Option<Result<Arc<HeldWit>, Unready>>) {
        let mut all = self.lock();
        match state {
            Some(state) => drop(all.held.insert(id.clone(), state)),
            None => drop(all.held.remove(id)),
        }
        drop(all);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// The server has no WIT-SVIDs: whoever waits for one is told.
    fn doubt(&self) {
        self.lock().unsupported_until = Some(Instant::now() + UNSUPPORTED_FOR);
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one stream wants.
pub(crate) struct Wants {
    source: WitSource,
    ids: BTreeSet<EntryId>,
}

impl Wants {
    /// Wants these entries from now on, and no others.
    pub(crate) fn set(&mut self, ids: BTreeSet<EntryId>) {
        if ids == self.ids {
            return;
        }
        let mut state = self.source.lock();
        for id in &ids {
            *state.wants.entry(id.clone()).or_default() += 1;
        }
        for id in &self.ids {
            if let Some(count) = state.wants.get_mut(id) {
                *count -= 1;
            }
        }
        state.wants.retain(|_, count| *count > 0);
        drop(state);
        self.ids = ids;
        self.source.0.wanted.notify_one();
    }
}

impl Drop for Wants {
    fn drop(&mut self) {
        self.set(BTreeSet::new());
    }
}
