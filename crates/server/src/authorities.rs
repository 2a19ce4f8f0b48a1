//! Drives the A/B slots of X.509 authorities, and the server's own SVID.
//!
//! The slots decide, this shell carries out: keys from the key manager, certificates from `ca`, journal and bundle in one
//! transaction. An authority is in the bundle before it signs, and signs only once every connected agent has acknowledged
//! that bundle or the grace is over. The decision itself is in `spindle_ca::slots`.

mod journal;
mod own_svid;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prost::Message;
use rustls_pki_types::CertificateDer;
use spindle_ca::{AuthoritySlots, AuthorityStatus, CaSubject, JournalEntry, Slot, SlotStep, X509Ca, restore};
use spindle_keys::{KeyManager, KeyType};
use spindle_runtime::{Shutdown, sleep_until};
use spindle_spiffe_core::{
    Clock, Entropy, ErrorChain, Timestamp, TrustDomain, Validity, X509Authority, X509Bundles,
};
use spindle_store::Transaction;
use spindle_transport::{LiveBundles, LiveIdentity};
use tracing::{info, warn};

use own_svid::{ChainLink, OwnSvid};

use crate::bundles;
use crate::directory::{CommitError, Directory, View, journal_key};
use crate::issuer::BACKDATE_SECS;
use crate::subscriptions::Subscriptions;

/// How long a prepared authority waits for acknowledgements at most, in seconds: SPIRE's agents poll every five and
/// acknowledge nothing, so several of their rounds fit.
const PUBLISH_GRACE_SECS: i64 = 30;

/// How long a prepared authority waits at least, in seconds: agents that poll acknowledge nothing and count after one
/// round. SPIRE's poll every five seconds, up to a tenth late, and their server may answer from what it knew a second
/// before; ten lets even one failed round be made good.
const PUBLISH_WAIT_SECS: i64 = 10;

/// How often the slots are asked while they wait for acknowledgements, in seconds.
const PUBLISH_CHECK_SECS: i64 = 1;

/// The longest wait before the slots are asked again, in seconds; SPIRE checks as often.
const CHECK_SECS_MAX: i64 = 10;

/// The same by the machine's own counting, whatever the clock shows.
const REST_MAX: Duration = Duration::from_secs(CHECK_SECS_MAX.unsigned_abs());

/// So many failures to rotate in a row are nothing to call for help about; SPIRE's number.
const FAILURES_MAX: u32 = 10;

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
    /// Failures to rotate since it last worked.
    failures: AtomicU32,
}

#[derive(Default)]
struct State {
    slots: AuthoritySlots,
    /// Authorities whose keys are at hand, by id.
    loaded: HashMap<String, X509Ca>,
    /// Set while an authority is prepared.
    published: Option<Published>,
    /// Authorities in the bundle that never signed and cannot any more: their keys are gone.
    unused: Vec<String>,
    /// The server's own SVID; none when it is to be replaced at once.
    own: Option<OwnSvid>,
}

/// Since when the prepared authority can be known to others.
#[derive(Clone, Copy)]
struct Published {
    /// Store revision that first holds it in the bundle.
    revision: u64,
    /// Agents have had time since then. Counted anew after a restart and when the clock was set back.
    since: Timestamp,
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
            subscriptions,
            keys,
            clock,
            entropy,
            active: ArcSwapOption::empty(),
            state: Mutex::default(),
            identity: LiveIdentity::new(),
            bundles,
            chain: ArcSwapOption::empty(),
            failures: AtomicU32::new(0),
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
        self.failures.load(Ordering::Relaxed) <= FAILURES_MAX
    }

    /// Takes up the stored journal, or makes the first authority. Returns once there is an active one.
    pub(crate) async fn start(&self) -> Result<(), AuthoritiesError> {
        self.restore()?;
        self.advance().await?;
        Ok(())
    }

    /// Rotates authorities and the server's own SVID until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let wait_until = match self.advance().await {
                Ok(until) => {
                    self.failures.store(0, Ordering::Relaxed);
                    until
                }
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    warn!(error = %ErrorChain(&error), "cannot rotate the X.509 authority; trying again");
                    self.clock.now() + CHECK_SECS_MAX
                }
            };
            // Both arms only wait, so each is cancel-safe.
            tokio::select! {
                () = self.rest(wait_until) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// Waits until then, but never long: by a clock that was set back, then may be far away.
    async fn rest(&self, until: Timestamp) {
        // Reaching the limit is as good as reaching the time.
        let _ = tokio::time::timeout(REST_MAX, sleep_until(self.clock.as_ref(), until)).await;
    }

    /// Carries out steps until the slots wait; returns when to ask again.
    async fn advance(&self) -> Result<Timestamp, AuthoritiesError> {
        loop {
            let now = self.clock.now();
            let published = self.is_published(now);
            let (step, waiting_for_agents) = {
                let state = self.lock();
                (state.slots.step(now, published), state.slots.prepared().is_some() && !published)
            };
            match step {
                SlotStep::PrepareAndActivate(slot) => {
                    if !self.resume(now).await? {
                        self.prepare(slot).await?;
                        self.activate(slot).await?;
                    }
                }
                SlotStep::Prepare(slot) => self.prepare(slot).await?,
                SlotStep::Activate { slot, forced } => {
                    if forced {
                        warn!("an authority is activated before every agent has acknowledged it");
                    }
                    self.activate(slot).await?;
                }
                SlotStep::Wait(until) => {
                    let renew_at = self.renew_identity(now).await?;
                    self.prune_bundle(now).await?;
                    let check = if waiting_for_agents { PUBLISH_CHECK_SECS } else { CHECK_SECS_MAX };
                    return Ok(until.min(renew_at).min(now + check).max(now + 1));
                }
            }
        }
    }

    /// Whether everybody who must know the prepared authority does, or has had long enough.
    fn is_published(&self, now: Timestamp) -> bool {
        let mut state = self.lock();
        let Some(published) = &mut state.published else { return true };
        published.since = published.since.min(now);
        let waited_secs = now.secs_since(published.since);
        waited_secs >= PUBLISH_GRACE_SECS
            || waited_secs >= PUBLISH_WAIT_SECS && self.subscriptions.all_have(published.revision)
    }

    fn restore(&self) -> Result<(), AuthoritiesError> {
        let view = self.directory.view();
        let entries = match view.journal() {
            Some(journal) => journal::decode(journal).map_err(AuthoritiesError::Journal)?,
            None => Vec::new(),
        };
        let prepared: Vec<String> = entries
            .iter()
            .filter(|entry| entry.status == AuthorityStatus::Prepared)
            .map(|entry| entry.authority_id.clone())
            .collect();
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
        for ca in restored.active.iter().chain(&restored.prepared).chain(&restored.others) {
            state.loaded.insert(ca.authority_id().to_owned(), ca.clone());
        }
        state.unused = roots::unused(&restored.skipped, &prepared);
        state.slots = restored.slots;
        if state.slots.prepared().is_some() {
            state.published = Some(Published { revision: view.revision, since: self.clock.now() });
        }
        if let Some(active) = restored.active {
            if !active.validity().contains(self.clock.now()) {
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
        let unused = self.lock().unused.clone();
        let trust_domain = &self.settings.trust_domain;
        let revision = bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            roots::make_room(&mut bundle.x509_authorities, &unused, now)?;
            bundle.x509_authorities.push(authority.clone());
            Ok::<(), AuthoritiesError>(())
        })
        .await?;
        info!(local_authority_id = ca.authority_id(), slot = slot.key_id(), expires_at = %validity.not_after,
              "X509 CA prepared");
        let mut state = self.lock();
        state.slots = slots;
        state.published = Some(Published { revision, since: now });
        state.loaded.insert(ca.authority_id().to_owned(), ca);
        Ok(())
    }

    async fn activate(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let slots = {
            let mut slots = self.lock().slots.clone();
            slots.on_activated(slot)?;
            slots
        };
        self.take_over(slots).await
    }

    /// Lets an authority sign again that agents know already, if there is one: none of those in place is valid by a clock
    /// that was set. Returns whether one does.
    async fn resume(&self, now: Timestamp) -> Result<bool, AuthoritiesError> {
        let bundle = self.own_bundle();
        let slots = {
            let state = self.lock();
            let found = state.slots.resumable(now).find(|entry| {
                let known = bundle.x509_authorities.iter().any(|known| *known.der() == entry.certificate);
                known && state.loaded.contains_key(&entry.authority_id)
            });
            let Some(entry) = found else { return Ok(false) };
            let mut slots = state.slots.clone();
            slots.on_resumed(&entry.authority_id, now)?;
            slots
        };
        warn!("no X.509 authority in place is valid by this clock; one from before signs again");
        self.take_over(slots).await?;
        Ok(true)
    }

    /// Stores the slots and signs with their active authority from now on.
    async fn take_over(&self, slots: AuthoritySlots) -> Result<(), AuthoritiesError> {
        self.directory.commit(with_journal(&slots)).await?;
        let active = {
            let mut state = self.lock();
            state.slots = slots;
            if state.slots.prepared().is_none() {
                state.published = None;
            }
            let kept: Vec<String> =
                state.slots.entries().iter().map(|entry| entry.authority_id.clone()).collect();
            state.loaded.retain(|id, _| kept.contains(id));
            state.own = None;
            state.slots.active().and_then(|entry| state.loaded.get(&entry.authority_id).cloned())
        };
        if let Some(active) = active {
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "X509 CA activated");
            self.active.store(Some(Arc::new(active)));
        }
        self.renew_identity(self.clock.now()).await?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that stores the journal.
fn with_journal(slots: &AuthoritySlots) -> Transaction {
    Transaction::new().put(journal_key(), journal::encode(slots.entries()).encode_to_vec())
}

fn x509_bundles(view: &View) -> X509Bundles {
    view.bundles().map(|bundle| bundle.x509_bundle()).collect()
}
