//! One caller's stream: attested when it opens, looked at again before each later message, woken only by its own view.

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::decide::{Decision, Method, decide};
use crate::frames::Messages;
use crate::gate::{Admitted, stopping};

/// An attested caller and what it was sent.
pub(super) struct Session {
    caller: Admitted,
    method: Method,
    allow_unauthenticated_verifiers: bool,
    sent: Option<Bytes>,
}

impl Session {
    pub(super) fn new(caller: Admitted, method: Method, allow_unauthenticated_verifiers: bool) -> Self {
        Self { caller, method, allow_unauthenticated_verifiers, sent: None }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        let mut waiting_since = Instant::now();
        loop {
            let (decision, message) = self.decide(waiting_since);
            match decision {
                Decision::Refuse(reason) => return Err(self.caller.refuse(reason)),
                Decision::WaitUpTo(limit) => {
                    // Late or changed: the next decision tells which. Apart, for few streams ever wait so, and each would
                    // keep the room for it.
                    let changed = Box::pin(timeout_at(waiting_since + limit, self.caller.changed()));
                    if let Ok(changed) = changed.await {
                        changed?;
                    }
                }
                Decision::Send if self.sent.as_ref() == Some(&message) => {
                    self.caller.changed().await?;
                    waiting_since = Instant::now();
                }
                Decision::Send => {
                    if self.caller.is_still_entitled().await? {
                        self.caller.note_wait();
                        self.sent = Some(message.clone());
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Decision and message are made from one and the same view.
    fn decide(&mut self, waiting_since: Instant) -> (Decision, Bytes) {
        let (is_synced, method, is_first) = (self.caller.is_synced(), self.method, self.sent.is_none());
        let view = self.caller.view();
        let waited = waiting_since.elapsed();
        let decision =
            decide(&view, method, is_synced, is_first, waited, self.allow_unauthenticated_verifiers);
        let message = match (decision, method) {
            (Decision::Send, Method::X509Svids) => view.content.x509_svids(),
            (Decision::Send, Method::X509Bundles) => view.content.x509_bundles(),
            (Decision::Send, Method::JwtBundles) => view.content.jwt_bundles(),
            (Decision::Send, Method::WitBundles) => view.content.wit_bundles(),
            _ => Bytes::new(),
        };
        (decision, message)
    }
}

impl Messages for Session {
    /// The next message, when there is one that differs from the last.
    ///
    /// # Errors
    /// The status that ends the stream.
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
