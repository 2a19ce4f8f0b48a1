//! Attests until the server has said yes or no: waits for one that is away, asks again one that is not ready, and gives up
//! on one that answers wrongly for too long. Without a stored bundle each try begins with fetching one.
//! Start at [`attest`].

use std::time::Duration;

use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_spiffe_core::{ErrorChain, Reason};
use spindle_transport::{ExpectedServer, TlsDialer, Trust};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tracing::warn;

use super::Parts;
use super::enroll::{self, Enrolled};
use super::proof::ProofSource;
use super::state::State;
use crate::bootstrap::{self, Attempt, BootstrapError};
use crate::call_error::CallError;
use crate::error::AgentError;

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
    /// Whether trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Bundle(error) => !error.may_pass(),
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

    fn reason_code(&self) -> String {
        match self {
            Self::Bundle(_) => Reason::TrustBundleUnusable.code().into(),
            Self::Call(error) => error.reason_code(),
        }
    }

    fn into_error(self, target: String) -> AgentError {
        let (is_final, code) = (self.is_final(), self.reason_code());
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

/// Attests, again and again while the server cannot be reached or is not ready.
pub(super) async fn attest(
    parts: &Parts,
    state: &State,
    source: ProofSource<'_>,
) -> Result<Enrolled, AgentError> {
    let (mut backoff, mut wrong_since) = (Backoff::new(ATTEST_BACKOFF), None);
    let mut attempt = Attempt { number: 1, began_at: parts.clock.now() };
    loop {
        // Boxed, for it is rare and large beside what the caller does all day.
        let failed = match Box::pin(once(parts, state, source, attempt)).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(failed) => failed,
        };
        let began = if failed.waits_for_the_server() { None } else { wrong_since.or(Some(Instant::now())) };
        wrong_since = began;
        let is_enough = wrong_since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if failed.is_final() || is_enough {
            return Err(failed.into_error(parts.link.target()));
        }
        if attempt.number.is_power_of_two() {
            warn!(server = parts.link.target(), error = %failed, reason = failed.reason_code(),
                failures = attempt.number, "attestation failed, trying again");
        }
        sleep(backoff.next_pause(Jitter::draw(parts.entropy.as_ref()))).await;
        attempt.number = attempt.number.saturating_add(1);
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
    let fetched = match &state.bundle {
        Some(_) => None,
        None => bootstrap::fetch(config, attempt).await.map_err(Failed::Bundle)?,
    };
    let is_recognised = state.bundle.is_some() || fetched.is_some();
    fetched.into_iter().for_each(|bundle| parts.trust.set(bundle));
    let trust = if is_recognised { Trust::Bundles(parts.trust.live()) } else { Trust::InsecureOnce };
    if !is_recognised && attempt.number == 1 {
        warn!("the server is believed once without a trust bundle (insecure bootstrap)");
    }
    enroll_once(parts, state, source, trust).await.map_err(Failed::Call)
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
    let dialer = TlsDialer::new(host, port, trust, expected, parts.clock.clone());
    enroll::attest(&dialer, parts, state.svid.as_ref(), source).await
}
