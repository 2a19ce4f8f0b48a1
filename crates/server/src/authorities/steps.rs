//! The steps of an X.509 authority's life that make or change what signs, as the loop and operators ask for them.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use spindle_ca::{
    AuthoritySlots, CaCertificate, Family, JournalEntry, Slot, X509Ca, authority_request, restore,
};
use spindle_keys::Key;
use spindle_spiffe_core::{Timestamp, Validity, X509Authority, X509Bundle};
use tracing::info;

use super::rotation::{self, Rotating, Rotation};
use super::{Authorities, AuthoritiesError, journal, new_key, roots, with_journal};
use crate::bundles;
use crate::issuer::BACKDATE_SECS;
use crate::upstream::UpstreamAuthority;

/// A new authority and the roots that vouch for it.
struct Made {
    ca: X509Ca,
    roots: Vec<X509Authority>,
}

impl Rotating for Authorities {
    type Public = CaCertificate;
    type Authority = X509Ca;
    const NAME: &'static str = "X.509 authority";

    fn facts(ca: &X509Ca) -> (&str, Validity) {
        (ca.authority_id(), ca.validity())
    }

    fn rotation(&self) -> &Rotation<Self::Public, Self::Authority> {
        &self.rotation
    }

    fn restore(&self) -> Result<(), AuthoritiesError> {
        let (view, now) = (self.directory.view(), self.rotation.clock.now());
        let entries = match view.journal() {
            Some(journal) => journal::decode(journal).map_err(AuthoritiesError::Journal)?,
            None => Vec::new(),
        };
        let prepared = rotation::prepared_ids(&entries);
        let bundle = view.bundle(&self.settings.trust_domain);
        let roots: &[X509Authority] = bundle.map_or(&[], |bundle| &bundle.x509_authorities);
        let restored = restore(
            entries,
            &self.settings.trust_domain,
            self.keys.as_ref(),
            &|entry| roots.iter().any(|root| entry.is_below(root)),
            now,
        );
        if let Some(active) = rotation::take_up(self, restored, &prepared, view.revision, now) {
            self.active.store(Some(active));
        }
        Ok(())
    }

    async fn prepare(&self, slot: Slot) -> Result<(), AuthoritiesError> {
        let key_id = slot.key_id(Family::X509);
        let key = new_key(&self.keys, key_id, self.settings.key_type).await?;
        let made = match &self.settings.upstream {
            None => self.self_signed(key)?,
            Some(upstream) => self.signed_by(upstream.as_ref(), key).await?,
        };
        let now = self.rotation.clock.now();
        let entry = JournalEntry::prepared(slot, &made.ca, now);
        let upstream_authority_id = entry.upstream_authority_id();
        let slots = rotation::changed_slots(self, |slots| slots.on_prepared(entry))?;
        let unused = self.unused();
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
        info!(local_authority_id = ca.authority_id(), slot = key_id, self_signed = !has_upstream,
              upstream_authority_id, expires_at = %ca.validity().not_after, "X509 CA prepared");
        self.rotation.lock().on_prepared(slots, ca.authority_id(), ca.clone(), revision, now);
        Ok(())
    }

    async fn take_over(&self, slots: AuthoritySlots) -> Result<(), AuthoritiesError> {
        self.directory.commit(with_journal(&slots)).await?;
        let upstream_authority_id = slots.active().map(JournalEntry::upstream_authority_id);
        let active = self.rotation.lock().on_taken_over(slots);
        *self.own() = None;
        if let Some(active) = active {
            info!(local_authority_id = active.authority_id(), upstream_authority_id,
                  expires_at = %active.validity().not_after, "X509 CA activated");
            self.active.store(Some(Arc::new(active)));
        }
        self.renew_identity(self.rotation.clock.now()).await?;
        Ok(())
    }

    /// What is tainted does not count: an authority below it must not sign again.
    fn is_known(&self, entry: &JournalEntry) -> bool {
        let bundle = self.own_bundle();
        bundle.x509_authorities.iter().any(|root| !root.is_tainted() && entry.is_below(root))
    }

    async fn upkeep(&self, now: Timestamp) -> Result<Timestamp, AuthoritiesError> {
        let renew_at = self.renew_identity(now).await?;
        self.prune_bundle(now).await?;
        Ok(renew_at)
    }
}

impl Authorities {
    /// Roots in the bundle that never signed and never will: those of before a restart, and that of the authority which is
    /// prepared and about to be replaced.
    fn unused(&self) -> Vec<String> {
        let state = self.rotation.lock();
        let replaced = state.slots.prepared().map(|entry| entry.authority_id.clone());
        state.unused.iter().cloned().chain(replaced).collect()
    }

    fn self_signed(&self, key: Key) -> Result<Made, AuthoritiesError> {
        let now = self.rotation.clock.now();
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
        ca.check_leads_to(&roots, self.rotation.clock.now())?;
        Ok(Made { ca, roots: minted.roots })
    }
}

fn root(certificate: &CertificateDer<'static>) -> Result<X509Authority, AuthoritiesError> {
    X509Authority::parse(certificate.clone()).map_err(|error| AuthoritiesError::Journal(error.to_string()))
}
