//! The registry as plainly as it can be said: lists, looked through from front to back.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;

use super::steps::{Draft, Filter, HowMuch, Mode};

/// An entry as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) path: String,
    pub(super) selectors: BTreeSet<String>,
    pub(super) hint: String,
    pub(super) downstream: bool,
    pub(super) federates_with: BTreeSet<String>,
    pub(super) revision: i64,
    pub(super) created_at: i64,
}

/// What became of an entry that was to be made.
#[derive(Debug)]
pub(super) enum Made {
    /// It is there; the server chooses its id unless the caller did.
    New,
    /// One of these is like it.
    Similar(Vec<String>),
    IdTaken,
    /// It federates with a trust domain that has no bundle.
    NoBundle,
}

/// Everything that a server under test should know.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// In the order of lists.
    pub(super) entries: Vec<Entry>,
    tokens: BTreeSet<u8>,
    /// Whether each agent is banned.
    agents: BTreeMap<u8, bool>,
    /// Foreign trust domains with a bundle.
    bundles: BTreeSet<String>,
}

/// The path of the agent that a token lets in.
pub(super) fn agent_path(token: u8) -> String {
    format!("/spire/agent/join_token/token-{token}")
}

/// The ID that comes with a token, as a path; the first token has none.
pub(super) fn alias_path(token: u8) -> Option<String> {
    (token > 0).then(|| format!("/alias-{token}"))
}

fn own_selector(token: u8) -> BTreeSet<String> {
    BTreeSet::from([format!("spiffe_id:spiffe://example.org{}", agent_path(token))])
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Entry {
    /// As a caller describes it.
    pub(super) fn of(draft: &Draft, created_at: i64) -> Self {
        Self {
            id: draft.id.unwrap_or_default().to_owned(),
            parent: draft.parent.to_owned(),
            path: draft.path.to_owned(),
            selectors: set(&draft.selectors),
            hint: draft.hint.to_owned(),
            downstream: draft.downstream,
            federates_with: set(&draft.federates_with),
            revision: 0,
            created_at,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.parent == other.parent && self.path == other.path && self.selectors == other.selectors
    }

    fn passes(&self, filter: &Filter) -> bool {
        filter.parent.is_none_or(|parent| self.parent == parent)
            && filter.path.is_none_or(|path| self.path == path)
            && filter.hint.is_none_or(|hint| hint.is_empty() || self.hint == hint)
            && (!filter.downstream || self.downstream)
            && filter.federates_with.is_none_or(|name| self.federates_with.contains(name))
            && filter.selectors.as_ref().is_none_or(|(how, texts)| {
                let given = set(texts);
                match how {
                    0 => self.selectors == given,
                    1 => self.selectors.is_subset(&given),
                    2 => self.selectors.is_superset(&given),
                    _ => !self.selectors.is_disjoint(&given),
                }
            })
    }
}

impl Registry {
    /// What creating `entry` answers; the caller adds it when it is new.
    pub(super) fn judge(&self, entry: &Entry) -> Made {
        let similar: Vec<String> =
            self.entries.iter().filter(|old| old.is_like(entry)).map(|old| old.id.clone()).collect();
        if !similar.is_empty() {
            return Made::Similar(similar);
        }
        match self.entries.iter().any(|old| old.id == entry.id) {
            true => Made::IdTaken,
            false if !entry.federates_with.is_subset(&self.bundles) => Made::NoBundle,
            false => Made::New,
        }
    }

    /// The entry at a place, counted round.
    pub(super) fn at(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place.checked_rem(self.entries.len())?)
    }

    /// Changes an entry and returns it as it should be.
    pub(super) fn update(&mut self, id: &str, draft: &Draft, how_much: HowMuch) -> Result<&Entry, Code> {
        let old = self.entries.iter_mut().find(|entry| entry.id == id).ok_or(Code::NotFound)?;
        let mut new = match how_much {
            HowMuch::All => Entry::of(draft, old.created_at),
            HowMuch::Hint => Entry { hint: draft.hint.to_owned(), ..old.clone() },
        };
        new.id.clone_from(&old.id);
        new.revision = old.revision + 1;
        if !new.federates_with.is_subset(&self.bundles) {
            return Err(Code::Internal);
        }
        *old = new;
        Ok(old)
    }

    /// Removes an entry; tells whether it was there.
    pub(super) fn delete(&mut self, id: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != id);
        self.entries.len() < before
    }

    /// The entries that pass, in order.
    pub(super) fn list(&self, filter: &Filter) -> Vec<Entry> {
        self.entries.iter().filter(|entry| entry.passes(filter)).cloned().collect()
    }

    /// Makes a token. A new entry that comes with it is returned without an id.
    pub(super) fn make_token(&mut self, token: u8, now: i64) -> Result<Option<Entry>, Code> {
        if !self.tokens.insert(token) {
            return Err(Code::AlreadyExists);
        }
        let Some(path) = alias_path(token) else { return Ok(None) };
        let (parent, selectors) = (agent_path(token), own_selector(token));
        let (id, hint) = (String::new(), String::new());
        let (downstream, federates_with) = (false, BTreeSet::new());
        let entry = Entry {
            id,
            parent,
            path,
            selectors,
            hint,
            downstream,
            federates_with,
            revision: 0,
            created_at: now,
        };
        Ok(matches!(self.judge(&entry), Made::New).then_some(entry))
    }

    /// Uses a token.
    pub(super) fn attest(&mut self, token: u8) -> Result<(), Code> {
        if !self.tokens.contains(&token) {
            return Err(Code::InvalidArgument);
        }
        if self.agents.get(&token) == Some(&true) {
            return Err(Code::PermissionDenied);
        }
        self.tokens.remove(&token);
        self.agents.insert(token, false);
        Ok(())
    }

    /// Bans an agent.
    pub(super) fn ban(&mut self, token: u8) -> Result<(), Code> {
        *self.agents.get_mut(&token).ok_or(Code::NotFound)? = true;
        Ok(())
    }

    /// Evicts an agent, and the entry that came with its token.
    pub(super) fn evict(&mut self, token: u8) -> Result<(), Code> {
        self.agents.remove(&token).ok_or(Code::NotFound)?;
        let (parent, selectors) = (agent_path(token), own_selector(token));
        self.entries.retain(|entry| entry.parent != parent || entry.selectors != selectors);
        Ok(())
    }

    /// The ids that an agent may have.
    pub(super) fn authorized(&self, token: u8) -> Result<BTreeSet<String>, Code> {
        if self.agents.get(&token) != Some(&false) {
            return Err(Code::PermissionDenied);
        }
        let mut parents = BTreeSet::from([agent_path(token)]);
        let mut found = BTreeSet::new();
        loop {
            let below: Vec<&Entry> =
                self.entries.iter().filter(|entry| parents.contains(&entry.parent)).collect();
            let before = found.len();
            found.extend(below.iter().map(|entry| entry.id.clone()));
            parents.extend(below.iter().map(|entry| entry.path.clone()));
            if found.len() == before {
                return Ok(found);
            }
        }
    }

    /// The paths of agents in order, and whether each is banned.
    pub(super) fn list_agents(&self, banned: Option<bool>) -> Vec<(String, bool)> {
        let all = self.agents.iter().map(|(token, is_banned)| (agent_path(*token), *is_banned));
        all.filter(|(_, is_banned)| banned.is_none_or(|banned| banned == *is_banned)).collect()
    }

    /// Stores a bundle.
    pub(super) fn set_bundle(&mut self, name: &str) {
        self.bundles.insert(name.to_owned());
    }

    /// Deletes a bundle, unless entries federate with it that neither go nor let go.
    pub(super) fn delete_bundle(&mut self, name: &str, mode: Mode) -> Code {
        if !self.bundles.contains(name) {
            return Code::NotFound;
        }
        let federates = |entry: &Entry| entry.federates_with.contains(name);
        match mode {
            Mode::Restrict if self.entries.iter().any(federates) => return Code::FailedPrecondition,
            Mode::Restrict => {}
            Mode::Delete => self.entries.retain(|entry| !federates(entry)),
            Mode::Dissociate => {
                for entry in self.entries.iter_mut().filter(|entry| federates(entry)) {
                    entry.federates_with.remove(name);
                    entry.revision += 1;
                }
            }
        }
        self.bundles.remove(name);
        Code::Ok
    }

    /// The foreign trust domains with a bundle, in order.
    pub(super) fn list_bundles(&self) -> Vec<String> {
        self.bundles.iter().cloned().collect()
    }

    /// A server that starts again lists by time of making, then by id.
    pub(super) fn restart(&mut self) {
        self.entries.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    }
}
