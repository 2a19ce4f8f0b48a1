//! One caller's stream of WIT-SVIDs (Workload API 7.2.1): what it matches is wanted for as long as the stream is open.
//!
//! The caller is looked at again before each later message. An answer has all identities, in the order of the other
//! profiles; those that are late are waited for a moment, as with X509-SVIDs. Start at [`WitSession::wait`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spindle_proto::workload::WitsvidRequest;
use spindle_spiffe_core::{Reason, SpiffeId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::decide::{COMPLETE_WAIT, Decision, FIRST_WAIT};
use crate::cache::Unready;
use crate::frames::Messages;
use crate::gate::{Admitted, stopping};
use crate::wits::{ShownWit, Wants, WitAnswer, WitSource};

/// An attested caller and what it was sent.
pub(super) struct WitSession {
    caller: Admitted,
    source: WitSource,
    changes: watch::Receiver<u64>,
    wants: Wants,
    spiffe_id: Option<SpiffeId>,
    /// The last message; none before the first.
    sent: Option<Arc<WitAnswer>>,
}

/// The identity a request is limited to, or what is wrong with it.
pub(super) fn wanted(request: &WitsvidRequest) -> Result<Option<SpiffeId>, String> {
    match request.spiffe_id.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error| format!("invalid requested SPIFFE ID: {error}")),
    }
}

impl WitSession {
    pub(super) fn new(caller: Admitted, source: &WitSource, spiffe_id: Option<SpiffeId>) -> Self {
        let (changes, wants) = (source.changes(), source.want());
        Self { caller, source: source.clone(), changes, wants, spiffe_id, sent: None }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        let mut waiting_since = Instant::now();
        loop {
            let shown = self.look();
            match decide(&shown, self.sent.is_none(), waiting_since.elapsed()) {
                Decision::Refuse(reason) => return Err(self.refuse(self.reason(reason), &shown)),
                Decision::WaitUpTo(limit) => {
                    // Late or changed: the next decision tells which.
                    if let Ok(changed) = timeout_at(waiting_since + limit, self.changed()).await {
                        changed?;
                    }
                }
                Decision::Send => {
                    // Kept alive by the stream, so that the same answer is the same object.
                    let answer = self.source.answer(&shown);
                    if self.sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &answer)) {
                        self.changed().await?;
                        waiting_since = Instant::now();
                    } else if self.caller.is_still_entitled().await? {
                        self.caller.note_wait();
                        let frame = answer.frame();
                        self.sent = Some(answer);
                        return Ok(frame);
                    }
                }
            }
        }
    }

    /// What the caller is entitled to now, which is wanted from now on.
    fn look(&mut self) -> Vec<ShownWit> {
        self.changes.borrow_and_update();
        // Only to be told of the next one.
        drop(self.caller.view());
        if !self.source.is_supported() {
            return Vec::new();
        }
        let shown = self.source.shown(self.caller.selectors(), self.spiffe_id.as_ref());
        self.wants.set(shown.iter().map(|one| one.matched.entry.id.clone()).collect());
        shown
    }

    /// Waits for another view of the entries, or for another WIT-SVID. Cancel-safe.
    async fn changed(&mut self) -> Result<(), Status> {
        self.caller.note_wait();
        tokio::select! {
            changed = self.caller.changed() => changed,
            // The source lives as long as this session.
            _ = self.changes.changed() => Ok(()),
        }
    }

    /// Why nothing is shown, as far as it does not lie with the caller.
    fn reason(&self, reason: Reason) -> Reason {
        match reason {
            Reason::NoMatchingEntry if !self.caller.is_synced() => Reason::AgentStarting,
            Reason::NoMatchingEntry if !self.source.is_supported() => Reason::NotSupported,
            reason => reason,
        }
    }

    fn refuse(&self, reason: Reason, shown: &[ShownWit]) -> Status {
        if reason == Reason::SvidNotReady {
            self.caller.tell_with(reason, || unready(shown));
            return crate::gate::status_of(reason);
        }
        self.caller.refuse(reason)
    }
}

impl Messages for WitSession {
    /// The next message, when there is one that differs from the last.
    async fn next(&mut self) -> Result<Bytes, Status> {
        let shutdown = self.caller.shutdown();
        // Cancel-safe: a message is kept as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            next = self.wait() => next,
        }
    }
}

/// Decides for what is shown. `waited` is how long the stream has been waiting already; `is_first` says whether it has been sent
/// nothing so far.
fn decide(shown: &[ShownWit], is_first: bool, waited: Duration) -> Decision {
    if shown.is_empty() {
        return Decision::Refuse(Reason::NoMatchingEntry);
    }
    let has_some = shown.iter().any(|one| one.state.is_ok());
    let is_signing = shown.iter().any(|one| matches!(one.state, Err(Unready::Signing | Unready::OnDemand)));
    match (has_some, is_signing) {
        (true, true) if is_first && waited < COMPLETE_WAIT => Decision::WaitUpTo(COMPLETE_WAIT),
        (true, _) => Decision::Send,
        (false, true) if waited < FIRST_WAIT => Decision::WaitUpTo(FIRST_WAIT),
        (false, _) => Decision::Refuse(Reason::SvidNotReady),
    }
}

fn unready(shown: &[ShownWit]) -> String {
    let why = |one: &ShownWit| {
        let entry = &one.matched.entry;
        Some(format!("{} ({}): {}", entry.id, entry.spiffe_id, one.state.as_ref().err()?))
    };
    shown.iter().filter_map(why).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use spindle_spiffe_core::Hint;

    use super::*;
    use crate::cache::Matched;
    use crate::fixtures::entry;

    fn shown(why: Unready) -> ShownWit {
        let entry = Arc::new(entry("a", &["unix:uid:1"]));
        ShownWit { matched: Matched { entry, hint: Hint::default() }, state: Err(why) }
    }

    #[test]
    fn wap_65_nothing_to_show_is_a_refusal_and_never_an_empty_answer() {
        let late = Duration::from_secs(60);
        for is_first in [true, false] {
            assert_eq!(decide(&[], is_first, late), Decision::Refuse(Reason::NoMatchingEntry));
            let failed = [shown(Unready::Failed("no".into()))];
            assert_eq!(decide(&failed, is_first, Duration::ZERO), Decision::Refuse(Reason::SvidNotReady));
            let signing = [shown(Unready::Signing)];
            assert_eq!(decide(&signing, is_first, Duration::ZERO), Decision::WaitUpTo(FIRST_WAIT));
            assert_eq!(decide(&signing, is_first, late), Decision::Refuse(Reason::SvidNotReady));
        }
    }
}
