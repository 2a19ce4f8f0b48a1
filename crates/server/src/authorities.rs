//! Drives the A/B slots of X.509 authorities, and the server's own SVID.
//!
//! The slots (`spindle_ca::slots`) decide, the loop in [`rotation`] asks them, this shell carries out ([`steps`]): keys from
//! the key manager, certificates from `ca` or from an upstream authority, journal and bundle in one transaction. What
//! operators order goes through the same loop ([`orders`]). JWT and WIT authorities, in [`token`], rotate by the
//! same loop.

mod distrust;
mod journal;
mod orders;
mod own_svid;
mod roots;
mod rotation;
mod steps;
#[cfg(test)]
mod tests;
mod token;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use prost::Message;
use spindle_ca::{AuthoritySlots, CaCertificate, CaSubject, X509Ca};
use spindle_keys::{Key, KeyManager, KeyType};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Clock, Entropy, ErrorChain, TrustDomain, X509Bundles};
use spindle_store::Transaction;
use spindle_transport::{LiveBundles, LiveIdentity};

use own_svid::{ChainLink, OwnSvid};
use rotation::Rotation;

pub(crate) use orders::{Order, OrderError, Standing};
pub(crate) use token::{
    TokenAuthorities, TokenAuthorityError, TokenAuthoritySettings, TokenAuthorityState, TokenOrder,
};

use crate::directory::{CommitError, Directory, View, journal_key};
use crate::live::LiveSettings;
use crate::metrics::Metrics;
use crate::subscriptions::Subscriptions;
use crate::upstream::UpstreamAuthority;

/// What stays the same for all authorities of a server.
pub(crate) struct AuthoritySettings {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) key_type: KeyType,
    pub(crate) ca_ttl_secs: i64,
    pub(crate) subject: CaSubject,
    /// How long the server's own SVID is good, as long as those of workloads.
    pub(crate) live: LiveSettings,
    /// Who signs the authorities; none means that each is its own root.
    pub(crate) upstream: Option<Arc<dyn UpstreamAuthority>>,
}

/// Why the server has no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// A key cannot be made or kept.
    #[error("cannot make the authority's key")]
    Key(#[from] spindle_keys::KeyError),
    /// The certificate cannot be made.
    #[error("cannot make the authority's certificate")]
    Authority(#[from] spindle_ca::AuthorityError),
    /// The upstream authority does not sign, or not well.
    #[error("cannot have the authority signed")]
    Upstream(#[from] crate::upstream::UpstreamError),
    /// An authority of tokens cannot be published.
    #[error("cannot make the authority of tokens")]
    Token(#[from] spindle_spiffe_core::bundle::BundleError),
    /// The server's own SVID cannot be signed.
    #[error("cannot sign the server's own SVID")]
    Sign(#[from] spindle_ca::SignError),
    /// The server's own SVID cannot be presented.
    #[error("cannot present the server's own SVID")]
    Identity(#[from] spindle_transport::tls::IdentityError),
    /// The journal or bundle cannot be stored.
    #[error("cannot store the authority: {0}")]
    Store(String),
    /// The stored journal is damaged.
    #[error("the stored authority journal is damaged: {0}")]
    Journal(String),
    /// A bundle with more would not be read by agents.
    #[error(
        "the bundle holds {0} authorities that have not ended, the most there may be: keep keys on disk, so that a restart \
         makes no new authority, or wait until some have ended"
    )]
    TooManyRoots(usize),
    /// The slots refuse an event; a bug.
    #[error("the authority slots refuse a step")]
    Slot(#[from] spindle_ca::SlotError),
}

impl From<CommitError> for AuthoritiesError {
    fn from(error: CommitError) -> Self {
        Self::Store(ErrorChain(&error).to_string())
    }
}

/// The X.509 authorities of this server. One task drives them, everybody reads the active one.
pub(crate) struct Authorities {
    settings: AuthoritySettings,
    directory: Directory,
    keys: Arc<dyn KeyManager>,
    entropy: Arc<dyn Entropy>,
    rotation: Rotation<CaCertificate, X509Ca>,
    active: ArcSwapOption<X509Ca>,
    identity: LiveIdentity,
    bundles: LiveBundles,
    chain: ArcSwapOption<Vec<ChainLink>>,
    /// The server's own SVID; none when it is to be replaced at once.
    own: Mutex<Option<OwnSvid>>,
}

impl Authorities {
    pub(crate) fn new(
        settings: AuthoritySettings,
        directory: Directory,
        subscriptions: Subscriptions,
        keys: Arc<dyn KeyManager>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let bundles = LiveBundles::new(X509Bundles::new());
        let live = bundles.clone();
        directory.listen(Box::new(move |view, touched| {
            if !touched.bundles.is_empty() {
                live.set(x509_bundles(view));
            }
        }));
        bundles.set(x509_bundles(&directory.view()));
        Self {
            settings,
            directory,
            keys,
            entropy,
            rotation: Rotation::new(clock, subscriptions),
            active: ArcSwapOption::empty(),
            identity: LiveIdentity::new(),
            bundles,
            chain: ArcSwapOption::empty(),
            own: Mutex::default(),
        }
    }

    /// Counts what it does.
    #[must_use]
    pub(crate) fn metered(mut self, metrics: &Metrics) -> Self {
        self.rotation.metrics = metrics.x509_authorities.clone();
        self
    }

    /// How long a new authority lives unless something above it ends before, in seconds.
    pub(crate) fn ttl_secs(&self) -> i64 {
        self.settings.ca_ttl_secs
    }

    /// The authority that signs now.
    pub(crate) fn active(&self) -> Option<Arc<X509Ca>> {
        self.active.load_full()
    }

    /// What the TLS listener presents.
    pub(crate) fn identity(&self) -> LiveIdentity {
        self.identity.clone()
    }

    /// What the TLS listener verifies clients with.
    pub(crate) fn bundles(&self) -> LiveBundles {
        self.bundles.clone()
    }

    /// Whether authorities rotate when they are due: a failure or a few are made good by the next attempt.
    pub(crate) fn rotate(&self) -> bool {
        self.rotation.works()
    }

    /// Takes up the stored journal, or makes the first authority. Returns once there is an active one.
    pub(crate) async fn start(&self) -> Result<(), AuthoritiesError> {
        rotation::start(self).await
    }

    /// Rotates authorities and the server's own SVID, and carries out orders, until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        rotation::run(self, shutdown).await;
    }

    /// The server's own SVID.
    fn own(&self) -> std::sync::MutexGuard<'_, Option<OwnSvid>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a key and keeps it under that name. Finding an RSA key takes seconds, and a key manager may wait for a disk.
async fn new_key(
    keys: &Arc<dyn KeyManager>,
    key_id: &'static str,
    key_type: KeyType,
) -> Result<Key, AuthoritiesError> {
    let keys = keys.clone();
    let made = tokio::task::spawn_blocking(move || keys.generate(key_id, key_type)).await;
    Ok(made.map_err(|_| AuthoritiesError::Store("the key manager stopped".into()))??)
}

/// A transaction that stores the journal.
fn with_journal(slots: &AuthoritySlots) -> Transaction {
    Transaction::new().put(journal_key(), journal::encode(slots.entries()).encode_to_vec())
}

fn x509_bundles(view: &View) -> X509Bundles {
    view.bundles().map(|bundle| bundle.x509_bundle()).collect()
}
