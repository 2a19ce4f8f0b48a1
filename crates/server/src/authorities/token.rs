//! The JWT and WIT authorities of this server: keys that sign tokens, in A/B slots like X.509 authorities.
//!
//! The two families differ in nothing but their names and their place in the bundle ([`TokenFamily`]). The loop is
//! [`super::rotation`]'s; here stands how a key is made, published and taken up again. A key is in the bundle, with its end, before it
//! signs. What operators may do to it is in [`operations`].

mod operations;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prost::Message;
use spindle_ca::{
    AuthoritySlots, JournalEntry, Slot, TokenFamily, TokenPublicKey, TokenSigner, restore_tokens,
};
use spindle_keys::{KeyManager, KeyType};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::{Clock, Entropy, Timestamp, TrustDomain, Validity};
use spindle_store::Transaction;
use tracing::info;

use super::rotation::{self, CHECK_SECS_MAX, Rotating, Rotation};
use super::{AuthoritiesError, journal, new_key, roots};
use crate::bundles;
use crate::directory::{Directory, token_journal_key};
use crate::issuer::BACKDATE_SECS;
use crate::metrics::FamilyMetrics;
use crate::subscriptions::Subscriptions;

pub(crate) use operations::{AuthorityState as TokenAuthorityState, TokenAuthorityError, TokenOrder};

/// What stays the same for all authorities of one family of a server.
pub(crate) struct TokenAuthoritySettings {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) key_type: KeyType,
    /// How long one lives, in seconds: as long as an X.509 authority.
    pub(crate) ttl_secs: i64,
}

/// The authorities of one family of this server. One task drives them, everybody reads the active one.
pub(crate) struct TokenAuthorities<F: TokenFamily> {
    settings: TokenAuthoritySettings,
    directory: Directory,
    keys: Arc<dyn KeyManager>,
    entropy: Arc<dyn Entropy>,
    rotation: Rotation<TokenPublicKey<F>, TokenSigner<F>>,
    active: ArcSwapOption<TokenSigner<F>>,
}

impl<F: TokenFamily> TokenAuthorities<F> {
    pub(crate) fn new(
        settings: TokenAuthoritySettings,
        directory: Directory,
        subscriptions: Subscriptions,
        keys: Arc<dyn KeyManager>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let rotation = Rotation::new(clock, subscriptions);
        Self { settings, directory, keys, entropy, rotation, active: ArcSwapOption::empty() }
    }

    /// Counts what it does.
    #[must_use]
    pub(crate) fn metered(mut self, metrics: FamilyMetrics) -> Self {
        self.rotation.metrics = metrics;
        self
    }

    /// The authority that signs now.
    pub(crate) fn active(&self) -> Option<Arc<TokenSigner<F>>> {
        self.active.load_full()
    }

    /// Whether authorities rotate when they are due.
    pub(crate) fn rotate(&self) -> bool {
        self.rotation.works()
    }

    /// Takes up the stored journal, or makes the first authority. Returns once there is an active one.
    pub(crate) async fn start(&self) -> Result<(), AuthoritiesError> {
        rotation::start(self).await
    }

    /// Rotates authorities until the shutdown begins.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        rotation::run(self, shutdown).await;
    }
}

impl<F: TokenFamily> Rotating for TokenAuthorities<F> {
    type Public = TokenPublicKey<F>;
    type Authority = TokenSigner<F>;
    const NAME: &'static str = F::AUTHORITY;

    fn facts(signer: &TokenSigner<F>) -> (&str, Validity) {
        (signer.authority_id(), signer.validity())
    }

    fn rotation(&self) -> &Rotation<Self::Public, Self::Authority> {
        &self.rotation
    }

    fn restore(&self) -> Result<(), AuthoritiesError> {
        let (view, now) = (self.directory.view(), self.rotation.clock.now());
        let entries = match view.token_journal(F::FAMILY) {
            Some(journal) => journal::decode(journal).map_err(AuthoritiesError::Journal)?,
            None => Vec::new(),
        };
        let prepared = rotation::prepared_ids(&entries);
        let bundle = bundles::own(&view, &self.settings.trust_domain);
        let trust_domain = &self.settings.trust_domain;
        let restored = restore_tokens::<F>(entries, trust_domain, self.keys.as_ref(), &bundle, now);
        if let Some(active) = rotation::take_up(self, restored, &prepared, view.revision, now) {
            self.active.store(Some(active));
        }
        Ok(())
    }

    async fn prepare(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let key_id = slot.key_id(F::FAMILY);
        let key = new_key(&self.keys, key_id, self.settings.key_type).await?;
        let now = self.rotation.clock.now();
        let validity = Validity { not_before: now - BACKDATE_SECS, not_after: now + self.settings.ttl_secs };
        let trust_domain = &self.settings.trust_domain;
        let signer = TokenSigner::<F>::new(trust_domain, key, &self.entropy.key_id(), validity)?;
        let slots = rotation::changed_slots(self, |slots| {
            slots.on_prepared(JournalEntry::prepared_token(slot, &signer, now))
        })?;
        let unused = self.unused(slot);
        let revision = bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            roots::make_room(F::authorities_mut(bundle), &unused, now)?;
            // By chance this happens never, and then it does no harm (WIT-SVID 6.1).
            let kid = signer.authority_id();
            if bundle.jwt_authority(kid).is_some() || bundle.wit_authority(kid).is_some() {
                return Err(BundleError::RepeatedKeyId(kid.to_owned()).into());
            }
            F::authorities_mut(bundle).push(signer.authority().clone());
            Ok::<(), AuthoritiesError>(())
        })
        .await?;
        info!(local_authority_id = signer.authority_id(), slot = key_id, expires_at = %validity.not_after,
              "{} key prepared", F::NAME);
        self.rotation.lock().on_prepared(slots, signer.authority_id(), signer.clone(), revision, now);
        Ok(())
    }

    async fn take_over(&self, slots: AuthoritySlots<TokenPublicKey<F>>) -> Result<(), AuthoritiesError> {
        self.directory.commit(with_journal(&slots)).await?;
        let active = self.rotation.lock().on_taken_over(slots);
        if let Some(active) = active {
            info!(local_authority_id = active.authority_id(), expires_at = %active.validity().not_after,
                  "{} key activated", F::NAME);
            self.active.store(Some(Arc::new(active)));
        }
        Ok(())
    }

    fn is_known(&self, entry: &JournalEntry<TokenPublicKey<F>>) -> bool {
        entry.is_in(&bundles::own(&self.directory.view(), &self.settings.trust_domain))
    }

    /// The bundle is pruned by the X.509 authorities, for all families.
    async fn upkeep(&self, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        Ok(now + CHECK_SECS_MAX)
    }
}

impl<F: TokenFamily> TokenAuthorities<F> {
    /// Authorities in the bundle that never signed and never will: those of before a restart, and one that was prepared in
    /// `slot`, whose key was replaced a moment ago.
    fn unused(&self, slot: Slot) -> Vec<String> {
        let state = self.rotation.lock();
        let replaced = state.slots.prepared().filter(|entry| entry.slot == slot);
        state.unused.iter().cloned().chain(replaced.map(|entry| entry.authority_id.clone())).collect()
    }
}

/// A transaction that stores the journal.
fn with_journal<F: TokenFamily>(slots: &AuthoritySlots<TokenPublicKey<F>>) -> Transaction {
    Transaction::new().put(token_journal_key(F::FAMILY), journal::encode(slots.entries()).encode_to_vec())
}
