//! Which entries an agent may have: a walk over parents, in pure code over one view.
//!
//! An agent has the entries below its own ID, below any node alias it belongs to, and below any entry it has. A node
//! alias is an entry below the server whose selectors the agent shows; aliases themselves are never handed out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use spindle_spiffe_core::{EntryId, RegistrationEntry, Selectors, SpiffeId};

use super::agent::AgentRow;
use super::view::{EntryRow, View};

/// Every entry `agent` may have, by id.
pub(crate) fn authorized_entries(view: &View, agent: &AgentRow) -> HashMap<EntryId, Arc<EntryRow>> {
    let mut found = HashMap::new();
    let mut seen: HashSet<SpiffeId> = HashSet::new();
    let mut parents = vec![agent.spiffe_id.clone()];
    parents.extend(aliases(view, &agent.selectors).map(|alias| alias.entry.spiffe_id.clone()));
    while let Some(parent) = parents.pop() {
        if !seen.insert(parent.clone()) {
            continue;
        }
        for child in view.children(&parent) {
            parents.push(child.entry.spiffe_id.clone());
            found.insert(child.entry.id.clone(), child.clone());
        }
    }
    found
}

/// Whether `agent` may have `entry`: the same question asked upwards, whose cost is the depth and not the size.
pub(crate) fn is_authorized(view: &View, agent: &AgentRow, entry: &RegistrationEntry) -> bool {
    let mut above = Ancestors::of(view, entry);
    above.any(|ancestor| match ancestor {
        Ancestor::Parent(id) => id == agent.spiffe_id,
        Ancestor::Alias(selectors) => selectors.is_subset_of(&agent.selectors),
    })
}

/// The ids of those rows of `before` that `agent` had: rows as they were before changes none of which moved other entries.
///
/// Such changes take a branch apart from its leaves. So a row hangs on something that still stands, or on another of them.
pub(crate) fn formerly_authorized<'a>(
    view: &View,
    agent: &AgentRow,
    before: &'a [Arc<EntryRow>],
) -> HashSet<&'a EntryId> {
    let mut below: HashMap<&SpiffeId, Vec<&RegistrationEntry>> = HashMap::new();
    for row in before {
        below.entry(&row.entry.parent_id).or_default().push(&row.entry);
    }
    let mut open: Vec<&RegistrationEntry> =
        before.iter().map(|row| &row.entry).filter(|entry| is_authorized(view, agent, entry)).collect();
    let mut found = HashSet::new();
    while let Some(entry) = open.pop() {
        found.insert(&entry.id);
        open.extend(below.remove(&entry.spiffe_id).unwrap_or_default());
    }
    found
}

/// What stands above an entry: an ID that may be an agent's, or an alias that agents with these selectors belong to.
pub(crate) enum Ancestor {
    Parent(SpiffeId),
    Alias(Selectors),
}

/// Walks everything above one entry, each parent once.
pub(crate) struct Ancestors<'a> {
    view: &'a View,
    seen: HashSet<SpiffeId>,
    parents: Vec<SpiffeId>,
    aliases: Vec<Selectors>,
}

impl<'a> Ancestors<'a> {
    pub(crate) fn of(view: &'a View, entry: &RegistrationEntry) -> Self {
        Self { view, seen: HashSet::new(), parents: vec![entry.parent_id.clone()], aliases: Vec::new() }
    }
}

impl Iterator for Ancestors<'_> {
    type Item = Ancestor;

    fn next(&mut self) -> Option<Ancestor> {
        if let Some(selectors) = self.aliases.pop() {
            return Some(Ancestor::Alias(selectors));
        }
        loop {
            let parent = self.parents.pop()?;
            if !self.seen.insert(parent.clone()) {
                continue;
            }
            for above in self.view.entries_of(&parent) {
                if above.entry.parent_id == *self.view.server_id() {
                    self.aliases.push(above.entry.selectors.clone());
                } else {
                    self.parents.push(above.entry.parent_id.clone());
                }
            }
            return Some(Ancestor::Parent(parent));
        }
    }
}

/// The node aliases that an agent with `selectors` belongs to.
fn aliases<'a>(view: &'a View, selectors: &'a Selectors) -> impl Iterator<Item = &'a Arc<EntryRow>> {
    view.children(view.server_id()).filter(|alias| alias.entry.selectors.is_subset_of(selectors))
}

/// Whether a change of this entry can move other entries in or out of an agent's set: it is an alias, or has children.
pub(crate) fn moves_others(view: &View, entry: &RegistrationEntry) -> bool {
    entry.parent_id == *view.server_id() || view.children(&entry.spiffe_id).next().is_some()
}

#[cfg(test)]
mod tests {
    use spindle_proto::spire::api::types;

    use super::*;
    use crate::directory::Directory;
    use crate::fixtures::{agent, create, directory, entry, id};

    async fn put(directory: &Directory, name: &str, parent: &str, path: &str, selectors: &[&str]) {
        create(directory, types::Entry { id: name.into(), ..entry(&id(parent), path, selectors) }).await;
    }

    /// Ids of what the agent may have, asked downwards for all and upwards for each: both must agree.
    fn authorized(directory: &Directory, agent: &AgentRow) -> Vec<String> {
        let view = directory.view();
        let agent = view.agent(&agent.spiffe_id).unwrap();
        let found = authorized_entries(&view, agent);
        for row in view.entries_after(0) {
            let id = &row.entry.id;
            let is_alias = row.entry.parent_id == *view.server_id();
            assert!(is_alias || is_authorized(&view, agent, &row.entry) == found.contains_key(id), "{id}");
        }
        let mut ids: Vec<String> = found.into_keys().map(|id| id.to_string()).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn an_alias_gives_its_entries_to_the_nodes_that_show_all_its_selectors() {
        let directory = directory();
        let both = agent(&directory, "/spire/agent/x/both", &["aws:zone:a", "aws:image:b"]).await;
        let zone = agent(&directory, "/spire/agent/x/zone", &["aws:zone:a"]).await;
        let none = agent(&directory, "/spire/agent/x/none", &[]).await;
        put(&directory, "alias-zone", "/spire/server", "/zone", &["aws:zone:a"]).await;
        put(&directory, "alias-both", "/spire/server", "/both", &["aws:zone:a", "aws:image:b"]).await;
        put(&directory, "in-zone", "/zone", "/web", &["a:1"]).await;
        put(&directory, "in-both", "/both", "/db", &["a:1"]).await;
        put(&directory, "nested", "/web", "/web/child", &["a:1"]).await;
        assert_eq!(authorized(&directory, &both), ["in-both", "in-zone", "nested"]);
        assert_eq!(authorized(&directory, &zone), ["in-zone", "nested"]);
        assert!(authorized(&directory, &none).is_empty());
    }

    #[tokio::test]
    async fn an_alias_is_never_handed_out_but_an_entry_that_shares_its_id_is() {
        let directory = directory();
        let node = agent(&directory, "/spire/agent/x/1", &["aws:zone:a"]).await;
        put(&directory, "alias", "/spire/server", "/zone", &["aws:zone:a"]).await;
        put(&directory, "same-id", "/spire/agent/x/1", "/zone", &["a:1"]).await;
        put(&directory, "below", "/zone", "/web", &["a:1"]).await;
        assert_eq!(authorized(&directory, &node), ["below", "same-id"]);
    }

    #[tokio::test]
    async fn an_alias_below_an_alias_counts_for_its_own_nodes_only() {
        let directory = directory();
        let a = agent(&directory, "/spire/agent/x/a", &["n:a"]).await;
        let b = agent(&directory, "/spire/agent/x/b", &["n:b"]).await;
        put(&directory, "alias-a", "/spire/server", "/group", &["n:a"]).await;
        put(&directory, "alias-b", "/spire/server", "/group", &["n:b"]).await;
        put(&directory, "shared", "/group", "/web", &["a:1"]).await;
        assert_eq!(authorized(&directory, &a), ["shared"]);
        assert_eq!(authorized(&directory, &b), ["shared"]);
    }

    #[tokio::test]
    async fn circles_end_the_search_in_both_directions() {
        let directory = directory();
        let node = agent(&directory, "/spire/agent/x/1", &[]).await;
        put(&directory, "a", "/b", "/a", &["a:1"]).await;
        put(&directory, "b", "/a", "/b", &["a:1"]).await;
        put(&directory, "self", "/self", "/self", &["a:1"]).await;
        assert!(authorized(&directory, &node).is_empty());
        put(&directory, "way-in", "/spire/agent/x/1", "/b", &["a:1"]).await;
        assert_eq!(authorized(&directory, &node), ["a", "b", "way-in"]);
    }

    #[tokio::test]
    async fn an_entry_with_two_parents_above_it_is_found_once() {
        let directory = directory();
        let node = agent(&directory, "/spire/agent/x/1", &["n:a"]).await;
        put(&directory, "alias", "/spire/server", "/group", &["n:a"]).await;
        put(&directory, "left", "/group", "/web", &["a:1"]).await;
        put(&directory, "right", "/spire/agent/x/1", "/web", &["a:2"]).await;
        put(&directory, "child", "/web", "/child", &["a:1"]).await;
        assert_eq!(authorized(&directory, &node), ["child", "left", "right"]);
    }
}
