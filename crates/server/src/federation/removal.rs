//! Deleting the bundle of another trust domain, and what becomes of the entries that federate with it.
//!
//! Bundle and entries go in one transaction as long as it is within the store's bounds. Beyond, the transaction that
//! deletes the bundle writes down what is to be done with the entries: from then on nobody trusts that trust domain, no
//! entry can begin to federate with it, and no bundle of it can be made. The entries follow in portions. Whatever
//! interrupts that, whoever writes the trust domain next, the housekeeping or the next start brings it to its end. So it
//! is never half done for good. Start at [`delete`].

use std::sync::Arc;

use prost::Message;
use spindle_spiffe_core::TrustDomain;
use spindle_store::{TRANSACTION_BYTES_MAX, TRANSACTION_ITEMS_MAX, Transaction};
use tracing::info;

use super::{FederationFault, TRIES_MAX, write};
use crate::directory::{
    CommitError, Directory, EntryRow, Unlinking, View, bundle_key, encode_entry, reference_key, unlinking_key,
};
use crate::entries::{deletions, dissociation};

/// Entries that one transaction unlinks: a deletion takes four items, and some are left for the bundle.
const PORTION_ENTRIES_MAX: usize = (TRANSACTION_ITEMS_MAX - 96) / 4;

/// Bytes of entries that one transaction writes; keys come on top.
const PORTION_BYTES_MAX: usize = TRANSACTION_BYTES_MAX / 2;

/// Deletes a bundle. Entries that federate with it are unlinked, or stand in the way when `unlinking` is none.
pub(crate) async fn delete(
    directory: &Directory,
    name: &TrustDomain,
    unlinking: Option<Unlinking>,
) -> Result<(), FederationFault> {
    write(directory, name, |view, draft| {
        let revision = view.bundle_revision(name).ok_or(FederationFault::BundleNotFound)?;
        let draft = cut(view, name, revision, draft);
        let unlinking = match (view.federating_count(name), unlinking) {
            (0, _) => return Ok((draft, ())),
            (count, None) => return Err(FederationFault::InUse(count)),
            (_, Some(unlinking)) => unlinking,
        };
        let (rows, is_all) = portion(view, name);
        let draft = match is_all {
            true => unlink(view, name, unlinking, &rows, draft),
            false => draft.put(unlinking_key(name), unlinking.record(name).encode_to_vec()),
        };
        Ok((draft, ()))
    })
    .await?;
    finish(directory, name).await
}

/// Adds to a transaction that the bundle goes, unless it changed or an entry has begun to refer to it since `view`.
fn cut(view: &View, name: &TrustDomain, revision: u64, draft: Transaction) -> Transaction {
    let draft = match view.federation().last_reference(name) {
        Some(reference) => draft.at_revision(reference_key(name), reference).delete(reference_key(name)),
        None => draft.absent(reference_key(name)),
    };
    draft.at_revision(bundle_key(name), revision).delete(bundle_key(name))
}

/// As many entries that federate with `name` as one transaction can unlink, and whether these are all.
fn portion(view: &View, name: &TrustDomain) -> (Vec<Arc<EntryRow>>, bool) {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for row in view.federating(name) {
        bytes += encode_entry(&row.entry).len();
        // One entry is always within the bounds of a transaction: it was stored by one.
        if !rows.is_empty() && (rows.len() == PORTION_ENTRIES_MAX || bytes > PORTION_BYTES_MAX) {
            return (rows, false);
        }
        rows.push(row.clone());
    }
    (rows, true)
}

fn unlink(
    view: &View,
    name: &TrustDomain,
    unlinking: Unlinking,
    rows: &[Arc<EntryRow>],
    draft: Transaction,
) -> Transaction {
    match unlinking {
        Unlinking::Delete => deletions(view, rows, draft),
        Unlinking::Dissociate => rows.iter().fold(draft, |draft, row| dissociation(row, name, draft)),
    }
}

/// Unlinks what is left of the entries of `name` after its bundle was deleted; nothing when there is nothing to do.
pub(crate) async fn finish(directory: &Directory, name: &TrustDomain) -> Result<(), FederationFault> {
    let (mut tries, mut left) = (1, usize::MAX);
    loop {
        let view = directory.view();
        let Some(unlinking) = view.federation().unlinking(name) else { return Ok(()) };
        let count = view.federating_count(name);
        if count < left {
            (tries, left) = (1, count);
        }
        let (rows, is_all) = portion(&view, name);
        let open = Transaction::new().exists(unlinking_key(name));
        let mut draft = unlink(&view, name, unlinking, &rows, open);
        if is_all {
            draft = draft.delete(unlinking_key(name));
        }
        match directory.commit(draft).await {
            Ok(_) => {
                info!(trust_domain_id = %name, entries = rows.len(), "entries unlinked from a deleted bundle");
            }
            // One of the entries changed, or somebody else does the same.
            Err(CommitError::Conflict(_)) if tries < TRIES_MAX => tries += 1,
            Err(CommitError::Conflict(_)) => return Err(FederationFault::Contended(name.clone())),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
}

/// Brings every removal to its end that was interrupted.
pub(crate) async fn finish_all(directory: &Directory) -> Result<(), FederationFault> {
    let open: Vec<TrustDomain> = directory.view().federation().unlinkings().cloned().collect();
    for name in open {
        finish(directory, &name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use spindle_proto::convert::entry_from_proto;
    use spindle_proto::spire::api::types;
    use spindle_spiffe_core::RegistrationEntry;

    use super::*;
    use crate::entries::{self, EntryFault};
    use crate::fixtures::{create, directory, entry, foreign_bundle, id, trust_domain};

    fn other() -> TrustDomain {
        "other.example".parse().unwrap()
    }

    fn referring() -> RegistrationEntry {
        let wire = types::Entry {
            federates_with: vec![other().to_string()],
            ..entry(&id("/node"), "/web", &["a:1"])
        };
        entry_from_proto(&wire, || "one".parse().unwrap()).unwrap()
    }

    /// A directory with the bundle and an entry without references, halted.
    async fn halting() -> (Directory, Sender<()>) {
        let directory = directory();
        foreign_bundle(&directory, other().name(), 1).await;
        create(&directory, types::Entry { id: "plain".into(), ..entry(&id("/node"), "/db", &["a:1"]) }).await;
        let go = halt(&directory);
        (directory, go)
    }

    /// Has the next commit wait, once it shows, for a word; what is sent behind it is not applied before.
    fn halt(directory: &Directory) -> Sender<()> {
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(Some(gone));
        directory.listen(Box::new(move |_, _| {
            if let Some(gone) = gone.lock().unwrap().take() {
                gone.recv().unwrap();
            }
        }));
        go
    }

    fn names(directory: &Directory, id: &str) -> Vec<TrustDomain> {
        directory.view().entry(&id.parse().unwrap()).unwrap().entry.federates_with.clone()
    }

    #[tokio::test]
    async fn a_deletion_sees_a_reference_that_was_made_after_it_looked() {
        for unlinking in [None, Some(Unlinking::Dissociate), Some(Unlinking::Delete)] {
            let (directory, go) = halting().await;
            let (trust_domain, name) = (trust_domain(), other());
            // The first holds the store up, so that the second is not applied when the third looks.
            let ((), created, deleted, ()) = tokio::join!(
                foreign_bundle(&directory, "third.example", 1),
                entries::create(&directory, &trust_domain, referring(), &entries::anything),
                delete(&directory, &name, unlinking),
                async { go.send(()).unwrap() },
            );
            created.unwrap();
            match unlinking {
                None => assert!(matches!(deleted, Err(FederationFault::InUse(1))), "{deleted:?}"),
                Some(_) => deleted.unwrap(),
            }
            assert_eq!(directory.view().bundle(&other()).is_some(), unlinking.is_none());
            let rows = directory.view().entry_count();
            assert_eq!(rows, if unlinking == Some(Unlinking::Delete) { 1 } else { 2 });
            assert_eq!(directory.view().federating_count(&other()), usize::from(unlinking.is_none()));
        }
    }

    #[tokio::test]
    async fn a_deletion_sees_a_reference_that_an_update_made_after_it_looked() {
        let (directory, go) = halting().await;
        let (trust_domain, name, plain) = (trust_domain(), other(), "plain".parse().unwrap());
        let refer =
            |old: &RegistrationEntry| RegistrationEntry { federates_with: vec![other()], ..old.clone() };
        let ((), updated, deleted, ()) = tokio::join!(
            foreign_bundle(&directory, "third.example", 1),
            entries::update(&directory, &trust_domain, &plain, refer, &entries::anything),
            delete(&directory, &name, None),
            async { go.send(()).unwrap() },
        );
        updated.unwrap();
        assert!(matches!(deleted, Err(FederationFault::InUse(1))), "{deleted:?}");
        assert_eq!(names(&directory, "plain"), [other()]);
    }

    #[tokio::test]
    async fn a_reference_to_a_bundle_that_went_after_it_looked_is_refused() {
        let (directory, go) = halting().await;
        let (trust_domain, name, plain) = (trust_domain(), other(), "plain".parse().unwrap());
        let refer =
            |old: &RegistrationEntry| RegistrationEntry { federates_with: vec![other()], ..old.clone() };
        let ((), deleted, created, updated, ()) = tokio::join!(
            foreign_bundle(&directory, "third.example", 1),
            delete(&directory, &name, None),
            entries::create(&directory, &trust_domain, referring(), &entries::anything),
            entries::update(&directory, &trust_domain, &plain, refer, &entries::anything),
            async { go.send(()).unwrap() },
        );
        deleted.unwrap();
        assert!(matches!(created, Err(EntryFault::NoBundle(name)) if name == other()));
        assert!(matches!(updated, Err(EntryFault::NoBundle(name)) if name == other()));
        assert_eq!((names(&directory, "plain").len(), directory.view().entry_count()), (0, 1));
    }

    #[tokio::test]
    async fn a_deletion_takes_an_entry_as_it_is_when_that_changed_after_it_looked() {
        for unlinking in [Unlinking::Dissociate, Unlinking::Delete] {
            let directory = directory();
            let (trust_domain, name, one) = (trust_domain(), other(), "one".parse().unwrap());
            foreign_bundle(&directory, other().name(), 1).await;
            entries::create(&directory, &trust_domain, referring(), &entries::anything).await.unwrap();
            let go = halt(&directory);
            let change = |old: &RegistrationEntry| RegistrationEntry { admin: true, ..old.clone() };
            let ((), updated, deleted, ()) = tokio::join!(
                foreign_bundle(&directory, "third.example", 1),
                entries::update(&directory, &trust_domain, &one, change, &entries::anything),
                delete(&directory, &name, Some(unlinking)),
                async { go.send(()).unwrap() },
            );
            updated.unwrap();
            deleted.unwrap();
            let view = directory.view();
            match (unlinking, view.entry(&one)) {
                (Unlinking::Delete, row) => assert!(row.is_none()),
                (Unlinking::Dissociate, row) => {
                    let row = row.unwrap();
                    assert!(row.entry.admin, "the change is not lost");
                    assert_eq!((row.entry.federates_with.len(), row.entry.revision_number), (0, 2));
                }
            }
        }
    }
}
