//! What an agent has been sent, and what it lacks for another view: pure, so that every update is computed from one view.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use spindle_proto::convert::bundle_to_proto;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{EntryId, TrustDomain};

use crate::directory::{
    AgentRow, EntryRow, Since, View, authorized_entries, formerly_authorized, is_authorized,
};
use crate::subscriptions::News;

/// The state an agent is led to, piece by piece.
pub(super) struct Sent {
    own: TrustDomain,
    /// The revision its state belongs to.
    revision: u64,
    /// Store revision of each entry as it was sent.
    entries: HashMap<EntryId, u64>,
    /// Store revision of each bundle as it was sent. Not its sequence number, which others may leave as it is.
    bundles: HashMap<TrustDomain, u64>,
}

/// What leads an agent from one revision to another.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) revision: u64,
    pub(super) snapshot: bool,
    /// In order of creation.
    pub(super) changed: Vec<Arc<EntryRow>>,
    pub(super) removed: Vec<EntryId>,
    pub(super) own_bundle: Option<types::Bundle>,
    pub(super) federated: Vec<types::Bundle>,
    pub(super) unfederated: Vec<TrustDomain>,
}

impl Update {
    /// Whether there is nothing in it for the agent.
    fn is_empty(&self) -> bool {
        self.changed.is_empty()
            && self.removed.is_empty()
            && self.own_bundle.is_none()
            && self.federated.is_empty()
            && self.unfederated.is_empty()
    }
}

impl Sent {
    /// Nothing has been sent yet.
    pub(super) fn nothing(own: TrustDomain) -> Self {
        Self { own, revision: 0, entries: HashMap::new(), bundles: HashMap::new() }
    }

    /// The first update: a delta when the changes `since` the agent's state are known, else a snapshot.
    pub(super) fn start(&mut self, view: &View, agent: &AgentRow, since: Since) -> Update {
        let authorized = authorized_entries(view, agent);
        self.revision = view.revision;
        self.entries = authorized.iter().map(|(id, row)| (id.clone(), row.revision)).collect();
        let (snapshot, changed, removed) = match since {
            Since::Unknown => (true, authorized.into_values().collect(), Vec::new()),
            Since::Entries { touched, before } => {
                let had = formerly_authorized(view, agent, &before);
                // Bundles that it holds and needs no more are those of entries that have changed since; what is still
                // needed is told anew.
                let changed_ones = before.iter().filter(|row| had.contains(&row.entry.id));
                let names = changed_ones.flat_map(|row| row.entry.federates_with.iter().cloned());
                self.bundles = names.map(|name| (name, 0)).collect();
                let (here, gone): (Vec<_>, Vec<_>) =
                    touched.into_iter().partition(|id| authorized.contains_key(id));
                let rows = here.iter().filter_map(|id| authorized.get(id).cloned()).collect();
                (false, rows, gone.into_iter().filter(|id| had.contains(id)).collect())
            }
        };
        let update = Update { revision: view.revision, snapshot, changed, removed, ..Update::default() };
        self.complete(view, update, true)
    }

    /// What `news` makes of the difference between what was sent and `view`, the view that came with it; none when that is
    /// nothing, or when the agent was sent something newer from the start.
    pub(super) fn update(&mut self, view: &View, agent: &AgentRow, news: &News) -> Option<Update> {
        if view.revision <= self.revision {
            return None;
        }
        let (changed, removed) = if news.everything {
            self.compare_all(view, agent)
        } else {
            self.compare(view, agent, &news.entries)
        };
        if changed.is_empty() && removed.is_empty() && !news.bundles {
            return None;
        }
        self.revision = view.revision;
        let update = Update { revision: view.revision, changed, removed, ..Update::default() };
        Some(self.complete(view, update, news.bundles)).filter(|update| !update.is_empty())
    }

    /// The difference among the touched entries only.
    fn compare(
        &mut self,
        view: &View,
        agent: &AgentRow,
        touched: &BTreeSet<EntryId>,
    ) -> (Vec<Arc<EntryRow>>, Vec<EntryId>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for id in touched {
            match view.entry(id).filter(|row| is_authorized(view, agent, &row.entry)) {
                Some(row) => {
                    if self.entries.insert(id.clone(), row.revision) != Some(row.revision) {
                        changed.push(row.clone());
                    }
                }
                None => {
                    if self.entries.remove(id).is_some() {
                        removed.push(id.clone());
                    }
                }
            }
        }
        (changed, removed)
    }

    /// The difference over the whole set.
    fn compare_all(&mut self, view: &View, agent: &AgentRow) -> (Vec<Arc<EntryRow>>, Vec<EntryId>) {
        let authorized = authorized_entries(view, agent);
        let touched = authorized.keys().chain(self.entries.keys()).cloned().collect::<BTreeSet<EntryId>>();
        self.compare(view, agent, &touched)
    }

    /// Puts the changed entries in order, and adds the bundles when one may have changed or be wanted now.
    fn complete(&mut self, view: &View, mut update: Update, bundles: bool) -> Update {
        update.changed.sort_unstable_by_key(|row| row.row);
        // An entry may bring a foreign bundle, or be the last that needed one.
        let foreign = self.bundles.len() > 1;
        if bundles || foreign || update.changed.iter().any(|row| !row.entry.federates_with.is_empty()) {
            self.add_bundles(view, &mut update);
        }
        update
    }

    /// Adds the bundles the agent lacks: its own trust domain's and those that its entries federate with.
    fn add_bundles(&mut self, view: &View, update: &mut Update) {
        if update.snapshot {
            self.bundles.clear();
        }
        let wanted: BTreeSet<TrustDomain> = self
            .entries
            .keys()
            .filter_map(|id| view.entry(id))
            .flat_map(|row| row.entry.federates_with.iter().cloned())
            .collect();
        for name in wanted.iter().chain([&self.own]) {
            let (Some(bundle), Some(revision)) = (view.bundle(name), view.bundle_revision(name)) else {
                continue;
            };
            if self.bundles.insert(name.clone(), revision) == Some(revision) {
                continue;
            }
            if *name == self.own {
                update.own_bundle = Some(bundle_to_proto(bundle));
            } else {
                update.federated.push(bundle_to_proto(bundle));
            }
        }
        update.unfederated = self
            .bundles
            .keys()
            .filter(|name| **name != self.own && !(wanted.contains(*name) && view.bundle(name).is_some()))
            .cloned()
            .collect();
        for name in &update.unfederated {
            self.bundles.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::directory::Directory;
    use crate::fixtures::{agent, create, directory, entry, id, trust_domain};

    async fn put(directory: &Directory, name: &str) {
        let parent = id("/spire/agent/x/1");
        create(directory, types::Entry { id: name.into(), ..entry(&parent, &format!("/{name}"), &["s:1"]) })
            .await;
    }

    fn news(names: &[&str]) -> News {
        News { entries: names.iter().map(|name| name.parse().unwrap()).collect(), ..News::default() }
    }

    fn ids(update: &Update) -> Vec<String> {
        update.changed.iter().map(|row| row.entry.id.to_string()).collect()
    }

    #[tokio::test]
    async fn an_update_says_the_revision_whose_changes_it_holds() {
        let directory = directory();
        let agent = agent(&directory, "/spire/agent/x/1", &[]).await;
        let mut sent = Sent::nothing(trust_domain());
        assert!(sent.start(&directory.view(), &agent, Since::Unknown).snapshot);
        put(&directory, "a").await;
        let first = directory.view();
        put(&directory, "b").await;
        let update = sent.update(&first, &agent, &news(&["a"])).unwrap();
        assert_eq!((ids(&update), update.revision), (vec!["a".to_owned()], first.revision));
        let second = directory.view();
        let update = sent.update(&second, &agent, &news(&["b"])).unwrap();
        assert_eq!((ids(&update), update.revision), (vec!["b".to_owned()], second.revision));
    }

    #[tokio::test]
    async fn news_that_the_start_held_already_takes_nothing_back() {
        let directory = directory();
        let agent = agent(&directory, "/spire/agent/x/1", &[]).await;
        put(&directory, "a").await;
        let older = directory.view();
        crate::entries::delete(&directory, &"a".parse().unwrap(), &crate::entries::anything).await.unwrap();
        let mut sent = Sent::nothing(trust_domain());
        assert!(sent.start(&directory.view(), &agent, Since::Unknown).changed.is_empty());
        assert!(sent.update(&older, &agent, &news(&["a"])).is_none());
    }

    #[tokio::test]
    async fn entries_that_were_touched_and_not_changed_are_no_update() {
        let directory = directory();
        let agent = agent(&directory, "/spire/agent/x/1", &[]).await;
        put(&directory, "a").await;
        let mut sent = Sent::nothing(trust_domain());
        let since = Since::Entries { touched: BTreeSet::from(["a".parse().unwrap()]), before: Vec::new() };
        assert_eq!(ids(&sent.start(&directory.view(), &agent, since)), ["a"]);
        put(&directory, "b").await;
        assert!(sent.update(&directory.view(), &agent, &news(&["a"])).is_none());
    }
}
