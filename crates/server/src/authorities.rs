//! Drives the A/B slots of X.509 authorities, and the server's own SVID.
//!
//! The slots (`spindle_ca::slots`) decide, the loop in [`rotation`] asks them, this shell carries out: keys from the key
//! manager, certificates from `ca`, journal and bundle in one transaction. JWT authorities, in [`jwt`], rotate by the same loop.

mod journal;
mod jwt;
mod own_svid;
mod roots;
mod rotation;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use prost::Message;
use rustls_pki_types::CertificateDer;
use spindle_ca::{AuthoritySlots, CaCertificate, CaSubject, Family, JournalEntry, Slot, X509Ca, restore};
use spindle_keys::{Key, KeyManager, KeyType};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{
    Clock, Entropy, ErrorChain, Timestamp, TrustDomain, Validity, X509Authority, X509Bundles,
};
use spindle_store::Transaction;
use spindle_transport::{LiveBundles, LiveIdentity};
use tracing::{info, warn};

use own_svid::{ChainLink, OwnSvid};
use rotation::{CHECK_SECS_MAX, Rotating, Rotation};

pub(crate) use jwt::{JwtAuthorities, JwtAuthoritySettings};

use crate::bundles;
use crate::directory::{CommitError, Directory, View, journal_key};
use crate::issuer::BACKDATE_SECS;
use crate::subscriptions::Subscriptions;

/// What stays the same for all authorities of a server.
pub(crate) struct AuthoritySettings {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) key_type: KeyType,
    pub(crate) ca_ttl_secs: i64,
    pub(crate) subject: CaSubject,
    pub(crate) server_svid_ttl_secs: i64,
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
    /// The JWT authority cannot be published.
    #[error("cannot make the JWT authority")]
    Jwt(#[from] spindle_spiffe_core::bundle::BundleError),
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
        self.restore()?;
        self.advance().await?;
        Ok(())
    }

    /// Rotates authorities and the server's own SVID until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        rotation::run(self, shutdown).await;
    }

    /// Carries out what is due; returns when to ask again.
    async fn advance(&self) -> Result<Timestamp, AuthoritiesError> {
        rotation::advance(self).await
    }

    fn restore(&self) -> Result<(), AuthoritiesError> {
        let (view, now) = (self.directory.view(), self.rotation.clock.now());
        let entries = match view.journal() {
            Some(journal) => journal::decode(journal).map_err(AuthoritiesError::Journal)?,
            None => Vec::new(),
        };
        let prepared = rotation::prepared_ids(&entries);
        let bundle = view.bundle(&self.settings.trust_domain);
        let trusted: Vec<CertificateDer<'static>> = bundle
            .map(|bundle| bundle.x509_authorities.iter().map(|authority| authority.der().clone()).collect())
            .unwrap_or_default();
        let restored = restore(
            entries,
            &self.settings.trust_domain,
            self.keys.as_ref(),
            &|certificate| trusted.contains(certificate),
            now,
        );
        let active =
            self.rotation.lock().on_restored(restored, &prepared, X509Ca::authority_id, view.revision, now);
        if let Some(active) = active {
            if !active.validity().contains(now) {
                warn!(local_authority_id = active.authority_id(), not_before = %active.validity().not_before,
                      "the X.509 authority is not valid yet: check this machine's clock");
                return Ok(());
            }
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "X.509 authority taken up from the journal");
            self.active.store(Some(Arc::new(active)));
        }
        Ok(())
    }

    /// The server's own SVID.
    fn own(&self) -> std::sync::MutexGuard<'_, Option<OwnSvid>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rotating for Authorities {
    type Public = CaCertificate;
    type Authority = X509Ca;
    const NAME: &'static str = "X.509 authority";

    fn rotation(&self) -> &Rotation<Self::Public, Self::Authority> {
        &self.rotation
    }

    async fn prepare(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let key_id = slot.key_id(Family::X509);
        let key = new_key(&self.keys, key_id, self.settings.key_type).await?;
        let now = self.rotation.clock.now();
        let validity =
            Validity { not_before: now - BACKDATE_SECS, not_after: now + self.settings.ca_ttl_secs };
        let ca = X509Ca::self_signed(
            &self.settings.trust_domain,
            key,
            &self.settings.subject,
            validity,
            self.entropy.serial(),
        )?;
        let slots =
            rotation::changed_slots(self, |slots| slots.on_prepared(JournalEntry::prepared(slot, &ca, now)))?;
        let authority = X509Authority::parse(ca.certificate().clone())
            .map_err(|error| AuthoritiesError::Journal(error.to_string()))?;
        let unused = self.rotation.lock().unused.clone();
        let trust_domain = &self.settings.trust_domain;
        let revision = bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            roots::make_room(&mut bundle.x509_authorities, &unused, now)?;
            bundle.x509_authorities.push(authority.clone());
            Ok::<(), AuthoritiesError>(())
        })
        .await?;
        info!(local_authority_id = ca.authority_id(), slot = key_id, expires_at = %validity.not_after,
              "X509 CA prepared");
        self.rotation.lock().on_prepared(slots, ca.authority_id(), ca.clone(), revision, now);
        Ok(())
    }

    async fn take_over(&self, slots: AuthoritySlots) -> Result<(), AuthoritiesError> {
        self.directory.commit(with_journal(&slots)).await?;
        let active = self.rotation.lock().on_taken_over(slots);
        *self.own() = None;
        if let Some(active) = active {
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "X509 CA activated");
            self.active.store(Some(Arc::new(active)));
        }
        self.renew_identity(self.rotation.clock.now()).await?;
        Ok(())
    }

    fn is_known(&self, entry: &JournalEntry) -> bool {
        let view = self.directory.view();
        let bundle = view.bundle(&self.settings.trust_domain);
        bundle.is_some_and(|bundle| {
            bundle.x509_authorities.iter().any(|known| *known.der() == entry.public.certificate)
        })
    }

    async fn upkeep(&self, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        let renew_at = self.renew_identity(now).await?;
        self.prune_bundle(now).await?;
        Ok(renew_at)
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
