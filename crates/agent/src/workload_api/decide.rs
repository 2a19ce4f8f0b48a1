//! What a workload is answered, as a pure decision over its view: send, wait a little, or refuse with a reason.
//!
//! Start at [`decide`].

use std::time::Duration;

use spindle_spiffe_core::Reason;

use crate::cache::View;

/// Which of the streamed answers is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Identities with keys, and bundles.
    X509Svids,
    /// X.509 bundles alone.
    X509Bundles,
    /// JWT bundles.
    JwtBundles,
    /// WIT bundles.
    WitBundles,
}

impl Method {
    /// Whether the answer is bundles alone, which do not depend on any SVID.
    fn is_of_bundles(self) -> bool {
        matches!(self, Self::X509Bundles | Self::JwtBundles | Self::WitBundles)
    }
}

/// The next thing to do for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send what the view shows.
    Send,
    /// Something may come in a moment: wait for a change, up to this long since the stream began to wait.
    WaitUpTo(Duration),
    /// End the stream.
    Refuse(Reason),
}

/// How long an answer waits for the rest when it could be given now. Clients that give up after a second must have it.
pub(super) const COMPLETE_WAIT: Duration = Duration::from_millis(500);

/// How long an answer waits for the first identity that is being signed.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Decides for a caller who is attested. `waited` is how long its stream has been waiting already; `is_first` says
/// whether it has been sent nothing so far.
pub(super) fn decide(
    view: &View,
    method: Method,
    is_synced: bool,
    is_first: bool,
    waited: Duration,
    allow_unauthenticated_verifiers: bool,
) -> Decision {
    let (has_identity, has_match) = (!view.content.identities.is_empty(), !view.unready.is_empty());
    if !is_synced || view.content.own.bundle.is_empty() {
        return Decision::Refuse(Reason::AgentStarting);
    }
    if method == Method::WitBundles && view.content.own.whole.wit_authorities.is_empty() {
        // A trust domain without such keys has no WIT-SVIDs (WIT-SVID 6.2), and so the agent has not that profile.
        return Decision::Refuse(Reason::NotSupported);
    }
    if !has_identity && !has_match {
        let is_open = method.is_of_bundles() && allow_unauthenticated_verifiers;
        return if is_open { Decision::Send } else { Decision::Refuse(Reason::NoMatchingEntry) };
    }
    if method.is_of_bundles() {
        // Entitled by its entry.
        return Decision::Send;
    }
    if has_identity {
        let is_worth_it = is_first && view.is_signing() && waited < COMPLETE_WAIT;
        return if is_worth_it { Decision::WaitUpTo(COMPLETE_WAIT) } else { Decision::Send };
    }
    if view.is_signing() && waited < FIRST_WAIT {
        return Decision::WaitUpTo(FIRST_WAIT);
    }
    Decision::Refuse(Reason::SvidNotReady)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Change, Identity, Unready};
    use crate::fixtures::{Authority, entry, selectors, signing, trust_domain};

    const ALL: [Method; 3] = [Method::X509Svids, Method::X509Bundles, Method::JwtBundles];
    const OF_BUNDLES: [Method; 2] = [Method::X509Bundles, Method::JwtBundles];
    const LONG: Duration = Duration::from_secs(60);

    fn view(make: impl FnOnce(&Cache, &Authority) -> Vec<Identity>) -> View {
        let (cache, ca) = (Cache::new(trust_domain()), Authority::new(&trust_domain()));
        let put = make(&cache, &ca);
        cache.publish(Change { put, own_bundle: Some(ca.whole()), synced: true, ..Change::default() });
        cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone()
    }

    fn one(id: &str) -> spindle_spiffe_core::RegistrationEntry {
        entry(id, &["unix:uid:1"])
    }

    fn failed(id: &str) -> Identity {
        Identity { state: Err(Unready::Failed("refused".into())), ..signing(one(id)) }
    }

    #[test]
    fn before_the_first_sync_nobody_is_told_that_he_has_no_identity() {
        for method in ALL {
            let decision = decide(&view(|_, _| vec![]), method, false, true, LONG, true);
            assert_eq!(decision, Decision::Refuse(Reason::AgentStarting));
        }
    }

    #[test]
    fn wap_30_wap_36_wap_52_without_a_match_every_method_refuses() {
        for method in ALL {
            let decision = decide(&view(|_, _| vec![]), method, true, true, Duration::ZERO, false);
            assert_eq!(decision, Decision::Refuse(Reason::NoMatchingEntry));
        }
    }

    #[test]
    fn unauthenticated_verifiers_get_bundles_only_and_only_if_allowed() {
        let decide = |method| decide(&view(|_, _| vec![]), method, true, true, Duration::ZERO, true);
        assert_eq!(OF_BUNDLES.map(decide), [Decision::Send; 2]);
        assert_eq!(decide(Method::X509Svids), Decision::Refuse(Reason::NoMatchingEntry));
    }

    #[test]
    fn an_identity_is_sent_at_once() {
        let view = view(|cache, ca| vec![ca.identity(cache, one("a"))]);
        for method in ALL {
            assert_eq!(decide(&view, method, true, true, Duration::ZERO, false), Decision::Send);
        }
    }

    #[test]
    fn an_entry_being_signed_is_waited_for_but_not_for_ever() {
        let view = view(|_, _| vec![signing(one("a"))]);
        let decide = |waited| decide(&view, Method::X509Svids, true, true, waited, false);
        assert_eq!(decide(Duration::ZERO), Decision::WaitUpTo(FIRST_WAIT));
        assert_eq!(decide(FIRST_WAIT), Decision::Refuse(Reason::SvidNotReady));
    }

    #[test]
    fn an_answer_waits_for_the_rest_only_a_moment_and_only_at_first() {
        let view = view(|cache, ca| vec![ca.identity(cache, one("a")), signing(one("b"))]);
        let decide = |is_first, waited| decide(&view, Method::X509Svids, true, is_first, waited, false);
        assert_eq!(decide(true, Duration::ZERO), Decision::WaitUpTo(COMPLETE_WAIT));
        assert_eq!(decide(true, COMPLETE_WAIT), Decision::Send);
        assert_eq!(decide(false, Duration::ZERO), Decision::Send);
    }

    #[test]
    fn an_entry_that_cannot_be_signed_is_never_waited_for() {
        let both = view(|cache, ca| vec![ca.identity(cache, one("a")), failed("b")]);
        assert_eq!(decide(&both, Method::X509Svids, true, true, Duration::ZERO, false), Decision::Send);
        let alone = view(|_, _| vec![failed("b")]);
        let decision = decide(&alone, Method::X509Svids, true, true, Duration::ZERO, false);
        assert_eq!(decision, Decision::Refuse(Reason::SvidNotReady));
    }

    #[test]
    fn bundles_do_not_wait_for_an_svid() {
        let alone = view(|_, _| vec![signing(one("a"))]);
        let beside = view(|cache, ca| vec![ca.identity(cache, one("a")), signing(one("b"))]);
        for (view, method) in [&alone, &beside].into_iter().flat_map(|view| OF_BUNDLES.map(|one| (view, one)))
        {
            assert_eq!(decide(view, method, true, true, Duration::ZERO, false), Decision::Send);
        }
    }
}
