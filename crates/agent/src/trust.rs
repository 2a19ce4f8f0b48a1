//! The bundle of the agent's own trust domain: by it the server is recognised, and it is kept for the next start. What it
//! loses makes the SVIDs below it worthless, see [`lost_authorities`].

use spindle_spiffe_core::{Timestamp, X509Authority, X509Bundle, X509Bundles, X509Svid, verify_x509_svid};
use spindle_transport::LiveBundles;
use tokio::sync::watch;

/// The own trust domain's authorities, live for TLS and watched by whoever stores them. Clones share one value.
#[derive(Clone, Debug)]
pub(crate) struct OwnTrust {
    live: LiveBundles,
    bundle: watch::Sender<X509Bundle>,
}

impl OwnTrust {
    pub(crate) fn new(bundle: X509Bundle) -> Self {
        Self { live: LiveBundles::new(X509Bundles::from(bundle.clone())), bundle: watch::Sender::new(bundle) }
    }

    /// For TLS.
    pub(crate) fn live(&self) -> LiveBundles {
        self.live.clone()
    }

    /// The bundle of this moment.
    pub(crate) fn bundle(&self) -> X509Bundle {
        self.bundle.borrow().clone()
    }

    /// Told of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<X509Bundle> {
        self.bundle.subscribe()
    }

    /// Trusts `bundle` from now on. An empty one is not taken: with it the server could never be reached again.
    pub(crate) fn set(&self, bundle: X509Bundle) {
        if bundle.is_empty() {
            tracing::error!("the server sent an empty bundle of its own trust domain; the old one stays");
            return;
        }
        self.bundle.send_if_modified(|old| {
            let changed = *old != bundle;
            if changed {
                self.live.set(X509Bundles::from(bundle.clone()));
                *old = bundle;
            }
            changed
        });
    }
}

/// Authorities that SVIDs can no longer stand on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Newly tainted: still trusted, but what they signed has to be replaced before they are revoked.
    pub(crate) tainted: X509Bundle,
    /// Gone from the bundle: peers refuse what they signed.
    pub(crate) gone: X509Bundle,
}

/// The authorities of `old` that `new` lacks, or has as tainted for the first time.
pub(crate) fn lost_authorities(old: &X509Bundle, new: &X509Bundle) -> Lost {
    // A part of a bundle is no larger than the bundle.
    let part = |is_in: &dyn Fn(&X509Authority) -> bool| {
        let lost = old.authorities().iter().filter(|one| is_in(one)).cloned();
        X509Bundle::new(old.trust_domain().clone(), lost).unwrap_or_else(|_| old.clone())
    };
    let in_new = |one: &X509Authority| new.authorities().iter().find(|other| other.der() == one.der());
    Lost {
        tainted: part(&|one| !one.is_tainted() && in_new(one).is_some_and(X509Authority::is_tainted)),
        gone: part(&|one| in_new(one).is_none()),
    }
}

/// The key identifiers of authorities, for the log.
pub(crate) fn key_ids(authorities: &X509Bundle) -> String {
    authorities.authorities().iter().map(X509Authority::subject_key_id).collect::<Vec<_>>().join(",")
}

/// The authority of `bundle` that `svid` stands on.
pub(crate) fn authority_of(svid: &X509Svid, bundle: &X509Bundle, now: Timestamp) -> Option<X509Authority> {
    let is_below_it = |one: &&X509Authority| {
        X509Bundle::new(bundle.trust_domain().clone(), [(*one).clone()])
            .is_ok_and(|alone| is_below(svid, &alone, now))
    };
    bundle.authorities().iter().find(is_below_it).cloned()
}

/// Whether `svid` was signed by one of `authorities`, at whatever depth. By key identifiers where they settle it.
pub(crate) fn is_below(svid: &X509Svid, authorities: &X509Bundle, now: Timestamp) -> bool {
    if authorities.is_empty() {
        return false;
    }
    if let Some(key_id) = svid.authority_key_id().filter(|_| svid.intermediates().is_empty()) {
        let key_id: String = key_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let names = || authorities.authorities().iter().map(X509Authority::subject_key_id);
        if names().all(|name| !name.is_empty()) {
            return names().any(|name| name == key_id);
        }
    }
    let validity = svid.validity();
    let at = now.min(validity.not_after).max(validity.not_before);
    verify_x509_svid(svid.chain(), &X509Bundles::from(authorities.clone()), at).is_ok()
}

#[cfg(test)]
mod tests {
    use spindle_keys::{Key, KeyType};

    use super::*;
    use crate::fixtures::{Authority, NOW, trust_domain};

    fn bundle(authorities: &[X509Authority]) -> X509Bundle {
        X509Bundle::new(trust_domain(), authorities.to_vec()).unwrap()
    }

    #[test]
    fn authorities_that_left_or_are_tainted_are_lost_and_new_ones_are_not() {
        let all = [(); 4].map(|()| Authority::new(&trust_domain()).bundle.authorities()[0].clone());
        let [stays, leaves, tainted, comes] = all;
        let old = bundle(&[stays.clone(), leaves.clone(), tainted.clone()]);
        let new = bundle(&[stays, tainted.clone().with_taint(true), comes]);
        let lost = Lost { tainted: bundle(&[tainted]), gone: bundle(std::slice::from_ref(&leaves)) };
        assert_eq!(lost_authorities(&old, &new), lost);
        let nothing = Lost { tainted: bundle(&[]), gone: bundle(&[]) };
        assert_eq!(lost_authorities(&new, &new), nothing, "a taint is news once");
        let revoked = bundle(&[leaves.with_taint(true)]);
        assert_eq!(lost_authorities(&revoked, &new), Lost { gone: revoked.clone(), ..nothing });
    }

    #[test]
    fn an_svid_is_below_the_authority_that_signed_it_and_no_other() {
        let (ours, other) = (Authority::new(&trust_domain()), Authority::new(&trust_domain()));
        let key = Key::generate(KeyType::EcP256).unwrap();
        let svid = ours.sign(&trust_domain().member("/a").unwrap(), key.spki_der(), NOW, 60);
        assert!(is_below(&svid, &ours.bundle, NOW));
        assert!(!is_below(&svid, &other.bundle, NOW));
        let both = [&other, &ours].map(|one| one.bundle.authorities()[0].clone());
        assert_eq!(authority_of(&svid, &bundle(&both), NOW), Some(both[1].clone()));
        assert_eq!(authority_of(&svid, &other.bundle, NOW), None);
        assert!(!is_below(&svid, &X509Bundle::empty(trust_domain()), NOW));
    }
}
