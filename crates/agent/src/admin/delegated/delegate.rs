//! The caller of the Delegated Identity API, and whether it may.
//!
//! It may while one of the identities that it has by itself is listed as a delegate. Start at [`Delegate::new`].

use std::collections::BTreeSet;
use std::sync::Arc;

use spindle_spiffe_core::{Reason, SpiffeId};
use spindle_transport::LocalPeer;
use tonic::Status;

use crate::cache::View;
use crate::gate::{Admitted, Gate};

/// A caller about whom nothing is known yet.
pub(super) struct Delegate {
    gate: Arc<Gate>,
    listed: Arc<BTreeSet<SpiffeId>>,
    peer: LocalPeer,
}

/// A caller that was a delegate when it was looked at last.
pub(super) struct AdmittedDelegate {
    listed: Arc<BTreeSet<SpiffeId>>,
    caller: Admitted,
}

impl Delegate {
    pub(super) fn new(gate: Arc<Gate>, listed: Arc<BTreeSet<SpiffeId>>, peer: LocalPeer) -> Self {
        Self { gate, listed, peer }
    }

    /// Attests the caller and lets it in if it is a delegate.
    ///
    /// # Errors
    /// PERMISSION_DENIED with SPIRE's two texts, or that the caller cannot be attested.
    pub(super) async fn admitted(self) -> Result<AdmittedDelegate, Status> {
        let mut delegate =
            AdmittedDelegate { listed: self.listed, caller: self.gate.admit(self.peer).await? };
        delegate.check_again().await?;
        Ok(delegate)
    }
}

impl AdmittedDelegate {
    /// Looks at the caller again: what it runs as, what it runs, and which identities it has now. Cancel-safe.
    ///
    /// # Errors
    /// That it is a delegate no longer, or is gone.
    pub(super) async fn check_again(&mut self) -> Result<(), Status> {
        loop {
            let standing = standing(&self.caller.view(), &self.listed);
            if let Err(reason) = standing {
                return Err(self.caller.refuse(reason));
            }
            if self.caller.is_still_entitled().await? {
                self.caller.note_wait();
                return Ok(());
            }
        }
    }

    /// Waits until the caller's own identities have changed. Cancel-safe.
    ///
    /// # Errors
    /// When the agent stops.
    pub(super) async fn changed(&mut self) -> Result<(), Status> {
        self.caller.changed().await
    }
}

/// Whether a process with this view is a delegate. Whether its own SVIDs are signed by now does not matter.
fn standing(view: &View, listed: &BTreeSet<SpiffeId>) -> Result<(), Reason> {
    let signed = view.content.identities.iter().map(|one| &one.entry.spiffe_id);
    let ids: Vec<&SpiffeId> = signed.chain(view.unready.iter().map(|(_, id, _)| id)).collect();
    match ids.as_slice() {
        [] => Err(Reason::NoMatchingEntry),
        ids if ids.iter().any(|id| listed.contains(*id)) => Ok(()),
        _ => Err(Reason::NotADelegate),
    }
}
