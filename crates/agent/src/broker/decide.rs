//! What a broker is told about a workload, as a pure decision over the workload's view.
//!
//! Start at [`decide`].

use std::time::Duration;

use bytes::Bytes;
use spindle_spiffe_core::{EntryId, Reason, RegistrationEntry};

use crate::cache::{Shown, Unready, View, encode_x509_svids_of};

/// Which of the streamed answers is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Identities with keys, and bundles.
    X509Svids,
    /// X.509 bundles alone.
    X509Bundles,
    /// JWT bundles.
    JwtBundles,
}

/// The next thing to do for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send what the view shows.
    Send,
    /// Something may come in a moment: wait for a change, up to this long since the stream began.
    WaitUpTo(Duration),
    /// End the stream.
    Refuse(Reason),
}

/// How long the first answer waits for SVIDs that are being signed when there are others to send.
const COMPLETE_WAIT: Duration = Duration::from_millis(500);

/// How long it waits when there is none yet.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Identities that power over servers goes with stay with their workloads, as with SPIRE.
pub(super) fn is_given(entry: &RegistrationEntry) -> bool {
    !entry.admin && !entry.downstream
}

/// Decides for a workload that is there. `waited` is for how long a stream without a message has been open; none after its
/// first. `given` says of an entry that has no SVID whether it would be given.
pub(super) fn decide(
    view: &View,
    kind: Kind,
    waited: Option<Duration>,
    given: impl Fn(&EntryId) -> bool,
) -> Decision {
    if view.content.own.bundle.is_empty() {
        return Decision::Refuse(Reason::AgentStarting);
    }
    if kind != Kind::X509Svids {
        let is_entitled = !view.content.identities.is_empty() || !view.unready.is_empty();
        return if is_entitled { Decision::Send } else { Decision::Refuse(Reason::NoMatchingEntry) };
    }
    let mut late = view.unready.iter().filter(|(id, ..)| given(id)).map(|(.., why)| why).peekable();
    let (has_ready, has_late) =
        (view.content.identities.iter().any(|one| is_given(&one.entry)), late.peek().is_some());
    let is_signing = late.any(|why| matches!(why, Unready::Signing | Unready::OnDemand));
    let patience = if has_ready { COMPLETE_WAIT } else { FIRST_WAIT };
    match (has_ready, has_late) {
        _ if is_signing && waited.is_some_and(|waited| waited < patience) => Decision::WaitUpTo(patience),
        (true, _) => Decision::Send,
        (false, true) => Decision::Refuse(Reason::SvidNotReady),
        (false, false) => Decision::Refuse(Reason::NoMatchingEntry),
    }
}

/// The framed message.
pub(super) fn message(view: &View, kind: Kind) -> Bytes {
    match kind {
        Kind::X509Svids => encode_x509_svids_of(&view.content, |one: &Shown| is_given(&one.entry)),
        // The Broker API's messages about bundles have the form of the Workload API's.
        Kind::X509Bundles => view.content.x509_bundles(),
        Kind::JwtBundles => view.content.jwt_bundles(),
    }
}
