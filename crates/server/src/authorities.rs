//! Drives the A/B slots of X.509 authorities, and the server's own SVID.
//!
//! The slots decide, this shell carries out: keys from the key manager, certificates from `ca`, journal and bundle in one
//! transaction. An authority is in the bundle before it signs, and signs only once every connected agent has acknowledged
//! that bundle or the grace is over. The decision itself is in `spindle_ca::slots`.

mod journal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use prost::Message;
use rustls_pki_types::CertificateDer;
use spindle_ca::{
    AuthoritySlots, CaSubject, JournalEntry, Slot, SlotStep, SvidRequest, SvidSubject, X509Ca, restore,
};
use spindle_keys::{Key, KeyManager, KeyType};
use spindle_runtime::{Shutdown, sleep_until};
use spindle_spiffe_core::{
    Bundle, Clock, Entropy, ErrorChain, SpiffeId, Timestamp, TrustDomain, Validity, X509Authority,
    X509Bundles,
};
use spindle_store::Transaction;
use spindle_transport::{LiveBundles, LiveIdentity};
use tracing::{info, warn};

use crate::directory::{CommitError, Directory, bundle_key, encode_bundle, journal_key};
use crate::issuer::BACKDATE_SECS;
use crate::subscriptions::Subscriptions;

/// How long a prepared authority waits for acknowledgements at most, in seconds: SPIRE's agents poll every five and
/// acknowledge nothing, so several of their rounds fit.
const PUBLISH_GRACE_SECS: i64 = 30;

/// How often the slots are asked while they wait for acknowledgements, in seconds.
const PUBLISH_CHECK_SECS: i64 = 1;

/// The longest wait before the slots are asked again, in seconds; SPIRE checks as often.
const CHECK_SECS_MAX: i64 = 10;

/// How often readers of the bundle are asked to look for a new one, in seconds; SPIRE's default.
const REFRESH_HINT_SECS: u64 = 300;

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
    /// The slots refuse an event; a bug.
    #[error("the authority slots refuse a step")]
    Slot(#[from] spindle_ca::SlotError),
}

impl From<CommitError> for AuthoritiesError {
    fn from(error: CommitError) -> Self {
        Self::Store(ErrorChain(&error).to_string())
    }
}

/// One certificate of the server's own chain, for the Debug service.
#[derive(Clone, Debug)]
pub(crate) struct ChainLink {
    pub(crate) id: SpiffeId,
    pub(crate) expires_at: Timestamp,
    pub(crate) subject: String,
}

/// The authorities of this server. One task drives them, everybody reads the active one.
pub(crate) struct Authorities {
    settings: AuthoritySettings,
    directory: Directory,
    subscriptions: Subscriptions,
    keys: Arc<dyn KeyManager>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    active: ArcSwapOption<X509Ca>,
    state: Mutex<State>,
    identity: LiveIdentity,
    bundles: LiveBundles,
    chain: ArcSwapOption<Vec<ChainLink>>,
}

#[derive(Default)]
struct State {
    slots: AuthoritySlots,
    /// Authorities whose keys are at hand, by id.
    loaded: HashMap<String, X509Ca>,
    /// Store revision that first holds the prepared authority in the bundle, and when that was.
    published: Option<(u64, Timestamp)>,
    /// When the server's own SVID is to be replaced.
    renew_identity_at: Option<Timestamp>,
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
        Self {
            settings,
            directory,
            subscriptions,
            keys,
            clock,
            entropy,
            active: ArcSwapOption::empty(),
            state: Mutex::default(),
            identity: LiveIdentity::new(),
            bundles: LiveBundles::new(X509Bundles::new()),
            chain: ArcSwapOption::empty(),
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

    /// The chain of the server's own SVID.
    pub(crate) fn server_svid(&self) -> Vec<ChainLink> {
        self.chain.load_full().map(|chain| chain.as_ref().clone()).unwrap_or_default()
    }

    /// Takes up the stored journal, or makes the first authority. Returns once there is an active one.
    pub(crate) async fn start(&self) -> Result<(), AuthoritiesError> {
        self.restore()?;
        self.refresh_bundles();
        self.advance().await?;
        Ok(())
    }

    /// Rotates authorities and the server's own SVID until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let wait_until = match self.advance().await {
                Ok(until) => until,
                Err(error) => {
                    warn!(error = %ErrorChain(&error), "cannot rotate the X.509 authority; trying again");
                    self.clock.now() + CHECK_SECS_MAX
                }
            };
            // Both arms only wait, so each is cancel-safe.
            tokio::select! {
                () = sleep_until(self.clock.as_ref(), wait_until) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// Carries out steps until the slots wait; returns when to ask again.
    async fn advance(&self) -> Result<Timestamp, AuthoritiesError> {
        loop {
            let now = self.clock.now();
            let (step, waiting_for_agents) = {
                let state = self.lock();
                let published = state.published.is_none_or(|(revision, at)| {
                    now.secs_since(at) >= PUBLISH_GRACE_SECS || self.subscriptions.all_have(revision)
                });
                (state.slots.step(now, published), state.slots.prepared().is_some() && !published)
            };
            match step {
                SlotStep::PrepareAndActivate(slot) => {
                    self.prepare(slot).await?;
                    self.activate(slot).await?;
                }
                SlotStep::Prepare(slot) => self.prepare(slot).await?,
                SlotStep::Activate { slot, forced } => {
                    if forced {
                        warn!("an authority is activated before every agent has acknowledged it");
                    }
                    self.activate(slot).await?;
                }
                SlotStep::Wait(until) => {
                    let renew_at = self.renew_identity(now)?;
                    self.prune_bundle(now).await?;
                    let check = if waiting_for_agents { PUBLISH_CHECK_SECS } else { CHECK_SECS_MAX };
                    return Ok(until.min(renew_at).min(now + check).max(now + 1));
                }
            }
        }
    }

    fn restore(&self) -> Result<(), AuthoritiesError> {
        let view = self.directory.view();
        let entries = match view.journal() {
            Some(journal) => journal::decode(journal).map_err(AuthoritiesError::Journal)?,
            None => Vec::new(),
        };
        let bundle = view.bundle(&self.settings.trust_domain);
        let trusted: Vec<CertificateDer<'static>> = bundle
            .map(|bundle| bundle.x509_authorities.iter().map(|authority| authority.der().clone()).collect())
            .unwrap_or_default();
        let restored = restore(
            entries,
            &self.settings.trust_domain,
            self.keys.as_ref(),
            &|certificate| trusted.contains(certificate),
            self.clock.now(),
        );
        for (authority_id, why) in &restored.skipped {
            warn!(local_authority_id = authority_id, reason = %why, "a stored authority cannot be used");
        }
        let mut state = self.lock();
        for ca in restored.active.iter().chain(&restored.prepared) {
            state.loaded.insert(ca.authority_id().to_owned(), ca.clone());
        }
        state.slots = restored.slots;
        if state.slots.prepared().is_some() {
            state.published = Some((view.revision, self.clock.now()));
        }
        if let Some(active) = restored.active {
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "X.509 authority taken up from the journal");
            self.active.store(Some(Arc::new(active)));
        }
        Ok(())
    }

    /// Makes a key and certificate, and publishes it: journal and bundle in one transaction.
    async fn prepare(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let (keys, key_type) = (self.keys.clone(), self.settings.key_type);
        let key = tokio::task::spawn_blocking(move || keys.generate(slot.key_id(), key_type))
            .await
            .map_err(|_| AuthoritiesError::Store("the key manager stopped".into()))??;
        let now = self.clock.now();
        let validity =
            Validity { not_before: now - BACKDATE_SECS, not_after: now + self.settings.ca_ttl_secs };
        let ca = X509Ca::self_signed(
            &self.settings.trust_domain,
            key,
            &self.settings.subject,
            validity,
            self.entropy.serial(),
        )?;
        let slots = {
            let mut slots = self.lock().slots.clone();
            slots.on_prepared(JournalEntry::prepared(slot, &ca, now))?;
            slots
        };
        let authority = X509Authority::parse(ca.certificate().clone())
            .map_err(|error| AuthoritiesError::Journal(error.to_string()))?;
        let mut bundle = self.own_bundle();
        bundle.x509_authorities.push(authority);
        bundle.sequence += 1;
        let revision = self.store(&slots, Some(&bundle)).await?;
        info!(local_authority_id = ca.authority_id(), slot = slot.key_id(), expires_at = %validity.not_after,
              "X509 CA prepared");
        let mut state = self.lock();
        state.slots = slots;
        state.published = Some((revision, now));
        state.loaded.insert(ca.authority_id().to_owned(), ca);
        drop(state);
        self.refresh_bundles();
        Ok(())
    }

    async fn activate(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let slots = {
            let mut slots = self.lock().slots.clone();
            slots.on_activated(slot)?;
            slots
        };
        self.store(&slots, None).await?;
        let mut state = self.lock();
        state.slots = slots;
        state.published = None;
        let active = state.slots.active().and_then(|entry| state.loaded.get(&entry.authority_id).cloned());
        let kept: Vec<String> =
            state.slots.entries().iter().map(|entry| entry.authority_id.clone()).collect();
        state.loaded.retain(|id, _| kept.contains(id));
        state.renew_identity_at = None;
        drop(state);
        if let Some(active) = active {
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "X509 CA activated");
            self.active.store(Some(Arc::new(active)));
        }
        self.renew_identity(self.clock.now())?;
        Ok(())
    }

    /// Makes a new SVID for the server itself when it is due; returns when the next one is.
    fn renew_identity(&self, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        if let Some(at) = self.lock().renew_identity_at
            && now < at
        {
            return Ok(at);
        }
        let Some(active) = self.active() else { return Ok(now + CHECK_SECS_MAX) };
        let key = Key::generate(self.settings.key_type)?;
        let spiffe_id = self.settings.trust_domain.server_id();
        let signed = active.sign_x509_svid(&SvidRequest {
            spiffe_id: spiffe_id.clone(),
            spki_der: key.spki_der(),
            subject: SvidSubject::default(),
            dns_names: &[],
            validity: Validity {
                not_before: now - BACKDATE_SECS,
                not_after: now + self.settings.server_svid_ttl_secs,
            },
            serial: self.entropy.serial(),
        })?;
        let link = ChainLink {
            id: spiffe_id,
            expires_at: signed.validity.not_after,
            subject: "O=SPIRE,C=US".into(),
        };
        self.chain.store(Some(Arc::new(vec![link])));
        self.identity.set(signed.chain, &key.pkcs8_der())?;
        info!(serial_num = %signed.serial, expires_at = %signed.validity.not_after, "server SVID rotated");
        let next = (now + signed.validity.not_after.secs_since(now) / 2).max(now + 1);
        self.lock().renew_identity_at = Some(next);
        Ok(next)
    }

    /// Drops authorities that ended a day ago from the bundle, but never the last one.
    async fn prune_bundle(&self, now: Timestamp) -> Result<(), AuthoritiesError> {
        let mut bundle = self.own_bundle();
        let gone: Vec<String> =
            spindle_ca::prunable(&bundle.x509_authorities, |authority| authority.validity().not_after, now)
                .into_iter()
                .map(|authority| authority.subject_key_id().to_owned())
                .collect();
        if gone.is_empty() {
            return Ok(());
        }
        bundle.x509_authorities.retain(|authority| !gone.iter().any(|id| id == authority.subject_key_id()));
        bundle.sequence += 1;
        let slots = self.lock().slots.clone();
        self.store(&slots, Some(&bundle)).await?;
        info!(authorities = gone.len(), "ended authorities left the bundle");
        self.refresh_bundles();
        Ok(())
    }

    async fn store(&self, slots: &AuthoritySlots, bundle: Option<&Bundle>) -> Result<u64, AuthoritiesError> {
        let mut transaction =
            Transaction::new().put(journal_key(), journal::encode(slots.entries()).encode_to_vec());
        if let Some(bundle) = bundle {
            transaction = transaction.put(bundle_key(&bundle.trust_domain), encode_bundle(bundle));
        }
        Ok(self.directory.commit(transaction).await?)
    }

    fn own_bundle(&self) -> Bundle {
        let view = self.directory.view();
        view.bundle(&self.settings.trust_domain).map(|bundle| Bundle::clone(bundle)).unwrap_or_else(|| {
            let mut bundle = Bundle::new(self.settings.trust_domain.clone());
            bundle.refresh_hint_secs = Some(REFRESH_HINT_SECS);
            bundle
        })
    }

    fn refresh_bundles(&self) {
        let view = self.directory.view();
        self.bundles.set(view.bundles().map(|bundle| bundle.x509_bundle()).collect());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
