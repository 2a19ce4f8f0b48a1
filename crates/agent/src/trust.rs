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

/// The authorities of `old` that SVIDs can no longer stand on: those that `new` lacks, or has as tainted.
pub(crate) fn lost_authorities(old: &X509Bundle, new: &X509Bundle) -> X509Bundle {
    let is_good = |one: &&X509Authority| !one.is_tainted();
    let stays =
        |one: &X509Authority| new.authorities().iter().filter(is_good).any(|other| other.der() == one.der());
    let lost = old.authorities().iter().filter(is_good).filter(|one| !stays(one)).cloned();
    // A part of a bundle is no larger than the bundle.
    X509Bundle::new(old.trust_domain().clone(), lost).unwrap_or_else(|_| old.clone())
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
        assert_eq!(lost_authorities(&old, &new), bundle(&[leaves.clone(), tainted]));
        assert!(lost_authorities(&new, &new).is_empty());
        // What was tainted before is no news when it leaves.
        assert!(lost_authorities(&bundle(&[leaves.with_taint(true)]), &new).is_empty());
    }

    #[test]
    fn an_svid_is_below_the_authority_that_signed_it_and_no_other() {
        let (ours, other) = (Authority::new(&trust_domain()), Authority::new(&trust_domain()));
        let key = Key::generate(KeyType::EcP256).unwrap();
        let svid = ours.sign(&trust_domain().member("/a").unwrap(), key.spki_der(), NOW, 60);
        assert!(is_below(&svid, &ours.bundle, NOW));
        assert!(!is_below(&svid, &other.bundle, NOW));
        assert!(!is_below(&svid, &X509Bundle::empty(trust_domain()), NOW));
    }
}
