//! SPIRE's limits on how often one address may call: those beyond them wait their turn.
//!
//! A bucket is one point in time, so thousands of addresses cost little; how many are told apart is bounded. Callers over
//! the admin socket have no address and no limit. Start at [`RateLimits::attestation`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use spindle_transport::Peer;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::live::LiveSettings;

/// Attestations from one address per second; SPIRE's number.
const ATTESTATIONS_PER_SEC: u32 = 1;

/// SVIDs signed for one address per second; SPIRE's number.
const SIGNATURES_PER_SEC: u32 = 500;

/// Status reports from one address per second; SPIRE's number.
const STATUSES_PER_SEC: u32 = 10;

/// The longest a caller is kept waiting. A longer queue would be full of callers that have given up.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Addresses told apart: a large fleet. When so many are busy at once, the rest share one bucket.
const ADDRESSES_MAX: usize = 16_384;

/// One second's worth: a bucket holds as much as flows in within it.
const FULL: Duration = Duration::from_secs(1);

/// All limits of a server.
#[derive(Debug)]
pub(crate) struct RateLimits {
    /// Which of the first two hold at the moment.
    live: LiveSettings,
    attestation: Limit,
    signing: Limit,
    jwt_signing: Limit,
    status: Limit,
}

impl RateLimits {
    pub(crate) fn new(live: LiveSettings) -> Self {
        Self {
            live,
            attestation: Limit::per_sec(ATTESTATIONS_PER_SEC),
            signing: Limit::per_sec(SIGNATURES_PER_SEC),
            jwt_signing: Limit::per_sec(SIGNATURES_PER_SEC),
            status: Limit::per_sec(STATUSES_PER_SEC),
        }
    }

    /// Waits for the caller's turn to attest.
    pub(crate) async fn attestation(&self, caller: Option<IpAddr>) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.attestation;
        wait(holds.then_some(&self.attestation), caller, 1).await
    }

    /// Waits for the caller's turn to have `count` SVIDs signed.
    pub(crate) async fn signing(&self, caller: Option<IpAddr>, count: usize) -> Result<(), Status> {
        let holds = self.live.load().rate_limits.signing;
        wait(holds.then_some(&self.signing), caller, u32::try_from(count).unwrap_or(u32::MAX)).await
    }

    /// Waits for the caller's turn to have one JWT-SVID signed; X509-SVIDs do not count.
    pub(crate) async fn jwt_signing(&self, caller: Option<IpAddr>) -> Result<(), Status> {
        wait(self.live.load().rate_limits.signing.then_some(&self.jwt_signing), caller, 1).await
    }

    /// Waits for the caller's turn to report its status.
    pub(crate) async fn status(&self, caller: Option<IpAddr>) -> Result<(), Status> {
        wait(Some(&self.status), caller, 1).await
    }
}

/// The address that counts for a call; none when it came over the admin socket.
pub(crate) fn address_of<T>(request: &Request<T>) -> Option<IpAddr> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Tls { addr, .. }) => Some(addr.ip().to_canonical()),
        Some(Peer::Local(_)) | None => None,
    }
}

async fn wait(limit: Option<&Limit>, caller: Option<IpAddr>, cost: u32) -> Result<(), Status> {
    let (Some(limit), Some(caller)) = (limit, caller) else { return Ok(()) };
    let over = |message: &str| Err(refusal(Code::ResourceExhausted, Reason::Overloaded, message));
    match limit.reserve(caller, cost, limit.started.elapsed()) {
        Ok(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        Err(Excess::Burst) => over(&format!("rate ({cost}) exceeds burst size ({})", limit.per_sec)),
        Err(Excess::Wait) => {
            over(&format!("more than {} calls a second come from this address", limit.per_sec))
        }
    }
}

/// Why a call is not worth waiting for.
#[derive(Debug, PartialEq, Eq)]
enum Excess {
    /// It costs more than a full bucket holds.
    Burst,
    /// Too many are before it.
    Wait,
}

/// One limit, with a bucket for each address.
#[derive(Debug)]
struct Limit {
    per_sec: u32,
    started: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    /// For addresses beyond the bound.
    shared: Bucket,
}

/// When the bucket is full again, if nothing more is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket(Duration);

impl Limit {
    fn per_sec(per_sec: u32) -> Self {
        Self { per_sec, started: Instant::now(), buckets: Mutex::default() }
    }

    /// Takes `cost` out of the address's bucket and tells how long to wait until it was in there; takes nothing when that
    /// is too long. `now` counts from the limit's start.
    fn reserve(&self, caller: IpAddr, cost: u32, now: Duration) -> Result<Duration, Excess> {
        if cost > self.per_sec {
            return Err(Excess::Burst);
        }
        let takes = FULL * cost / self.per_sec;
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).of(caller, now).take(takes, now)
    }
}

impl Buckets {
    fn of(&mut self, caller: IpAddr, now: Duration) -> &mut Bucket {
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&caller) {
            // A full bucket is as good as none.
            self.by_address.retain(|_, bucket| bucket.0 > now);
            if self.by_address.len() >= ADDRESSES_MAX {
                return &mut self.shared;
            }
        }
        self.by_address.entry(caller).or_default()
    }
}

impl Bucket {
    fn take(&mut self, takes: Duration, now: Duration) -> Result<Duration, Excess> {
        let full_at = self.0.max(now) + takes;
        let pause = full_at.saturating_sub(now + FULL);
        if pause > WAIT_MAX {
            return Err(Excess::Wait);
        }
        self.0 = full_at;
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::RateLimitSettings;
    use crate::live::Reloadable;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_a_second_passes_and_the_next_wait_in_a_queue() {
        let limit = Limit::per_sec(1);
        let reserve = |at| limit.reserve(address(1), 1, secs(at));
        assert_eq!(reserve(5), Ok(secs(0)));
        assert_eq!((reserve(5), reserve(5)), (Ok(secs(1)), Ok(secs(2))));
        assert_eq!(reserve(8), Ok(secs(0)), "the queue is over");
        assert_eq!(reserve(1000), Ok(secs(0)));
        assert_eq!(reserve(1000), Ok(secs(1)), "a long rest is worth one bucket and no more");
        assert_eq!(limit.reserve(address(2), 1, secs(1000)), Ok(secs(0)), "another address has its own");
    }

    #[test]
    fn a_batch_costs_as_much_as_it_holds() {
        let limit = Limit::per_sec(500);
        let reserve = |cost| limit.reserve(address(1), cost, secs(0));
        assert_eq!(reserve(501), Err(Excess::Burst));
        assert_eq!(reserve(500), Ok(secs(0)));
        assert_eq!(reserve(250), Ok(Duration::from_millis(500)));
        assert_eq!(reserve(500), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn who_would_wait_too_long_is_refused_and_takes_nothing() {
        let limit = Limit::per_sec(1);
        let reserve = |at| limit.reserve(address(1), 1, secs(at));
        for n in 0..=30 {
            assert_eq!(reserve(0), Ok(secs(n)));
        }
        assert_eq!((reserve(0), reserve(0)), (Err(Excess::Wait), Err(Excess::Wait)));
        assert_eq!(reserve(1), Ok(secs(30)));
    }

    #[test]
    fn however_many_addresses_call_memory_is_bounded() {
        let limit = Limit::per_sec(1);
        let bound = u32::try_from(ADDRESSES_MAX).unwrap();
        for n in 0..bound {
            assert_eq!(limit.reserve(address(n), 1, secs(0)), Ok(secs(0)));
        }
        assert_eq!(limit.reserve(address(bound), 1, secs(0)), Ok(secs(0)));
        assert_eq!(limit.reserve(address(bound + 1), 1, secs(0)), Ok(secs(1)), "the rest share one");
        assert_eq!(limit.reserve(address(0), 1, secs(0)), Ok(secs(1)), "and who has one keeps it");
        assert_eq!(limit.buckets.lock().unwrap().by_address.len(), ADDRESSES_MAX);
        assert_eq!(limit.reserve(address(bound + 2), 1, secs(9)), Ok(secs(0)));
        assert_eq!(limit.buckets.lock().unwrap().by_address.len(), 1, "those that rest are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_for_its_turn_and_one_without_address_does_not() {
        let live = LiveSettings::new(Reloadable::default());
        let limits = RateLimits::new(live.clone());
        let start = Instant::now();
        for _ in 0..3 {
            limits.attestation(Some(address(1))).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2);
        for _ in 0..100 {
            limits.attestation(None).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2);
        let off = RateLimitSettings { attestation: false, signing: false };
        live.replace(Reloadable { rate_limits: off, ..Reloadable::default() });
        for _ in 0..100 {
            limits.attestation(Some(address(1))).await.unwrap();
            limits.signing(Some(address(1)), 1000).await.unwrap();
            limits.jwt_signing(Some(address(1))).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_and_certificates_are_counted_apart() {
        let limits = RateLimits::new(LiveSettings::new(Reloadable::default()));
        let start = Instant::now();
        limits.signing(Some(address(1)), 500).await.unwrap();
        for _ in 0..500 {
            limits.jwt_signing(Some(address(1))).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 0);
        for _ in 0..500 {
            limits.jwt_signing(Some(address(1))).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 1);
    }
}
