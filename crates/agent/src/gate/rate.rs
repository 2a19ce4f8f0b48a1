//! SPIRE's limits of the agent (`experimental { ratelimit }`): how often callers that show the same selectors may call one
//! method. A stream counts once, when it opens. Pure: who asks tells the time.
//!
//! Callers that show no selectors count as one. Start at [`SelectorRates::take`].

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use spindle_spiffe_core::Selectors;

use crate::config::RateLimits;
use spindle_transport::{Buckets, Rate};

/// A method with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    FetchX509Svid,
    FetchJwtSvid,
    FetchX509Bundles,
    FetchJwtBundles,
    StreamSecrets,
    /// Of one bucket with `StreamSecrets`: it does the same in another form, which SPIRE has not.
    DeltaSecrets,
    FetchSecrets,
}

impl Limited {
    /// The full name of the method.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::FetchX509Svid => "/SpiffeWorkloadAPI/FetchX509SVID",
            Self::FetchJwtSvid => "/SpiffeWorkloadAPI/FetchJWTSVID",
            Self::FetchX509Bundles => "/SpiffeWorkloadAPI/FetchX509Bundles",
            Self::FetchJwtBundles => "/SpiffeWorkloadAPI/FetchJWTBundles",
            Self::StreamSecrets => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            Self::DeltaSecrets => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            Self::FetchSecrets => "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
        }
    }
}

/// A set of selectors, in a size that does not depend on them.
type Fingerprint = [u8; SHA256_OUTPUT_LEN];

/// The limits of one agent; none for a method that has no limit.
pub(super) struct SelectorRates {
    fetch_x509_svid: Option<Buckets<Fingerprint>>,
    fetch_jwt_svid: Option<Buckets<Fingerprint>>,
    fetch_x509_bundles: Option<Buckets<Fingerprint>>,
    fetch_jwt_bundles: Option<Buckets<Fingerprint>>,
    stream_secrets: Option<Buckets<Fingerprint>>,
    fetch_secrets: Option<Buckets<Fingerprint>>,
}

impl SelectorRates {
    /// As many calls at once as there are in a second, as SPIRE has it.
    pub(super) fn new(limits: &RateLimits) -> Self {
        let buckets = |limit| (limit > 0).then(|| Buckets::of(Rate { burst: limit, per_sec: limit }));
        Self {
            fetch_x509_svid: buckets(limits.fetch_x509_svid),
            fetch_jwt_svid: buckets(limits.fetch_jwt_svid),
            fetch_x509_bundles: buckets(limits.fetch_x509_bundles),
            fetch_jwt_bundles: buckets(limits.fetch_jwt_bundles),
            stream_secrets: buckets(limits.stream_secrets),
            fetch_secrets: buckets(limits.fetch_secrets),
        }
    }

    /// Counts a call at `now`, which counts from the same moment at each call.
    ///
    /// # Errors
    /// When there were too many: how long it takes until one more is answered.
    pub(super) fn take(&self, method: Limited, shown: &Selectors, now: Duration) -> Result<(), Duration> {
        match self.buckets(method) {
            Some(buckets) => buckets.take(fingerprint(shown), now),
            None => Ok(()),
        }
    }

    fn buckets(&self, method: Limited) -> Option<&Buckets<Fingerprint>> {
        match method {
            Limited::FetchX509Svid => self.fetch_x509_svid.as_ref(),
            Limited::FetchJwtSvid => self.fetch_jwt_svid.as_ref(),
            Limited::FetchX509Bundles => self.fetch_x509_bundles.as_ref(),
            Limited::FetchJwtBundles => self.fetch_jwt_bundles.as_ref(),
            Limited::StreamSecrets | Limited::DeltaSecrets => self.stream_secrets.as_ref(),
            Limited::FetchSecrets => self.fetch_secrets.as_ref(),
        }
    }
}

/// The selectors are in order already. With their lengths, so that no two sets read the same.
fn fingerprint(selectors: &Selectors) -> Fingerprint {
    let mut digest = Context::new(&SHA256);
    for selector in selectors.iter() {
        let text = selector.to_string();
        digest.update(&text.len().to_be_bytes());
        digest.update(text.as_bytes());
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest.finish().as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::selectors;

    const ALL: [Limited; 7] = [
        Limited::FetchX509Svid,
        Limited::FetchJwtSvid,
        Limited::FetchX509Bundles,
        Limited::FetchJwtBundles,
        Limited::StreamSecrets,
        Limited::DeltaSecrets,
        Limited::FetchSecrets,
    ];

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How many calls in a row are answered at `now`.
    fn answered(rates: &SelectorRates, method: Limited, shown: &[&str], now: Duration) -> usize {
        let shown = selectors(shown);
        (0..20).take_while(|_| rates.take(method, &shown, now).is_ok()).count()
    }

    #[test]
    fn each_method_has_the_limit_of_its_key_and_the_two_forms_of_a_stream_of_secrets_share_one() {
        let limits = RateLimits {
            fetch_x509_svid: 1,
            fetch_jwt_svid: 2,
            fetch_x509_bundles: 3,
            fetch_jwt_bundles: 4,
            stream_secrets: 5,
            fetch_secrets: 6,
        };
        let rates = SelectorRates::new(&limits);
        let found = ALL.map(|method| answered(&rates, method, &["unix:uid:1"], millis(0)));
        assert_eq!(found, [1, 2, 3, 4, 5, 0, 6]);
    }

    #[test]
    fn a_method_without_a_limit_is_always_answered() {
        let rates = SelectorRates::new(&RateLimits { fetch_secrets: 1, ..RateLimits::default() });
        let found = ALL.map(|method| answered(&rates, method, &["unix:uid:1"], millis(0)));
        assert_eq!(found, [20, 20, 20, 20, 20, 20, 1]);
    }

    #[test]
    fn a_second_of_calls_may_come_at_once_and_then_what_flows_in() {
        let rates = SelectorRates::new(&RateLimits { fetch_x509_svid: 2, ..RateLimits::default() });
        let answered = |now| answered(&rates, Limited::FetchX509Svid, &["unix:uid:1"], millis(now));
        assert_eq!([answered(0), answered(499), answered(500), answered(10_000)], [2, 0, 1, 2]);
        let shown = selectors(&["unix:uid:1"]);
        assert_eq!(rates.take(Limited::FetchX509Svid, &shown, millis(10_100)), Err(millis(400)));
    }

    #[test]
    fn callers_count_together_when_they_show_the_same_selectors_or_none() {
        let rates = SelectorRates::new(&RateLimits { fetch_jwt_svid: 1, ..RateLimits::default() });
        let answered = |shown: &[&str]| answered(&rates, Limited::FetchJwtSvid, shown, millis(0));
        assert_eq!(answered(&["unix:uid:1", "unix:gid:1"]), 1);
        assert_eq!(answered(&["unix:gid:1", "unix:uid:1"]), 0, "in another order");
        assert_eq!([answered(&["unix:uid:1"]), answered(&["unix:gid:1"])], [1, 1], "a part of them");
        assert_eq!([answered(&[]), answered(&[])], [1, 0]);
    }
}
