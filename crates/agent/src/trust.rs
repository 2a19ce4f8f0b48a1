//! The bundle of the agent's own trust domain: by it the server is recognised, and it is kept for the next start.

use spindle_spiffe_core::{X509Bundle, X509Bundles};
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
