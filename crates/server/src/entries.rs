//! Creating, changing and deleting registration entries.
//!
//! Each operation is one transaction whose preconditions carry the rules, so they hold with many writers: ids are unique,
//! an update is based on the row it read, and no entry is created beside one with the same parent, SPIFFE ID and selectors.
//! As in SPIRE an update may make two entries similar; the mark of their likeness then stays until the last of them goes.

use std::collections::HashSet;
use std::sync::Arc;

use spindle_spiffe_core::entry::EntryError;
use spindle_spiffe_core::{EntryId, Reason, RegistrationEntry, TrustDomain};
use spindle_store::{InvalidTransaction, RecordKey, StoreError, Transaction};

use crate::directory::{
    CommitError, Directory, EntryRow, View, bundle_key, encode_entry, entry_key, power_key, reference_key,
    similarity_key,
};
use crate::roles::RoleRefusal;

/// How often an update is tried again when somebody else changed the entry in between.
const UPDATE_TRIES_MAX: usize = 8;

/// Why an entry operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryFault {
    /// A rule over its fields.
    #[error(transparent)]
    Invalid(#[from] EntryError),
    /// Same parent, SPIFFE ID and selectors.
    #[error("similar entry already exists")]
    Similar(Arc<EntryRow>),
    /// The id is taken by another entry.
    #[error("entry ID {0} is already in use")]
    IdTaken(EntryId),
    /// No such entry.
    #[error("entry not found")]
    NotFound,
    /// Beyond what the caller's roles cover.
    #[error(transparent)]
    Role(RoleRefusal),
    /// It federates with a trust domain that has no bundle.
    #[error("unable to find federated bundle \"{id}\"", id = .0.id())]
    NoBundle(TrustDomain),
    /// Others kept changing the same entry.
    #[error("entry {0} is being changed by others")]
    Contended(EntryId),
    /// Each field is within its bounds, the whole is not.
    #[error("the entry is too large: {0}")]
    TooLarge(InvalidTransaction),
    /// The store failed.
    #[error("the change could not be stored: {0}")]
    Store(StoreError),
}

impl From<RoleRefusal> for EntryFault {
    fn from(refusal: RoleRefusal) -> Self {
        match refusal {
            RoleRefusal::Unseen => Self::NotFound,
            refusal => Self::Role(refusal),
        }
    }
}

impl From<StoreError> for EntryFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(invalid) => Self::TooLarge(invalid),
            error => Self::Store(error),
        }
    }
}

impl EntryFault {
    /// The code that goes with it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            EntryFault::Invalid(error) => reason_of(error),
            EntryFault::Similar(_) => Reason::EntryExists,
            EntryFault::IdTaken(_) => Reason::AlreadyExists,
            EntryFault::NotFound => Reason::EntryNotFound,
            EntryFault::Role(refusal) => refusal.reason(),
            EntryFault::NoBundle(_) => Reason::BundleNotFound,
            EntryFault::Contended(_) => Reason::Overloaded,
            EntryFault::TooLarge(_) => Reason::MessageTooLarge,
            EntryFault::Store(_) => Reason::StoreFailed,
        }
    }
}

/// The code that goes with a rule over names and fields.
pub(crate) fn reason_of(error: &EntryError) -> Reason {
    match error {
        EntryError::ForeignId { .. } | EntryError::ForeignParent { .. } => Reason::WrongTrustDomain,
        _ => Reason::BadRequest,
    }
}

/// What goes with a permitted change of an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Permitted {
    /// It is permitted only as long as nobody gains power, since the identity could be the one.
    pub(crate) only_while_power_stays: bool,
    /// Somebody gains power by it.
    pub(crate) gives_power: bool,
}

/// May refuse that `old` becomes `new` (an absent one is not there before or after), as things stand in the view. It is
/// asked anew whenever a transaction has to be made anew, so it speaks of the very entry that is replaced.
pub(crate) type Permit<'a> = dyn Fn(&View, Option<&RegistrationEntry>, Option<&RegistrationEntry>) -> Result<Permitted, RoleRefusal>
    + Send
    + Sync
    + 'a;

/// The permit of those who may do everything, in tests that are not about power.
#[cfg(test)]
pub(crate) fn anything(
    _: &View,
    _: Option<&RegistrationEntry>,
    _: Option<&RegistrationEntry>,
) -> Result<Permitted, RoleRefusal> {
    Ok(Permitted::default())
}

/// Adds to a transaction what its permit asks for.
pub(crate) fn within(view: &View, draft: Transaction, permitted: Permitted) -> Transaction {
    let draft = match (permitted.only_while_power_stays, view.power_revision()) {
        (false, _) => draft,
        (true, Some(revision)) => draft.at_revision(power_key(), revision),
        (true, None) => draft.absent(power_key()),
    };
    if permitted.gives_power { draft.put(power_key(), b"".as_slice()) } else { draft }
}

/// Stores a new entry and returns it as it stands.
pub(crate) async fn create(
    directory: &Directory,
    trust_domain: &TrustDomain,
    entry: RegistrationEntry,
    permit: &Permit<'_>,
) -> Result<Arc<EntryRow>, EntryFault> {
    entry.check(trust_domain)?;
    for _ in 0..UPDATE_TRIES_MAX {
        let view = directory.view();
        let permitted = permit(&view, None, Some(&entry))?;
        if let Some(twin) = view.similar(&entry) {
            return Err(EntryFault::Similar(twin.clone()));
        }
        // The rest is left to the store, which looks for a similar entry first: one may come earlier in the same batch.
        match directory.commit(within(&view, creation(&entry), permitted)).await {
            Ok(_) => return directory.view().entry(&entry.id).cloned().ok_or(EntryFault::NotFound),
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::Conflict(conflict)) => stood_in_the_way(&entry, conflict.precondition.key())?,
        }
    }
    Err(EntryFault::Contended(entry.id))
}

/// Why an entry was not made, by the key of the precondition that failed. A similar entry shows in the next view, or has
/// gone again.
fn stood_in_the_way(entry: &RegistrationEntry, key: &RecordKey) -> Result<(), EntryFault> {
    if *key == entry_key(&entry.id) {
        return Err(EntryFault::IdTaken(entry.id.clone()));
    }
    match entry.federates_with.iter().find(|name| bundle_key(name) == *key) {
        Some(name) => Err(EntryFault::NoBundle(name.clone())),
        None => Ok(()),
    }
}

/// The transaction that stores a new entry.
fn creation(entry: &RegistrationEntry) -> Transaction {
    let mut draft = Transaction::new()
        .absent(similarity_key(entry))
        .absent(entry_key(&entry.id))
        .put(similarity_key(entry), entry.id.as_str().as_bytes())
        .put(entry_key(&entry.id), encode_entry(entry));
    for name in &entry.federates_with {
        draft = referring(draft, name);
    }
    draft
}

/// Adds what makes a new reference to `name` hold: its bundle is there, and whoever deletes that hears of the reference.
fn referring(draft: Transaction, name: &TrustDomain) -> Transaction {
    draft.exists(bundle_key(name)).put(reference_key(name), b"".as_slice())
}

fn require_bundles(view: &View, entry: &RegistrationEntry) -> Result<(), EntryFault> {
    match entry.federates_with.iter().find(|name| view.bundle(name).is_none()) {
        Some(name) => Err(EntryFault::NoBundle(name.clone())),
        None => Ok(()),
    }
}

/// Replaces an entry by what `change` makes of it, and returns it as it stands. Its revision number grows by one.
pub(crate) async fn update(
    directory: &Directory,
    trust_domain: &TrustDomain,
    id: &EntryId,
    change: impl Fn(&RegistrationEntry) -> RegistrationEntry,
    permit: &Permit<'_>,
) -> Result<Arc<EntryRow>, EntryFault> {
    for _ in 0..UPDATE_TRIES_MAX {
        let view = directory.view();
        let old = view.entry(id).ok_or(EntryFault::NotFound)?;
        let mut new = change(&old.entry);
        new.revision_number = old.entry.revision_number + 1;
        // First, for whoever may not see the entry learns nothing of it.
        let permitted = permit(&view, Some(&old.entry), Some(&new))?;
        new.check(trust_domain)?;
        require_bundles(&view, &new)?;
        match directory.commit(within(&view, replacement(&view, old, &new), permitted)).await {
            Ok(_) => return directory.view().entry(id).cloned().ok_or(EntryFault::NotFound),
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::Conflict(_)) => {}
        }
    }
    Err(EntryFault::Contended(id.clone()))
}

/// The transaction that replaces `old`, which must not have changed since it was read.
fn replacement(view: &View, old: &EntryRow, new: &RegistrationEntry) -> Transaction {
    let is = similarity_key(new);
    let mut draft = Transaction::new()
        .at_revision(entry_key(&new.id), old.revision)
        .put(entry_key(&new.id), encode_entry(new));
    for name in &new.federates_with {
        draft = match old.entry.federates_with.contains(name) {
            true => draft.exists(bundle_key(name)),
            false => referring(draft, name),
        };
    }
    if similarity_key(&old.entry) != is {
        // Beside a twin the mark is there already; should the twin take it along at this very moment, creation still finds
        // the entry itself.
        if view.twin(new).is_none() {
            draft = draft.absent(is.clone());
        }
        draft = release(view, draft, old).put(is, new.id.as_str().as_bytes());
    }
    draft
}

/// Takes `old` from its mark of likeness: the mark goes, or passes to an entry that is similar and must stay as it is for
/// that, so that of two similar entries that go at once the later one sees the other gone.
fn release(view: &View, draft: Transaction, old: &EntryRow) -> Transaction {
    pass_on(view.twin(&old.entry), similarity_key(&old.entry), draft)
}

fn pass_on(twin: Option<&Arc<EntryRow>>, mark: RecordKey, draft: Transaction) -> Transaction {
    match twin {
        Some(twin) => {
            let id = &twin.entry.id;
            draft.at_revision(entry_key(id), twin.revision).put(mark, id.as_str().as_bytes())
        }
        None => draft.delete(mark),
    }
}

/// Adds the deletion of all `rows`, which must not have changed since `view`, to a transaction.
pub(crate) fn deletions(view: &View, rows: &[Arc<EntryRow>], mut draft: Transaction) -> Transaction {
    let going: HashSet<&EntryId> = rows.iter().map(|row| &row.entry.id).collect();
    let mut marks = HashSet::new();
    for row in rows {
        let (key, mark) = (entry_key(&row.entry.id), similarity_key(&row.entry));
        draft = draft.at_revision(key.clone(), row.revision).delete(key);
        // Similar entries share one mark; it goes with the last of them, or passes to one that stays.
        if marks.insert(mark.clone()) {
            draft = pass_on(view.twin_beside(&row.entry, &going), mark, draft);
        }
    }
    draft
}

/// Adds to a transaction that `row`, which must not have changed, federates with `name` no more. Its revision number grows
/// by one, by which agents of SPIRE notice.
pub(crate) fn dissociation(row: &EntryRow, name: &TrustDomain, draft: Transaction) -> Transaction {
    let mut entry = row.entry.clone();
    entry.federates_with.retain(|other| other != name);
    entry.revision_number += 1;
    let key = entry_key(&entry.id);
    draft.at_revision(key.clone(), row.revision).put(key, encode_entry(&entry))
}

/// Deletes an entry.
pub(crate) async fn delete(
    directory: &Directory,
    id: &EntryId,
    permit: &Permit<'_>,
) -> Result<(), EntryFault> {
    for _ in 0..UPDATE_TRIES_MAX {
        let view = directory.view();
        let old = view.entry(id).ok_or(EntryFault::NotFound)?;
        let permitted = permit(&view, Some(&old.entry), None)?;
        match directory.commit(within(&view, deletion(&view, old, Transaction::new()), permitted)).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::Conflict(_)) => {}
        }
    }
    Err(EntryFault::Contended(id.clone()))
}

/// Adds the deletion of `old`, which must not have changed since `view`, to a transaction.
pub(crate) fn deletion(view: &View, old: &EntryRow, draft: Transaction) -> Transaction {
    let draft = draft.at_revision(entry_key(&old.entry.id), old.revision).delete(entry_key(&old.entry.id));
    release(view, draft, old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, entry, id};
    use crate::roles::{Grant, grant};

    #[tokio::test]
    async fn what_holds_only_while_nobody_gains_power_does_not_pass_by_somebody_who_does() {
        let directory = fixtures::directory();
        let limited = Permitted { only_while_power_stays: true, gives_power: false };
        let powerful = Permitted { only_while_power_stays: false, gives_power: true };
        let draft = |path: &str, view: &View, permitted| {
            let wire = spindle_proto::spire::api::types::Entry {
                id: path[1..].into(),
                ..entry(&id("/node"), path, &["a:1"])
            };
            let entry = spindle_proto::convert::existing_entry_from_proto(&wire).unwrap();
            within(view, creation(&entry), permitted)
        };
        let conflicts =
            async |transaction| matches!(directory.commit(transaction).await, Err(CommitError::Conflict(_)));
        let before = directory.view();
        grant(&directory, &id("/a"), Grant::Reader).await.unwrap();
        assert!(conflicts(draft("/a", &before, limited)).await, "the first to gain power");
        let before = directory.view();
        assert!(!conflicts(draft("/b", &before, powerful)).await);
        assert!(conflicts(draft("/c", &before, limited)).await, "and every later one");
        let before = directory.view();
        assert!(!conflicts(draft("/d", &before, Permitted::default())).await);
        assert!(!conflicts(draft("/e", &before, limited)).await, "others do not matter");
    }
}
