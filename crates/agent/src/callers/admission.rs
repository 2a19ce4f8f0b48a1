//! How much one process and one user may ask for before it is known who they are: calls at a time, and attestations in a
//! stretch of time.
//!
//! An attestation costs the agent far more than the call costs its caller. So each process and each user has a bucket of
//! them, large enough for a node that starts everything at once, refilled at a rate that leaves room for others. The
//! agent's own process has no bound. Start at [`Admission::enter`] and [`Admission::attestation`].

use std::sync::Arc;

use spindle_transport::{Crowd, CrowdLimits, Crowded, LocalPeer, Pace, PaceLimits, Place, TooOften};

use crate::config::CallerLimits;

/// The bounds of one agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Bounds>);

struct Bounds {
    calls: Crowd,
    attestations: Pace,
}

impl Admission {
    pub(crate) fn new(limits: &CallerLimits) -> Self {
        let calls = CrowdLimits {
            total: usize::MAX,
            per_user: limits.calls_per_user,
            per_process: limits.calls_per_process,
        };
        Self(Arc::new(Bounds {
            calls: Crowd::new(calls),
            attestations: Pace::new(PaceLimits {
                per_process: limits.attestations_per_process,
                per_user: limits.attestations_per_user,
            }),
        }))
    }

    /// A place for one more call, for as long as it lasts.
    ///
    /// # Errors
    /// The bound that it would be beyond.
    pub(crate) fn enter(&self, peer: &LocalPeer) -> Result<Place, Crowded> {
        self.0.calls.enter(peer.uid, peer.pid)
    }

    /// Counts one attestation.
    ///
    /// # Errors
    /// When the bucket of the process or of its user is empty.
    pub(crate) fn attestation(&self, peer: &LocalPeer) -> Result<(), TooOften> {
        self.0.attestations.take(peer.uid, peer.pid)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spindle_transport::{Notes, Rate};

    use super::*;

    const RATE: Rate = Rate { burst: 3, per_sec: 2 };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn peer(uid: u32, pid: i32) -> LocalPeer {
        LocalPeer { pid, uid, gid: 1, pidfd: None, notes: Notes::default() }
    }

    fn limits() -> CallerLimits {
        CallerLimits {
            calls_per_process: 2,
            calls_per_user: 3,
            attestations_per_process: RATE,
            attestations_per_user: Rate { burst: 4, per_sec: 2 },
            ..CallerLimits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_attests_too_often_is_refused_and_others_of_its_user_are_not() {
        let admission = Admission::new(&limits());
        let attest = |uid, pid| admission.attestation(&peer(uid, pid)).map_err(|refused| refused.who);
        assert_eq!([attest(1, 11), attest(1, 11), attest(1, 11)], [Ok(()); 3]);
        assert_eq!(attest(1, 11), Err(Crowded::Process));
        assert_eq!(attest(1, 12), Ok(()));
        assert_eq!(attest(1, 13), Err(Crowded::User), "the user's bucket is empty");
        assert_eq!(attest(2, 21), Ok(()));
        tokio::time::advance(secs(1)).await;
        assert_eq!(attest(1, 11), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_process_may_attest_and_call_without_bound() {
        let admission = Admission::new(&limits());
        let ours = peer(1, i32::try_from(std::process::id()).unwrap());
        let places: Vec<Place> = (0..100).map(|_| admission.enter(&ours).unwrap()).collect();
        assert!((0..100).all(|_| admission.attestation(&ours).is_ok()) && places.len() == 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_and_a_user_have_so_many_calls_at_a_time() {
        let admission = Admission::new(&limits());
        let enter = |uid, pid| admission.enter(&peer(uid, pid));
        let first = [enter(1, 11).unwrap(), enter(1, 11).unwrap()];
        assert_eq!(enter(1, 11).unwrap_err(), Crowded::Process);
        let second = enter(1, 12).unwrap();
        assert_eq!(enter(1, 13).unwrap_err(), Crowded::User);
        assert!(enter(2, 21).is_ok());
        drop((first, second));
        assert!(enter(1, 11).is_ok());
    }
}
