//! The in-memory view: every record of the store, decoded and indexed, at one revision.
//!
//! Built on persistent maps, so that a reader's snapshot costs a pointer and a writer copies only the path it changes.
//! [`View::apply`] is the only way it changes; it is pure and runs on the store's owner thread.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use rpds::{HashTrieMapSync, HashTrieSetSync, RedBlackTreeMapSync};
use spindle_ca::Family;
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{Bundle, EntryId, RegistrationEntry, SpiffeId, Timestamp, TrustDomain};
use spindle_store::{Change, HistoryId, Record, RecordKey};

use super::agent::AgentRow;
use super::federation::Federation;
use super::role_holder::RoleHolder;
use super::{DirectoryError, bundle_record, records as keys};

/// A registration entry with its place in listings and the revision of its last change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntryRow {
    /// Ascending in order of creation; pages go by it.
    pub(crate) row: u64,
    /// Store revision of the last change.
    pub(crate) revision: u64,
    pub(crate) entry: RegistrationEntry,
}

/// An entry as it was and as it is; none where it did not or does not exist.
pub(crate) type BeforeAndAfter = (Option<Arc<EntryRow>>, Option<Arc<EntryRow>>);

/// What one change touched, for those who are told of it.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) revision: u64,
    /// Entries as they were before and are now; both none never happens.
    pub(crate) entries: Vec<BeforeAndAfter>,
    pub(crate) agents: Vec<AgentTouched>,
    pub(crate) bundles: BTreeSet<TrustDomain>,
}

/// An agent whose row changed.
#[derive(Debug)]
pub(crate) struct AgentTouched {
    pub(crate) spiffe_id: SpiffeId,
    /// The row is new or gone, or its selectors differ: its entries may be others than before.
    pub(crate) moved: bool,
}

/// A join token that was not used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// Its last second.
    pub(crate) expires_at: Timestamp,
    /// Store revision at which it was made.
    pub(crate) revision: u64,
}

/// A bundle with the store revision of its last change.
#[derive(Clone, Debug)]
struct BundleRow {
    bundle: Arc<Bundle>,
    revision: u64,
}

/// All state of the trust domain at one revision.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) history: HistoryId,
    pub(crate) revision: u64,
    server_id: SpiffeId,
    next_row: u64,
    entries: HashTrieMapSync<EntryId, Arc<EntryRow>>,
    rows: RedBlackTreeMapSync<u64, Arc<EntryRow>>,
    by_parent: HashTrieMapSync<SpiffeId, HashTrieSetSync<EntryId>>,
    by_spiffe_id: HashTrieMapSync<SpiffeId, HashTrieSetSync<EntryId>>,
    agents: RedBlackTreeMapSync<SpiffeId, Arc<AgentRow>>,
    join_tokens: HashTrieMapSync<Arc<str>, JoinToken>,
    bundles: RedBlackTreeMapSync<TrustDomain, BundleRow>,
    journal: Option<Arc<records::JournalRecord>>,
    jwt_journal: Option<Arc<records::JournalRecord>>,
    wit_journal: Option<Arc<records::JournalRecord>>,
    federation: Federation,
    /// Entries with the admin or downstream flag.
    with_power: HashTrieSetSync<EntryId>,
    roles: RedBlackTreeMapSync<SpiffeId, Arc<RoleHolder>>,
    /// Store revision at which somebody last gained power; none when nobody has yet.
    power_revision: Option<u64>,
}

impl View {
    /// The view of everything a store holds.
    pub(crate) fn load(
        trust_domain: &TrustDomain,
        history: HistoryId,
        revision: u64,
        mut stored: Vec<Record>,
    ) -> Result<Self, DirectoryError> {
        let mut view = Self {
            history,
            revision,
            server_id: trust_domain.server_id(),
            next_row: 1,
            entries: HashTrieMapSync::new_sync(),
            rows: RedBlackTreeMapSync::new_sync(),
            by_parent: HashTrieMapSync::new_sync(),
            by_spiffe_id: HashTrieMapSync::new_sync(),
            agents: RedBlackTreeMapSync::new_sync(),
            join_tokens: HashTrieMapSync::new_sync(),
            bundles: RedBlackTreeMapSync::new_sync(),
            journal: None,
            jwt_journal: None,
            wit_journal: None,
            federation: Federation::new(),
            with_power: HashTrieSetSync::new_sync(),
            roles: RedBlackTreeMapSync::new_sync(),
            power_revision: None,
        };
        let mut entries = Vec::new();
        stored.retain(|record| record.key.kind != keys::SIMILARITY);
        for record in &stored {
            if record.key.kind == keys::ENTRY {
                entries.push((keys::decode_entry(record)?, record.revision));
            } else {
                view.put(record, &mut Touched::default())?;
            }
        }
        entries.sort_by(|(a, _), (b, _)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        for (entry, revision) in entries {
            view.put_entry(entry, revision);
        }
        Ok(view)
    }

    /// Applies one change of the store and tells what it touched.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<Touched, DirectoryError> {
        let mut touched = Touched { revision: change.revision, ..Touched::default() };
        for key in &change.deletes {
            self.delete(key, &mut touched);
        }
        for record in &change.puts {
            self.put(record, &mut touched)?;
        }
        self.revision = change.revision;
        Ok(touched)
    }

    fn put(&mut self, record: &Record, touched: &mut Touched) -> Result<(), DirectoryError> {
        match record.key.kind {
            keys::ENTRY => {
                let pair = self.put_entry(keys::decode_entry(record)?, record.revision);
                touched.entries.push(pair);
            }
            keys::AGENT => {
                let agent = AgentRow::from_record(keys::decode(record)?, record.revision)
                    .map_err(|why| DirectoryError::Record { key: keys::describe(&record.key), why })?;
                let moved =
                    self.agents.get(&agent.spiffe_id).is_none_or(|old| old.selectors != agent.selectors);
                touched.agents.push(AgentTouched { spiffe_id: agent.spiffe_id.clone(), moved });
                self.agents.insert_mut(agent.spiffe_id.clone(), Arc::new(agent));
            }
            keys::JOIN_TOKEN => {
                let token: records::JoinTokenRecord = keys::decode(record)?;
                let expires_at = Timestamp::from_unix_secs(token.expires_at);
                let row = JoinToken { expires_at, revision: record.revision };
                self.join_tokens.insert_mut(token.token.into(), row);
            }
            keys::BUNDLE => {
                let bundle = bundle_record::from_record(keys::decode(record)?)
                    .map_err(|why| DirectoryError::Record { key: keys::describe(&record.key), why })?;
                touched.bundles.insert(bundle.trust_domain.clone());
                let row = BundleRow { bundle: Arc::new(bundle), revision: record.revision };
                self.bundles.insert_mut(row.bundle.trust_domain.clone(), row);
            }
            keys::JOURNAL => {
                let journal = Some(Arc::new(keys::decode(record)?));
                match &record.key {
                    key if *key == keys::token_journal_key(Family::Jwt) => self.jwt_journal = journal,
                    key if *key == keys::token_journal_key(Family::Wit) => self.wit_journal = journal,
                    _ => self.journal = journal,
                }
            }
            keys::POWER => self.power_revision = Some(record.revision),
            keys::ROLES => {
                let holder = RoleHolder::from_record(keys::decode(record)?, record.revision)
                    .map_err(|why| DirectoryError::Record { key: keys::describe(&record.key), why })?;
                self.roles.insert_mut(holder.spiffe_id.clone(), Arc::new(holder));
            }
            _ => self.federation.put(record)?,
        }
        Ok(())
    }

    fn delete(&mut self, key: &RecordKey, touched: &mut Touched) {
        let Ok(text) = std::str::from_utf8(&key.key) else { return };
        match key.kind {
            keys::ENTRY => {
                if let Some(old) = text.parse().ok().and_then(|id| self.remove_entry(&id)) {
                    touched.entries.push((Some(old), None));
                }
            }
            keys::AGENT => {
                if let Ok(id) = text.parse::<SpiffeId>() {
                    self.agents.remove_mut(&id);
                    touched.agents.push(AgentTouched { spiffe_id: id, moved: true });
                }
            }
            keys::JOIN_TOKEN => {
                self.join_tokens.remove_mut(text);
            }
            keys::BUNDLE => {
                if let Ok(name) = text.parse::<TrustDomain>() {
                    self.bundles.remove_mut(&name);
                    touched.bundles.insert(name);
                }
            }
            keys::ROLES => {
                if let Ok(id) = text.parse::<SpiffeId>() {
                    self.roles.remove_mut(&id);
                }
            }
            _ => self.federation.delete(key.kind, text),
        }
    }

    fn put_entry(&mut self, entry: RegistrationEntry, revision: u64) -> BeforeAndAfter {
        let old = self.remove_entry(&entry.id);
        let row = old.as_ref().map_or(self.next_row, |old| old.row);
        self.next_row = self.next_row.max(row + 1);
        let new = Arc::new(EntryRow { row, revision, entry });
        let id = &new.entry.id;
        index(&mut self.by_parent, &new.entry.parent_id, id);
        index(&mut self.by_spiffe_id, &new.entry.spiffe_id, id);
        new.entry
            .federates_with
            .iter()
            .for_each(|name| index(&mut self.federation.by_trust_domain, name, id));
        if new.entry.admin || new.entry.downstream {
            self.with_power.insert_mut(id.clone());
        }
        self.rows.insert_mut(row, new.clone());
        self.entries.insert_mut(id.clone(), new.clone());
        (old, Some(new))
    }

    fn remove_entry(&mut self, id: &EntryId) -> Option<Arc<EntryRow>> {
        let old = self.entries.get(id)?.clone();
        self.entries.remove_mut(id);
        self.rows.remove_mut(&old.row);
        unindex(&mut self.by_parent, &old.entry.parent_id, id);
        unindex(&mut self.by_spiffe_id, &old.entry.spiffe_id, id);
        for name in &old.entry.federates_with {
            unindex(&mut self.federation.by_trust_domain, name, id);
        }
        self.with_power.remove_mut(id);
        Some(old)
    }

    /// The SPIFFE ID of this server, the parent of node aliases.
    pub(crate) fn server_id(&self) -> &SpiffeId {
        &self.server_id
    }

    /// Whether `id` is of this server's trust domain.
    pub(crate) fn is_ours(&self, id: &SpiffeId) -> bool {
        id.trust_domain_name() == self.server_id.trust_domain_name()
    }

    pub(crate) fn entry(&self, id: &EntryId) -> Option<&Arc<EntryRow>> {
        self.entries.get(id)
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.entries.size()
    }

    /// Entries in order of creation whose row comes after `after`.
    pub(crate) fn entries_after(&self, after: u64) -> impl Iterator<Item = &Arc<EntryRow>> {
        use std::ops::Bound;
        self.rows.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, row)| row)
    }

    /// Entries registered below `parent`, in no order.
    pub(crate) fn children<'a>(&'a self, parent: &SpiffeId) -> impl Iterator<Item = &'a Arc<EntryRow>> {
        self.members(self.by_parent.get(parent))
    }

    /// Entries that give `spiffe_id`, in no order.
    pub(crate) fn entries_of<'a>(&'a self, spiffe_id: &SpiffeId) -> impl Iterator<Item = &'a Arc<EntryRow>> {
        self.members(self.by_spiffe_id.get(spiffe_id))
    }

    /// Entries that federate with `trust_domain`, in no order.
    pub(crate) fn federating<'a>(
        &'a self,
        trust_domain: &TrustDomain,
    ) -> impl Iterator<Item = &'a Arc<EntryRow>> {
        self.members(self.federation.by_trust_domain.get(trust_domain))
    }

    /// How many entries federate with `trust_domain`.
    pub(crate) fn federating_count(&self, trust_domain: &TrustDomain) -> usize {
        self.federation.by_trust_domain.get(trust_domain).map_or(0, HashTrieSetSync::size)
    }

    /// What is known about other trust domains beside their bundles.
    pub(crate) fn federation(&self) -> &Federation {
        &self.federation
    }

    /// Entries with the admin or downstream flag, in no order.
    pub(crate) fn entries_with_power(&self) -> impl Iterator<Item = &Arc<EntryRow>> {
        self.members(Some(&self.with_power))
    }

    /// Store revision at which somebody last gained power.
    pub(crate) fn power_revision(&self) -> Option<u64> {
        self.power_revision
    }

    /// The stored roles of an identity.
    pub(crate) fn roles_of(&self, id: &SpiffeId) -> Option<&Arc<RoleHolder>> {
        self.roles.get(id)
    }

    /// Every identity that was given roles, in order of their SPIFFE IDs.
    pub(crate) fn role_holders(&self) -> impl Iterator<Item = &Arc<RoleHolder>> {
        self.roles.values()
    }

    /// An entry with the same parent, SPIFFE ID and selectors.
    pub(crate) fn similar(&self, entry: &RegistrationEntry) -> Option<&Arc<EntryRow>> {
        self.find_similar(entry, |_| true)
    }

    /// As [`View::similar`], and with another id.
    pub(crate) fn twin(&self, entry: &RegistrationEntry) -> Option<&Arc<EntryRow>> {
        self.find_similar(entry, |row| row.entry.id != entry.id)
    }

    /// An entry with the same parent, SPIFFE ID and selectors that is none of `going`.
    pub(crate) fn twin_beside(
        &self,
        entry: &RegistrationEntry,
        going: &HashSet<&EntryId>,
    ) -> Option<&Arc<EntryRow>> {
        self.find_similar(entry, |row| !going.contains(&row.entry.id))
    }

    fn find_similar(
        &self,
        entry: &RegistrationEntry,
        wanted: impl Fn(&EntryRow) -> bool,
    ) -> Option<&Arc<EntryRow>> {
        let below = self.by_parent.get(&entry.parent_id);
        let named = self.by_spiffe_id.get(&entry.spiffe_id);
        // One identity on a thousand nodes, or a thousand identities on one node: the smaller set is soon looked through.
        let size = |ids: Option<&HashTrieSetSync<EntryId>>| ids.map_or(0, HashTrieSetSync::size);
        let fewer = if size(below) < size(named) { below } else { named };
        self.members(fewer).find(|row| {
            let other = &row.entry;
            other.parent_id == entry.parent_id
                && other.spiffe_id == entry.spiffe_id
                && other.selectors == entry.selectors
                && wanted(row)
        })
    }

    fn members<'a>(
        &'a self,
        ids: Option<&'a HashTrieSetSync<EntryId>>,
    ) -> impl Iterator<Item = &'a Arc<EntryRow>> {
        ids.into_iter().flat_map(|ids| ids.iter()).filter_map(|id| self.entries.get(id))
    }

    pub(crate) fn agent(&self, id: &SpiffeId) -> Option<&Arc<AgentRow>> {
        self.agents.get(id)
    }

    /// Agents in order of their SPIFFE IDs.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Arc<AgentRow>> {
        self.agents.values()
    }

    /// Agents in order of their SPIFFE IDs, from the first that comes after `id`.
    pub(crate) fn agents_after(&self, id: &SpiffeId) -> impl Iterator<Item = &Arc<AgentRow>> {
        use std::ops::Bound;
        self.agents.range((Bound::Excluded(id), Bound::Unbounded)).map(|(_, agent)| agent)
    }

    pub(crate) fn agent_count(&self) -> usize {
        self.agents.size()
    }

    pub(crate) fn join_token(&self, token: &str) -> Option<JoinToken> {
        self.join_tokens.get(token).copied()
    }

    /// Every unused join token.
    pub(crate) fn join_tokens(&self) -> impl Iterator<Item = (&str, JoinToken)> {
        self.join_tokens.iter().map(|(token, row)| (token.as_ref(), *row))
    }

    pub(crate) fn bundle(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.bundles.get(trust_domain).map(|row| &row.bundle)
    }

    /// Store revision of a bundle's last change.
    pub(crate) fn bundle_revision(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.bundles.get(trust_domain).map(|row| row.revision)
    }

    /// Every bundle, in order of trust domains.
    pub(crate) fn bundles(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.bundles.values().map(|row| &row.bundle)
    }

    /// Bundles in order of trust domains, from the first that comes after `name`.
    pub(crate) fn bundles_after(&self, name: &TrustDomain) -> impl Iterator<Item = &Arc<Bundle>> {
        use std::ops::Bound;
        self.bundles.range((Bound::Excluded(name), Bound::Unbounded)).map(|(_, row)| &row.bundle)
    }

    pub(crate) fn bundle_count(&self) -> usize {
        self.bundles.size()
    }

    pub(crate) fn journal(&self) -> Option<&Arc<records::JournalRecord>> {
        self.journal.as_ref()
    }

    /// The journal of a family that signs tokens.
    pub(crate) fn token_journal(&self, family: Family) -> Option<&Arc<records::JournalRecord>> {
        match family {
            Family::Wit => self.wit_journal.as_ref(),
            _ => self.jwt_journal.as_ref(),
        }
    }
}

pub(super) type Index<K> = HashTrieMapSync<K, HashTrieSetSync<EntryId>>;

fn index<K: Clone + Eq + Hash>(index: &mut Index<K>, key: &K, id: &EntryId) {
    match index.get_mut(key) {
        Some(ids) => ids.insert_mut(id.clone()),
        None => {
            let mut ids = HashTrieSetSync::new_sync();
            ids.insert_mut(id.clone());
            index.insert_mut(key.clone(), ids);
        }
    }
}

fn unindex<K: Clone + Eq + Hash>(index: &mut Index<K>, key: &K, id: &EntryId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove_mut(id);
        if ids.is_empty() {
            index.remove_mut(key);
        }
    }
}
