//! What the agent serves from: one immutable snapshot behind an atomic pointer, and a live view per set of selectors.
//!
//! One writer publishes changes; each is applied as a whole. A stream wakes only when its own view changes, and streams
//! with equal views share one encoded answer. How SVIDs are come by is the business of `identities`. Start at
//! [`Cache::publish`] and [`Cache::subscribe`].

mod encode;
mod encode_delegated;
mod hints;
mod near_miss;
mod snapshot;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use spindle_spiffe_core::{Bundle, EntryId, Hint, RegistrationEntry, Selectors, TrustDomain};
use tokio::sync::{Notify, watch};
use tracing::warn;

pub(crate) use encode::{
    jwt_svids as encode_jwt_svids, wit_svids as encode_wit_svids, x509_svids_of as encode_x509_svids_of,
};
pub(crate) use encode_delegated::delegated_x509_svids;
pub(crate) use hints::unique_hints;
pub(crate) use near_miss::near_misses;
pub(crate) use snapshot::Snapshot;
pub(crate) use view::{Content, HeldSvid, Identity, NumberedBundle, Shown, Unready, View};

use view::Fingerprint;

/// Views without a stream are kept up to this number, so that callers that come and go need no new matching.
const IDLE_VIEWS_MAX: usize = 256;

/// Entries remembered as told about their shared hint; beyond that all are forgotten and told anew.
const TOLD_MAX: usize = 4096;

/// An entry that a workload matches, whether it has an SVID or not, and the hint it is shown with.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    pub(crate) entry: Arc<RegistrationEntry>,
    pub(crate) hint: Hint,
}

/// One change to what the agent knows, applied as a whole.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Identities added or replaced.
    pub(crate) put: Vec<Identity>,
    /// Entries that are gone.
    pub(crate) removed: Vec<EntryId>,
    /// The own trust domain's new bundle.
    pub(crate) own_bundle: Option<Bundle>,
    /// Foreign bundles added or replaced.
    pub(crate) federated: Vec<Bundle>,
    /// Foreign bundles that are gone.
    pub(crate) removed_federated: Vec<TrustDomain>,
    /// The first sync is complete with this change.
    pub(crate) synced: bool,
}

/// The agent's shared state. One writer, any number of readers.
pub(crate) struct Cache {
    snapshot: ArcSwap<Snapshot>,
    views: Mutex<Views>,
    synced: watch::Sender<bool>,
    numbers: AtomicU64,
    demanded: Notify,
    /// Counts the changes of bundles.
    bundle_changes: watch::Sender<u64>,
    /// Counts what was published.
    published: watch::Sender<u64>,
}

#[derive(Default)]
struct Views {
    by_selectors: HashMap<Selectors, Watched>,
    /// How often anybody has subscribed.
    subscriptions: u64,
    contents: HashMap<Fingerprint, Weak<Content>>,
    /// Entries signed only on demand that a workload now matches.
    demanded: BTreeSet<EntryId>,
    /// Entries whose hint was taken and whose operator knows.
    told: BTreeSet<EntryId>,
}

/// A view, and when it was last subscribed to, counted in subscriptions.
struct Watched {
    sender: watch::Sender<View>,
    subscribed_at: u64,
}

impl Cache {
    /// A cache that knows nothing yet.
    pub(crate) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::empty(trust_domain)),
            views: Mutex::default(),
            synced: watch::Sender::new(false),
            numbers: AtomicU64::new(1),
            demanded: Notify::new(),
            bundle_changes: watch::Sender::new(0),
            published: watch::Sender::new(0),
        }
    }

    /// The state of this moment.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Told when any trust domain's bundle has changed, come or gone.
    pub(crate) fn bundle_changes(&self) -> watch::Receiver<u64> {
        self.bundle_changes.subscribe()
    }

    /// A number that no other SVID or bundle of this process has.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the first sync is complete: before that, "no entry" would be a guess.
    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Whether it is complete now. Once it is, it stays so.
    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Told of each change that is published, whomever it concerns.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// A live view for a workload that shows `selectors`, current when this returns.
    pub(crate) fn subscribe(&self, selectors: &Selectors) -> watch::Receiver<View> {
        let mut views = self.lock();
        views.subscriptions += 1;
        let subscribed_at = views.subscriptions;
        let receiver = match views.by_selectors.get_mut(selectors) {
            Some(watched) => {
                watched.subscribed_at = subscribed_at;
                watched.sender.subscribe()
            }
            None => {
                if views.by_selectors.len() >= IDLE_VIEWS_MAX {
                    views.by_selectors.retain(|_, watched| watched.is_live());
                }
                let view = views.shared(View::compute(&self.snapshot(), selectors));
                views.tell_of_shared_hints(&view);
                let (sender, receiver) = watch::channel(view);
                views.by_selectors.insert(selectors.clone(), Watched { sender, subscribed_at });
                receiver
            }
        };
        // Without a stream on it a view asks for nothing.
        if views.note_demand(&receiver.borrow()) {
            self.demanded.notify_one();
        }
        receiver
    }

    /// The entries of a workload that shows `selectors` at this moment, the default one first.
    pub(crate) fn matching(&self, selectors: &Selectors) -> Vec<Matched> {
        let matching = self.snapshot().matching(selectors);
        let entries: Vec<&RegistrationEntry> = matching.iter().map(|one| one.entry.as_ref()).collect();
        let hints = unique_hints(&entries);
        matching.iter().zip(hints).map(|(one, hint)| Matched { entry: one.entry.clone(), hint }).collect()
    }

    /// Takes the SVIDs of up to `most` entries away that no stream is for and that `may_rest`: first of those that were never
    /// asked for, then of those that were asked for longest ago. Only the one writer calls this.
    pub(crate) fn rest(&self, most: usize, may_rest: impl Fn(&EntryId) -> bool) -> Vec<EntryId> {
        let views = self.lock();
        let snapshot = self.snapshot();
        let asked_at = views.last_asked(&snapshot);
        let held = snapshot.identities().filter(|one| one.state.is_ok() && may_rest(&one.entry.id));
        let mut idle: Vec<(u64, &Arc<Identity>)> = held
            .filter_map(|one| match asked_at.get(&one.entry.id) {
                None => Some((0, one)),
                Some(Asked { is_live: true, .. }) => None,
                Some(Asked { at, .. }) => Some((*at, one)),
            })
            .collect();
        idle.sort_by_key(|(at, _)| *at);
        idle.truncate(most);
        let put =
            idle.iter().map(|(_, one)| Identity { entry: one.entry.clone(), state: Err(Unready::OnDemand) });
        let change = Change { put: put.collect(), ..Change::default() };
        let ids = change.put.iter().map(|one| one.entry.id.clone()).collect();
        // Under the same lock, so that nobody subscribes in between.
        self.publish_under(views, change);
        ids
    }

    /// Waits until workloads match entries that are signed only on demand, and takes those entries' ids. Cancel-safe.
    pub(crate) async fn demand(&self) -> BTreeSet<EntryId> {
        loop {
            let ids = std::mem::take(&mut self.lock().demanded);
            if !ids.is_empty() {
                return ids;
            }
            self.demanded.notified().await;
        }
    }

    /// Applies `change` and tells the streams whose view it alters. Only the one writer calls this.
    pub(crate) fn publish(&self, change: Change) {
        self.publish_under(self.lock(), change);
    }

    fn publish_under(&self, mut views: MutexGuard<'_, Views>, change: Change) {
        let before = self.snapshot();
        let mut after = Snapshot::clone(&before);
        let bundles_changed = self.apply_bundles(&mut after, &change);
        let mut touched: Vec<Arc<Identity>> = Vec::new();
        for id in &change.removed {
            touched.extend(after.remove(id));
        }
        for identity in change.put {
            touched.extend(before.identity(&identity.entry.id).cloned());
            let identity = Arc::new(identity);
            touched.push(identity.clone());
            after.put(identity);
        }
        let after = Arc::new(after);
        self.snapshot.store(after.clone());
        if bundles_changed {
            self.bundle_changes.send_modify(|changes| *changes += 1);
        }
        if change.synced {
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        if views.refresh(&after, &touched, bundles_changed) {
            self.demanded.notify_one();
        }
        self.published.send_modify(|count| *count += 1);
    }

    fn apply_bundles(&self, snapshot: &mut Snapshot, change: &Change) -> bool {
        let mut changed = false;
        if let Some(bundle) = &change.own_bundle {
            changed |= snapshot.set_own_bundle(self.next_number(), bundle.clone());
        }
        for bundle in &change.federated {
            changed |= snapshot.set_federated(self.next_number(), bundle.clone());
        }
        for name in &change.removed_federated {
            changed |= snapshot.remove_federated(name);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn is_live(&self) -> bool {
        self.sender.receiver_count() > 0
    }
}

/// When an entry was last asked for.
struct Asked {
    at: u64,
    is_live: bool,
}

impl Views {
    /// Every entry that a view is for.
    fn last_asked(&self, snapshot: &Snapshot) -> HashMap<EntryId, Asked> {
        let mut asked: HashMap<EntryId, Asked> = HashMap::new();
        for (selectors, watched) in &self.by_selectors {
            let is_live = watched.is_live();
            for identity in snapshot.matching(selectors) {
                let one = asked.entry(identity.entry.id.clone()).or_insert(Asked { at: 0, is_live });
                one.at = one.at.max(watched.subscribed_at);
                one.is_live |= is_live;
            }
        }
        asked
    }

    /// Recomputes the views that a change can concern. True when entries became demanded.
    fn refresh(&mut self, snapshot: &Snapshot, touched: &[Arc<Identity>], everyone: bool) -> bool {
        let concerned: Vec<Selectors> = self
            .by_selectors
            .keys()
            .filter(|shown| everyone || touched.iter().any(|one| one.entry.selectors.is_subset_of(shown)))
            .cloned()
            .collect();
        let mut demanded = false;
        for selectors in concerned {
            let view = self.shared(View::compute(snapshot, &selectors));
            self.tell_of_shared_hints(&view);
            if self.by_selectors.get(&selectors).is_some_and(Watched::is_live) {
                demanded |= self.note_demand(&view);
            }
            if let Some(watched) = self.by_selectors.get(&selectors) {
                watched.sender.send_if_modified(|old| {
                    let differs = !old.is_same_as(&view);
                    if differs {
                        *old = view;
                    }
                    differs
                });
            }
        }
        self.contents.retain(|_, content| content.strong_count() > 0);
        demanded
    }

    /// The view with its content replaced by an equal one that is already in use.
    fn shared(&mut self, mut view: View) -> View {
        let fingerprint = view.content.fingerprint();
        match self.contents.get(&fingerprint).and_then(Weak::upgrade) {
            Some(content) => view.content = content,
            None => {
                self.contents.insert(fingerprint, Arc::downgrade(&view.content));
            }
        }
        view
    }

    /// Tells the operator once of each identity that lost its hint to another one.
    fn tell_of_shared_hints(&mut self, view: &View) {
        for one in view.content.identities.iter().filter(|one| one.hint != one.entry.hint) {
            if self.told.len() >= TOLD_MAX {
                self.told.clear();
            }
            if self.told.insert(one.entry.id.clone()) {
                warn!(entry_id = %one.entry.id, spiffe_id = %one.entry.spiffe_id, hint = one.entry.hint.as_str(),
                    "an older entry of the same workload has this hint: the identity is shown without one");
            }
        }
    }

    fn note_demand(&mut self, view: &View) -> bool {
        let waiting = view.unready.iter().filter(|(_, _, why)| *why == Unready::OnDemand);
        let before = self.demanded.len();
        self.demanded.extend(waiting.map(|(id, _, _)| id.clone()));
        self.demanded.len() > before
    }
}

#[cfg(test)]
mod tests;
