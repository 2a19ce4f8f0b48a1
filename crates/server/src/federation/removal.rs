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
    let mut tries = 1;
    loop {
        let view = directory.view();
        let Some(unlinking) = view.federation().unlinking(name) else { return Ok(()) };
        let (rows, is_all) = portion(&view, name);
        let open = Transaction::new().exists(unlinking_key(name));
        let mut draft = unlink(&view, name, unlinking, &rows, open);
        if is_all {
            draft = draft.delete(unlinking_key(name));
        }
        match directory.commit(draft).await {
            Ok(_) => {
                tries = 1;
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
