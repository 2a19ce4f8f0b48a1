//! Learns what the agent is authorised for: follows the server's push stream, or polls a server that has none.
//!
//! Holds the revision of what was applied, so that a broken stream goes on from there and older state is never taken.
//! After a stream that worked a new connection is tried within moments, each agent at its own, and then with growing
//! pauses. Start at [`Sync::run`].

mod collect;
mod follow;
mod poll;
mod revision;

use std::sync::Arc;
use std::time::Duration;

use spindle_proto::spire::api::server::agent::v1::PostStatusRequest;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Clock, Entropy, EntryId, RegistrationEntry, TrustDomain};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::call_error::CallError;
use crate::identities::Update;
use crate::in_step::InStep;
use crate::metrics::Metrics;
use crate::server::ServerLink;
use crate::trust::OwnTrust;
use poll::Polled;
use revision::Revision;

/// All agents of a server lose their streams at once. They come back spread evenly over this long, each handshake costing
/// the server a millisecond.
const RETURN_SPREAD: Duration = Duration::from_secs(2);

/// Pauses between connections that brought nothing: the first comes fast, because most breaks are short. The longest is how
/// much later than its server an agent is back after a long one; ten thousand agents then try a thousand times a second.
const BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(100),
    max: Duration::from_secs(10),
    growth_percent: 200,
    jitter_percent: 25,
};

/// What the task needs from outside.
pub(crate) struct Parts {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) link: ServerLink,
    pub(crate) trust: OwnTrust,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) in_step: InStep,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) poll_interval: Duration,
    /// Whether a server that is polled is asked for differences alone, which old ones cannot answer.
    pub(crate) poll_differences: bool,
    pub(crate) metrics: Arc<Metrics>,
}

/// The task that keeps the agent in step with its server.
pub(crate) struct Sync {
    parts: Parts,
    held: Option<Revision>,
    polled: Polled,
}

/// Why a stream or a round of polls is over.
#[derive(Debug)]
enum Ended {
    /// The agent has a new identity: go on over a new connection at once.
    Reopened,
    /// The server has no push stream.
    NotSupported,
    /// Try again after a pause.
    Broken(CallError),
    /// The agent stops.
    Stopping,
}

impl Sync {
    /// A task that holds nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, held: None, polled: Polled::default() }
    }

    /// Runs until the shutdown begins.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        // Cancel-safe as a whole: nothing is kept outside of memory.
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.keep_in_step() => {}
        }
    }

    async fn keep_in_step(&mut self) {
        let (mut backoff, mut failures, mut is_posted) = (Backoff::new(BACKOFF), 0u32, false);
        loop {
            let mut progress = false;
            // Beside the stream, so that it delays nothing.
            let link = self.parts.link.clone();
            let posting = async {
                if !is_posted {
                    is_posted = post_status(&link).await;
                }
                std::future::pending().await
            };
            // Cancel-safe: what was not posted is posted beside the next stream.
            let ended = tokio::select! {
                ended = self.follow_or_poll(&mut progress) => ended,
                never = posting => never,
            };
            self.parts.in_step.is_cut_off(self.parts.clock.now());
            if progress {
                backoff.reset();
                failures = 0;
            }
            match ended {
                Ended::Reopened => debug!("going on over a new connection"),
                Ended::Stopping => return,
                Ended::Broken(_) | Ended::NotSupported => {
                    failures = failures.saturating_add(1);
                    if let Ended::Broken(error) = &ended
                        && failures.is_power_of_two()
                    {
                        warn!(server = self.parts.link.target(), %error, reason = error.reason_code(), failures,
                            "sync with the server broke, trying again");
                    }
                    let jitter = Jitter::draw(self.parts.entropy.as_ref());
                    let pause = if progress { return_pause(jitter) } else { backoff.next_pause(jitter) };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn follow_or_poll(&mut self, progress: &mut bool) -> Ended {
        match self.follow(progress).await {
            Ended::NotSupported => {
                info!(
                    server = self.parts.link.target(),
                    interval_secs = self.parts.poll_interval.as_secs_f32(),
                    "the server has no push stream, polling it"
                );
                self.held = None;
                self.poll(progress).await
            }
            ended => ended,
        }
    }

    /// Hands an update on and waits until the cache shows it. False when the agent stops.
    async fn apply(&self, update: impl FnOnce(oneshot::Sender<()>) -> Update) -> bool {
        let (applied, shown) = oneshot::channel();
        let update = update(applied);
        if let Some(bundle) = &update.own_bundle {
            self.parts.trust.set(bundle.x509_bundle());
        }
        let is_shown = self.parts.updates.send(update).await.is_ok() && shown.await.is_ok();
        if is_shown {
            self.parts.in_step.applied(self.parts.clock.now());
        }
        is_shown
    }

    /// The entries that can be served here. Others are named, left out so that they do not hold up the rest, and added to
    /// `removed`, for what they were before must not be served either.
    fn usable(&self, entries: Vec<RegistrationEntry>, removed: &mut Vec<EntryId>) -> Vec<RegistrationEntry> {
        let mut usable = |entry: &RegistrationEntry| match entry.check(&self.parts.trust_domain) {
            Ok(()) => true,
            Err(error) => {
                warn!(entry_id = %entry.id, %error, "an entry cannot be served and is left out");
                removed.push(entry.id.clone());
                false
            }
        };
        entries.into_iter().filter(|entry| usable(entry)).collect()
    }
}

/// Before the first connection after one that worked.
fn return_pause(jitter: Jitter) -> Duration {
    let middle_ms = RETURN_SPREAD.as_millis() as u64 / 2;
    Duration::from_millis(jitter.spread(middle_ms, 100))
}

/// Tells the server our version. It is for people who list agents; failing does not matter.
async fn post_status(link: &ServerLink) -> bool {
    let request =
        PostStatusRequest { current_bundle_serial: 0, agent_version: env!("CARGO_PKG_VERSION").to_owned() };
    let posted = link.call(|channel| async move { AgentClient::new(channel).post_status(request).await });
    posted.await.inspect_err(|error| debug!(%error, "the agent's version was not posted")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_lose_their_streams_together_come_back_spread() {
        let pauses =
            [0, u64::MAX / 4, u64::MAX / 2, u64::MAX].map(|draw| return_pause(Jitter::from_number(draw)));
        assert_eq!(pauses[0], Duration::ZERO);
        assert!(pauses.is_sorted() && pauses[3] > RETURN_SPREAD * 9 / 10 && pauses[3] <= RETURN_SPREAD);
    }
}
