//! Attests until the server has said yes or no: waits for one that is away, asks again one that is not ready, and gives up
//! on one that answers wrongly for too long. Without a stored bundle each try begins with fetching one, and so does each try
//! of an agent that bootstraps again: the stored one stays until the server has given another. Start at [`attest`].

use std::time::Duration;

use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_spiffe_core::{ErrorChain, Reason, X509Bundle};
use spindle_transport::{ExpectedServer, TlsDialer, Trust};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tracing::warn;

use super::Parts;
use super::enroll::{self, Enrolled};
use super::keeper::Keeper;
use super::proof::ProofSource;
use super::rebootstrap::{Patience, Verdict};
use super::state::State;
use crate::bootstrap::{self, Attempt, BootstrapError};
use crate::call_error::{CallError, drawn_out};
use crate::error::AgentError;
use crate::metrics::code_of_call;

/// How long a server may answer wrongly, as an untrusted one does, or the bundle be missing, before an attestation gives
/// up: SPIRE's bound. A server that cannot be reached is waited for without end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses between attestations.
const ATTEST_BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(250),
    max: Duration::from_secs(30),
    growth_percent: 200,
    jitter_percent: 25,
};

/// Why one try brought nothing.
enum Failed {
    Bundle(BootstrapError),
    Call(CallError),
}

impl Failed {
    /// Whether trying again cannot help. Who bootstraps again goes on until somebody has put the bundle right.
    fn is_final(&self, is_again: bool) -> bool {
        match self {
            Self::Bundle(error) => !is_again && !error.may_pass(),
            Self::Call(error) => matches!(
                error.code(),
                Some(
                    Code::PermissionDenied
                        | Code::InvalidArgument
                        | Code::FailedPrecondition
                        | Code::Unimplemented
                )
            ),
        }
    }

    fn waits_for_the_server(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_unreachable())
    }

    /// How long the server asks to wait.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Bundle(_) => None,
            Self::Call(error) => error.retry_after(),
        }
    }

    fn is_untrusted_server(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_untrusted_server())
    }

    fn reason_code(&self) -> String {
        match self {
            Self::Bundle(_) => Reason::TrustBundleUnusable.code().into(),
            Self::Call(error) => error.reason_code(),
        }
    }

    fn into_error(self, target: String) -> AgentError {
        let (is_final, code) = (self.is_final(false), self.reason_code());
        match self {
            Self::Bundle(error) => error.into(),
            Self::Call(error) if is_final => {
                AgentError::AttestationRefused { target, why: error.to_string(), code }
            }
            Self::Call(error) => AgentError::AttestationFailed { target, why: error.to_string(), code },
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bundle(error) => ErrorChain(error).fmt(f),
            Self::Call(error) => error.fmt(f),
        }
    }
}

/// Who attests, and what is kept of it.
pub(super) struct Attesting<'a> {
    pub(super) parts: &'a Parts,
    pub(super) keeper: &'a mut Keeper,
    pub(super) state: &'a mut State,
    pub(super) patience: Patience,
    /// Whether a bundle is fetched although one is stored.
    pub(super) is_again: bool,
}

/// Attests, again and again while the server cannot be reached or is not ready.
pub(super) async fn attest(mut who: Attesting<'_>, source: ProofSource<'_>) -> Result<Enrolled, AgentError> {
    let parts = who.parts;
    let (mut backoff, mut wrong_since) = (Backoff::new(ATTEST_BACKOFF), None);
    let began_at = parts.clock.now();
    let mut number = 1u32;
    loop {
        let is_again = who.is_again;
        let began_at = who.state.untrusted_since.filter(|_| is_again).unwrap_or(began_at);
        let attempt = Attempt { number, began_at, is_again };
        parts.metrics.bootstrapping(attempt);
        // Boxed, for it is rare and large beside what the caller does all day.
        let failed = match Box::pin(once(parts, who.state, source, attempt)).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(failed) => failed,
        };
        let began = if failed.waits_for_the_server() { None } else { wrong_since.or(Some(Instant::now())) };
        wrong_since = began;
        let patience = who.patience.attest_max(PATIENCE);
        let is_enough = wrong_since.is_some_and(|since| since.elapsed() >= patience);
        if failed.is_final(is_again) || is_enough {
            return Err(failed.into_error(parts.link.target()));
        }
        if number.is_power_of_two() {
            warn!(server = parts.link.target(), error = %failed, reason = failed.reason_code(),
                failures = number, "attestation failed, trying again");
        }
        if failed.is_untrusted_server() {
            who.on_untrusted().await;
        }
        let jitter = || Jitter::draw(parts.entropy.as_ref());
        let own = backoff.next_pause(jitter());
        sleep(failed.retry_after().map_or(own, |asked| drawn_out(asked, jitter()))).await;
        number = number.saturating_add(1);
    }
}

impl Attesting<'_> {
    /// By the stored bundle the server is not trusted: after a while another one is fetched for each try.
    async fn on_untrusted(&mut self) {
        if self.state.bundle.is_none() || self.is_again {
            return;
        }
        let now = self.parts.clock.now();
        match self.patience.on_untrusted(&mut self.state.untrusted_since, now) {
            Verdict::Never | Verdict::Wait => {}
            Verdict::First => self.keeper.keep(self.state).await,
            Verdict::Over => {
                warn!(
                    server = self.parts.link.target(),
                    "the server is not trusted by the stored bundle, bootstrapping again"
                );
                self.is_again = true;
            }
        }
    }
}

async fn once(
    parts: &Parts,
    state: &State,
    source: ProofSource<'_>,
    attempt: Attempt,
) -> Result<Enrolled, Failed> {
    let config = &parts.config;
    // A stored bundle is live already.
    let is_stored = state.bundle.is_some() && !attempt.is_again;
    let fetched = match is_stored {
        true => None,
        false => bootstrap::fetch(config, attempt).await.map_err(Failed::Bundle)?,
    };
    let is_recognised = is_stored || fetched.is_some();
    if let Some(fetched) = fetched {
        parts.trust.set(beside_stored(fetched, state.bundle.as_ref()));
    }
    let trust = if is_recognised { Trust::Bundles(parts.trust.live()) } else { Trust::InsecureOnce };
    if !is_recognised && attempt.number == 1 {
        warn!("the server is believed once without a trust bundle (insecure bootstrap)");
    }
    enroll_once(parts, state, source, trust).await.map_err(Failed::Call)
}

/// The source may be older than what is stored: the server may come back that was trusted all the time.
fn beside_stored(fetched: X509Bundle, stored: Option<&X509Bundle>) -> X509Bundle {
    let Some(stored) = stored else { return fetched };
    let both = fetched.authorities().iter().chain(stored.authorities()).cloned();
    X509Bundle::new(fetched.trust_domain().clone(), both).unwrap_or(fetched)
}

/// Attests once more, to a server that is recognised by the bundle of the moment: how an agent renews that may.
pub(super) async fn again(
    parts: &Parts,
    state: &State,
    source: ProofSource<'_>,
) -> Result<Enrolled, CallError> {
    enroll_once(parts, state, source, Trust::Bundles(parts.trust.live())).await
}

async fn enroll_once(
    parts: &Parts,
    state: &State,
    source: ProofSource<'_>,
    trust: Trust,
) -> Result<Enrolled, CallError> {
    let config = &parts.config;
    let expected = ExpectedServer::Id(config.trust_domain.server_id());
    let (host, port) = (&config.server_address, config.server_port);
    let dialer = TlsDialer::new(host, port, trust, expected, parts.clock.clone())
        .with_key_exchange(config.key_exchange());
    let attested = Box::pin(enroll::attest(&dialer, parts, state.svid.as_ref(), source));
    parts.metrics.node_attestation(source.name()).time(attested, code_of_call).await
}
