//! SubscribeToX509SVIDs: the identities of one workload, and again whenever they change.
//!
//! Withheld are those of administrators and downstream servers. A workload without any is told by an empty list, not by a
//! refusal. Start at [`Identities::new`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::delegate::AdmittedDelegate;
use super::subject::{Subject, gone};
use crate::cache::{View, delegated_x509_svids};
use crate::frames::Messages;
use crate::gate::{Gate, stopping};

/// How long the first answer waits for SVIDs that are being signed, when there are others to send.
const COMPLETE_WAIT: Duration = Duration::from_millis(500);

/// How long it waits when there is none yet.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The messages of one stream.
pub(super) struct Identities {
    gate: Arc<Gate>,
    delegate: AdmittedDelegate,
    subject: Subject,
    view: watch::Receiver<View>,
    sent: Option<Bytes>,
}

impl Identities {
    pub(super) fn new(gate: Arc<Gate>, delegate: AdmittedDelegate, subject: Subject) -> Self {
        let view = gate.cache().subscribe(subject.selectors());
        Self { gate, delegate, subject, view, sent: None }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        let since = Instant::now();
        loop {
            self.delegate.check_again().await?;
            if self.subject.look_again().await? {
                self.view = self.gate.cache().subscribe(self.subject.selectors());
            }
            let (message, patience) = {
                let view = self.view.borrow_and_update();
                (delegated_x509_svids(&view.content), patience(&view))
            };
            if self.sent.is_none() && since.elapsed() < patience {
                // Late or changed: the next round tells which.
                if let Ok(changed) = timeout_at(since + patience, self.changed()).await {
                    changed?;
                }
            } else if self.sent.as_ref() == Some(&message) {
                self.changed().await?;
            } else {
                self.sent = Some(message.clone());
                return Ok(message);
            }
        }
    }

    /// Waits until the workload's identities or the delegate's own have changed. Cancel-safe.
    async fn changed(&mut self) -> Result<(), Status> {
        tokio::select! {
            changed = self.view.changed() => changed.map_err(|_| stopping()),
            changed = self.delegate.changed() => changed,
        }
    }
}

/// How long a first answer may wait for what is being signed.
fn patience(view: &View) -> Duration {
    match (view.is_signing(), view.content.identities.is_empty()) {
        (false, _) => Duration::ZERO,
        (true, false) => COMPLETE_WAIT,
        (true, true) => FIRST_WAIT,
    }
}

impl Messages for Identities {
    async fn next(&mut self) -> Result<Bytes, Status> {
        let (shutdown, ended) = (self.gate.shutdown().clone(), self.subject.ended());
        // Cancel-safe: a message is kept as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            () = ended => Err(gone()),
            next = self.wait() => next,
        }
    }
}
