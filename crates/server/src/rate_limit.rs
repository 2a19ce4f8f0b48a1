//! SPIRE's limits on how often one caller may call: those beyond them wait their turn.
//!
//! A caller is its SPIFFE ID, or its address while it has none, so callers behind one address do not starve each other. Of
//! those without an identity only one call of a connection waits in its address's line at a time, so that who opens a
//! hundred calls is served as often as who opens one. Callers over the admin socket have no limit. To limit one more
//! method is one line in it, as in `renew_agent`. Start at [`RateLimits::signing`].

mod buckets;
mod lanes;
mod source;

use std::time::Duration;

use spindle_proto::refusal::{come_back, refusal};
use spindle_spiffe_core::Reason;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::live::LiveSettings;
use buckets::{Buckets, Excess};
use lanes::Lanes;
use source::Key;

pub(crate) use source::{Source, source_of};

/// Attestations of one caller per second; SPIRE's number.
const ATTESTATIONS_PER_SEC: u32 = 1;

/// SVIDs signed for one caller per second; SPIRE's number.
const SIGNATURES_PER_SEC: u32 = 500;

/// Status reports of one caller per second; SPIRE's number.
const STATUSES_PER_SEC: u32 = 10;

/// Keys published for one caller per second; SPIRE's number.
const PUBLICATIONS_PER_SEC: u32 = 500;

/// The longest a caller is kept waiting. A longer queue would be full of callers that have given up.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// All limits of a server.
#[derive(Debug)]
pub(crate) struct RateLimits {
    /// Which of the limits hold at the moment; those that are not named hold always.
    live: LiveSettings,
    attestation: Limit,
    signing: Limit,
    jwt_signing: Limit,
    wit_signing: Limit,
    status: Limit,
    publishing: Limit,
}

impl RateLimits {
    pub(crate) fn new(live: LiveSettings) -> Self {
        Self {
            live,
            attestation: Limit::per_sec(ATTESTATIONS_PER_SEC),
            signing: Limit::per_sec(SIGNATURES_PER_SEC),
            jwt_signing: Limit::per_sec(SIGNATURES_PER_SEC),
            wit_signing: Limit::per_sec(SIGNATURES_PER_SEC),
            status: Limit::per_sec(STATUSES_PER_SEC),
            publishing: Limit::per_sec(PUBLICATIONS_PER_SEC),
        }
    }

    /// Waits for the caller's turn to attest.
    pub(crate) async fn attestation(&self, caller: Option<Source>) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.attestation;
        wait(holds.then_some(&self.attestation), caller, 1).await
    }

    /// Waits for the caller's turn to have `count` SVIDs signed. One bucket for all that signs with the X.509 authority.
    pub(crate) async fn signing(&self, caller: Option<Source>, count: usize) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.signing;
        wait(holds.then_some(&self.signing), caller, count).await
    }

    /// Waits for the caller's turn to have one JWT-SVID signed; X509-SVIDs do not count.
    pub(crate) async fn jwt_signing(&self, caller: Option<Source>) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.signing;
        wait(holds.then_some(&self.jwt_signing), caller, 1).await
    }

    /// Waits for the caller's turn to have `count` WIT-SVIDs signed; other SVIDs do not count.
    pub(crate) async fn wit_signing(&self, caller: Option<Source>, count: usize) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.signing;
        wait(holds.then_some(&self.wit_signing), caller, count).await
    }

    /// Waits for the caller's turn to publish a key.
    pub(crate) async fn publishing(&self, caller: Option<Source>) -> Result<(), Status> {
        wait(Some(&self.publishing), caller, 1).await
    }

    /// Waits for the caller's turn to report its status.
    pub(crate) async fn status(&self, caller: Option<Source>) -> Result<(), Status> {
        wait(Some(&self.status), caller, 1).await
    }
}

async fn wait(limit: Option<&Limit>, caller: Option<Source>, cost: usize) -> Result<(), Status> {
    match (limit, caller) {
        (Some(limit), Some(caller)) => limit.wait(&caller, cost).await,
        _ => Ok(()),
    }
}

/// One limit, with a bucket for each caller.
#[derive(Debug)]
struct Limit {
    per_sec: u32,
    started: Instant,
    buckets: Buckets,
    lanes: Lanes,
}

impl Limit {
    fn per_sec(per_sec: u32) -> Self {
        Self { per_sec, started: Instant::now(), buckets: Buckets::default(), lanes: Lanes::default() }
    }

    async fn wait(&self, caller: &Source, cost: usize) -> Result<(), Status> {
        let Some(takes) = self.takes(cost) else {
            let message = format!("rate ({cost}) exceeds burst size ({})", self.per_sec);
            return Err(refusal(Code::ResourceExhausted, Reason::Overloaded, &message));
        };
        let patience = caller.patience.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let until = Instant::now() + patience;
        // Held while this call waits, so that the next one of the same connection gets behind everybody else's.
        let _place = match caller.connection {
            Some(connection) => {
                let place = tokio::time::timeout_at(until, self.lanes.enter(connection)).await;
                Some(place.map_err(|_| self.excess(caller, cost, patience))?)
            }
            None => None,
        };
        let left = until.saturating_duration_since(Instant::now());
        let now = self.started.elapsed();
        match self.buckets.reserve(&caller.key, takes, now, left) {
            Ok(Duration::ZERO) => Ok(()),
            Ok(pause) => {
                let full_at = now + buckets::FULL + pause;
                let reserved = Reserved { limit: self, key: &caller.key, takes, full_at, used: false };
                tokio::time::sleep(pause).await;
                reserved.use_up();
                Ok(())
            }
            Err(Excess { pause }) => Err(self.excess(caller, cost, pause.saturating_sub(left))),
        }
    }

    /// How long it takes until so much has flown in; none when a full bucket holds less.
    fn takes(&self, cost: usize) -> Option<Duration> {
        let cost = u32::try_from(cost).ok().filter(|cost| *cost <= self.per_sec)?;
        Some(buckets::FULL * cost / self.per_sec)
    }

    /// SPIRE's words when it is the caller's own deadline that comes too early.
    fn excess(&self, caller: &Source, cost: usize, after: Duration) -> Status {
        let message = match caller.patience {
            Some(patience) if patience < WAIT_MAX => {
                format!("rate: Wait(n={cost}) would exceed context deadline")
            }
            _ => format!("more than {} calls a second come from this caller", self.per_sec),
        };
        come_back(&message, after)
    }
}

/// What a waiting call has taken out of its caller's bucket. It goes back when the caller goes before its turn, so that who
/// gives up and tries again does not stand behind itself.
struct Reserved<'a> {
    limit: &'a Limit,
    key: &'a Key,
    takes: Duration,
    full_at: Duration,
    used: bool,
}

impl Reserved<'_> {
    fn use_up(mut self) {
        self.used = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.used {
            let now = self.limit.started.elapsed();
            self.limit.buckets.give_back(self.key, self.takes, self.full_at, now);
        }
    }
}

#[cfg(test)]
mod tests;
