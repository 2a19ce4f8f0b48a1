//! Everything the agent knows at one revision: entries with their SVIDs, and trust bundles.
//!
//! Immutable: a change makes a new snapshot that shares what did not change. Matching looks only at entries whose last
//! selector the workload shows, so an agent with thousands of entries answers in microseconds.

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};
use spindle_spiffe_core::{Bundle, EntryId, RegistrationEntry, Selector, Selectors, TrustDomain};

use super::view::{Identity, NumberedBundle};

/// One immutable state of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    identities: RedBlackTreeMapSync<EntryId, Arc<Identity>>,
    /// Entries by their last selector: a match must show that one too.
    by_selector: HashTrieMapSync<Selector, RedBlackTreeSetSync<EntryId>>,
    own: NumberedBundle,
    federated: RedBlackTreeMapSync<TrustDomain, NumberedBundle>,
}

impl Snapshot {
    /// A snapshot that knows nothing but the own trust domain's name.
    pub(crate) fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            identities: RedBlackTreeMapSync::new_sync(),
            by_selector: HashTrieMapSync::new_sync(),
            own: NumberedBundle::new(0, Bundle::new(trust_domain)),
            federated: RedBlackTreeMapSync::new_sync(),
        }
    }

    /// Adds or replaces one identity. Entries whose SVID goes to a store are not served, so they are left out.
    pub(crate) fn put(&mut self, identity: Arc<Identity>) {
        let id = identity.entry.id.clone();
        self.remove(&id);
        if identity.entry.store_svid {
            return;
        }
        let Some(last) = last_selector(&identity.entry) else { return };
        let ids = self.by_selector.get(last).cloned().unwrap_or_else(RedBlackTreeSetSync::new_sync);
        self.by_selector.insert_mut(last.clone(), ids.insert(id.clone()));
        self.identities.insert_mut(id, identity);
    }

    /// Removes one identity and returns it.
    pub(crate) fn remove(&mut self, id: &EntryId) -> Option<Arc<Identity>> {
        let old = self.identities.get(id).cloned()?;
        self.identities.remove_mut(id);
        if let Some(last) = last_selector(&old.entry)
            && let Some(ids) = self.by_selector.get(last)
        {
            let rest = ids.remove(id);
            if rest.is_empty() {
                self.by_selector.remove_mut(last);
            } else {
                self.by_selector.insert_mut(last.clone(), rest);
            }
        }
        Some(old)
    }

    /// Replaces the own bundle; false when it was the same already.
    pub(crate) fn set_own_bundle(&mut self, number: u64, bundle: Bundle) -> bool {
        let changed = *self.own.whole != bundle;
        if changed {
            self.own = NumberedBundle::new(number, bundle);
        }
        changed
    }

    /// Adds or replaces a foreign bundle; false when it was the same already.
    pub(crate) fn set_federated(&mut self, number: u64, bundle: Bundle) -> bool {
        let changed = self.federated.get(&bundle.trust_domain).is_none_or(|old| *old.whole != bundle);
        if changed {
            self.federated.insert_mut(bundle.trust_domain.clone(), NumberedBundle::new(number, bundle));
        }
        changed
    }

    /// Forgets a foreign bundle; false when there was none.
    pub(crate) fn remove_federated(&mut self, name: &TrustDomain) -> bool {
        self.federated.remove_mut(name)
    }

    /// The names of all foreign bundles.
    pub(crate) fn federated_names(&self) -> impl Iterator<Item = &TrustDomain> {
        self.federated.keys()
    }

    /// The own trust domain's bundle.
    pub(crate) fn own_bundle(&self) -> &NumberedBundle {
        &self.own
    }

    /// A foreign bundle.
    pub(crate) fn federated(&self, name: &TrustDomain) -> Option<&NumberedBundle> {
        self.federated.get(name)
    }

    /// One identity.
    pub(crate) fn identity(&self, id: &EntryId) -> Option<&Arc<Identity>> {
        self.identities.get(id)
    }

    /// All served identities, in the order of entry ids.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.identities.values()
    }

    /// The identities whose selectors are all among `shown`, in the order of entry ids.
    pub(crate) fn matching(&self, shown: &Selectors) -> Vec<Arc<Identity>> {
        let candidates = shown.iter().filter_map(|selector| self.by_selector.get(selector)).flatten();
        let mut matching: Vec<Arc<Identity>> = candidates
            .filter_map(|id| self.identities.get(id))
            .filter(|identity| identity.entry.selectors.is_subset_of(shown))
            .cloned()
            .collect();
        matching.sort_unstable_by(|a, b| a.entry.id.cmp(&b.entry.id));
        matching
    }
}

/// Never none for a checked entry, which has at least one selector.
fn last_selector(entry: &RegistrationEntry) -> Option<&Selector> {
    entry.selectors.iter().next_back()
}
