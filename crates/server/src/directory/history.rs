//! Which entries changed at which revision, for agents that come back: a bounded memory of the newest changes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use spindle_spiffe_core::{EntryId, SpiffeId};

use super::authorized::moves_others;
use super::view::{EntryRow, Touched, View};

/// How many changes are remembered. At ten changes a second this covers an agent that was away for seven minutes.
const CHANGES_MAX: usize = 4096;

/// What is known about the time since a revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// Only these entries may have changed for anyone; bundles may have changed too.
    Entries {
        /// The entries that were touched.
        touched: BTreeSet<EntryId>,
        /// How they were before each change that replaced or deleted them.
        before: Vec<Arc<EntryRow>>,
    },
    /// Too long ago, ahead of us, or a change that moved whole sets: only a snapshot will do.
    Unknown,
}

struct Remembered {
    revision: u64,
    entries: Vec<EntryId>,
    before: Vec<Arc<EntryRow>>,
    /// Membership of other entries changed as well, by an alias or a parent.
    moved_others: bool,
    /// Agents whose own row moved: joined, evicted, or with other selectors.
    moved_agents: Vec<SpiffeId>,
}

/// The newest changes, oldest first.
pub(crate) struct History {
    /// Everything after this revision is in `changes`.
    complete_after: u64,
    newest: u64,
    changes: VecDeque<Remembered>,
}

impl History {
    pub(crate) fn starting_at(revision: u64) -> Self {
        Self { complete_after: revision, newest: revision, changes: VecDeque::new() }
    }

    /// Remembers a change that led to `view` (or to an older view of the same batch).
    pub(crate) fn remember(&mut self, view: &View, touched: &Touched) {
        let rows = || touched.entries.iter().flat_map(|(old, new)| old.iter().chain(new));
        let moved_others = rows().any(|row| moves_others(view, &row.entry));
        let moved = touched.agents.iter().filter(|agent| agent.moved);
        let moved_agents = moved.map(|agent| agent.spiffe_id.clone()).collect();
        let entries = rows().map(|row| row.entry.id.clone()).collect();
        let before = touched.entries.iter().filter_map(|(old, _)| old.clone()).collect();
        let revision = touched.revision;
        self.changes.push_back(Remembered { revision, entries, before, moved_others, moved_agents });
        self.newest = touched.revision;
        while self.changes.len() > CHANGES_MAX {
            if let Some(dropped) = self.changes.pop_front() {
                self.complete_after = dropped.revision;
            }
        }
    }

    /// What changed for `agent` after `revision`.
    pub(crate) fn since(&self, revision: u64, agent: &SpiffeId) -> Since {
        if revision < self.complete_after || revision > self.newest {
            return Since::Unknown;
        }
        let newer = self.changes.iter().rev().take_while(|change| change.revision > revision);
        let (mut touched, mut before) = (BTreeSet::new(), Vec::new());
        for change in newer {
            if change.moved_others || change.moved_agents.contains(agent) {
                return Since::Unknown;
            }
            touched.extend(change.entries.iter().cloned());
            before.extend(change.before.iter().cloned());
        }
        Since::Entries { touched, before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::view::AgentTouched;

    fn me() -> SpiffeId {
        crate::fixtures::id("/spire/agent/x/1")
    }

    #[test]
    fn a_revision_ahead_of_the_server_is_unknown() {
        assert_eq!(History::starting_at(5).since(6, &me()), Since::Unknown);
    }

    #[test]
    fn a_revision_before_the_memory_is_unknown() {
        assert_eq!(History::starting_at(5).since(4, &me()), Since::Unknown);
    }

    /// A change of nothing but the revision.
    fn change(revision: u64) -> Touched {
        Touched { revision, ..Touched::default() }
    }

    #[test]
    fn the_memory_is_bounded_and_knows_where_it_begins() {
        let view = crate::fixtures::directory().view();
        let mut history = History::starting_at(5);
        let newest = 5 + CHANGES_MAX as u64;
        (6..=newest).for_each(|revision| history.remember(&view, &change(revision)));
        assert_ne!(history.since(5, &me()), Since::Unknown, "all of it is still there");
        history.remember(&view, &change(newest + 1));
        assert_eq!(history.changes.len(), CHANGES_MAX);
        assert_eq!(history.since(5, &me()), Since::Unknown);
        assert_ne!(history.since(6, &me()), Since::Unknown);
        assert_eq!(history.since(newest + 2, &me()), Since::Unknown);
    }

    #[test]
    fn nothing_changed_since_the_newest_revision() {
        assert_eq!(
            History::starting_at(5).since(5, &me()),
            Since::Entries { touched: BTreeSet::new(), before: Vec::new() }
        );
    }

    #[test]
    fn an_agent_that_joins_costs_the_others_no_snapshot() {
        let view = crate::fixtures::directory().view();
        let joined = crate::fixtures::id("/spire/agent/x/2");
        let mut history = History::starting_at(5);
        let agents = vec![AgentTouched { spiffe_id: joined.clone(), moved: true }];
        history.remember(&view, &Touched { agents, ..change(6) });
        assert_ne!(history.since(5, &me()), Since::Unknown);
        assert_eq!(history.since(5, &joined), Since::Unknown);
    }
}
