//! The steps of an authority's life that make or change what signs: prepare, activate, resume.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use spindle_ca::{AuthoritySlots, JournalEntry, Slot, X509Ca, authority_request};
use spindle_keys::Key;
use spindle_spiffe_core::{Timestamp, Validity, X509Authority, X509Bundle};
use tracing::{info, warn};

use super::{Authorities, AuthoritiesError, Published, roots, with_journal};
use crate::bundles;
use crate::issuer::BACKDATE_SECS;
use crate::upstream::UpstreamAuthority;

/// A new authority and the roots that vouch for it.
struct Made {
    ca: X509Ca,
    roots: Vec<X509Authority>,
}

impl Authorities {
    /// Makes a key and certificate, and publishes its root: journal and bundle in one transaction.
    pub(super) async fn prepare(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let (keys, key_type) = (self.keys.clone(), self.settings.key_type);
        let key = tokio::task::spawn_blocking(move || keys.generate(slot.key_id(), key_type))
            .await
            .map_err(|_| AuthoritiesError::Store("the key manager stopped".into()))??;
        let made = match &self.settings.upstream {
            None => self.self_signed(key)?,
            Some(upstream) => self.signed_by(upstream.as_ref(), key).await?,
        };
        let now = self.clock.now();
        let entry = JournalEntry::prepared(slot, &made.ca, now);
        let upstream_authority_id = entry.upstream_authority_id();
        let (slots, unused) = {
            let state = self.lock();
            let mut slots = state.slots.clone();
            // One that is replaced before it ever signed is of no use to anybody.
            let replaced = slots.prepared().map(|entry| entry.authority_id.clone());
            slots.on_prepared(entry)?;
            (slots, state.unused.iter().cloned().chain(replaced).collect::<Vec<_>>())
        };
        let trust_domain = &self.settings.trust_domain;
        let has_upstream = self.settings.upstream.is_some();
        let revision = bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            let roots = &mut bundle.x509_authorities;
            if has_upstream {
                roots::drop_tainted_unless_named(roots, &made.roots);
            }
            roots::make_room(roots, &unused, now)?;
            roots::add(roots, &made.roots);
            Ok::<(), AuthoritiesError>(())
        })
        .await?;
        let ca = made.ca;
        info!(local_authority_id = ca.authority_id(), slot = slot.key_id(), self_signed = !has_upstream,
              upstream_authority_id, expires_at = %ca.validity().not_after, "X509 CA prepared");
        let mut state = self.lock();
        state.slots = slots;
        state.published = Some(Published { revision, since: now });
        state.loaded.insert(ca.authority_id().to_owned(), ca);
        Ok(())
    }

    fn self_signed(&self, key: Key) -> Result<Made, AuthoritiesError> {
        let now = self.clock.now();
        let validity =
            Validity { not_before: now - BACKDATE_SECS, not_after: now + self.settings.ca_ttl_secs };
        let (trust_domain, subject) = (&self.settings.trust_domain, &self.settings.subject);
        let ca = X509Ca::self_signed(trust_domain, key, subject, validity, self.entropy.serial())?;
        let roots = vec![root(ca.certificate())?];
        Ok(Made { ca, roots })
    }

    /// Has the key certified, and looks whether what it signs would lead to the roots that came with the certificate.
    async fn signed_by(&self, upstream: &dyn UpstreamAuthority, key: Key) -> Result<Made, AuthoritiesError> {
        let (trust_domain, subject) = (&self.settings.trust_domain, &self.settings.subject);
        let csr_der = authority_request(trust_domain, &key, subject, self.entropy.serial())?;
        let minted = upstream.mint(csr_der, self.settings.ca_ttl_secs).await?;
        let own = minted.chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let ca = X509Ca::from_parts(trust_domain, own, key, minted.chain)?;
        let roots = X509Bundle::new(trust_domain.clone(), minted.roots.iter().cloned())
            .map_err(|_| AuthoritiesError::TooManyRoots(minted.roots.len()))?;
        ca.check_leads_to(&roots, self.clock.now())?;
        Ok(Made { ca, roots: minted.roots })
    }

    pub(super) async fn activate(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let slots = {
            let mut slots = self.lock().slots.clone();
            slots.on_activated(slot)?;
            slots
        };
        self.take_over(slots).await
    }

    /// Lets an authority sign again that agents know already, if there is one: none of those in place is valid by a clock
    /// that was set. Returns whether one does.
    pub(super) async fn resume(&self, now: Timestamp) -> Result<bool, AuthoritiesError> {
        let bundle = self.own_bundle();
        let slots = {
            let state = self.lock();
            let found = state.slots.resumable(now).find(|entry| {
                let known =
                    bundle.x509_authorities.iter().any(|root| !root.is_tainted() && entry.is_below(root));
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
            state.slots.active().and_then(|entry| {
                let upstream_authority_id = entry.upstream_authority_id();
                Some((state.loaded.get(&entry.authority_id)?.clone(), upstream_authority_id))
            })
        };
        if let Some((active, upstream_authority_id)) = active {
            info!(local_authority_id = active.authority_id(), upstream_authority_id,
                  expires_at = %active.validity().not_after, "X509 CA activated");
            self.active.store(Some(Arc::new(active)));
        }
        self.renew_identity(self.clock.now()).await?;
        Ok(())
    }
}

fn root(certificate: &CertificateDer<'static>) -> Result<X509Authority, AuthoritiesError> {
    X509Authority::parse(certificate.clone()).map_err(|error| AuthoritiesError::Journal(error.to_string()))
}
