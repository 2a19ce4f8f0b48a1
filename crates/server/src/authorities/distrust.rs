//! Taint and revoke: what has to be replaced, and what is trusted no more.
//!
//! Both are one change of the bundle, with the journal in the same transaction. Agents and servers below hear of it with
//! the bundle; the server's own SVID is looked at here. Start at [`Authorities::taint`].

use spindle_ca::{AuthoritySlots, AuthorityStatus, JournalEntry};
use spindle_spiffe_core::{ErrorChain, X509Authority, X509Bundle, X509Bundles, verify_x509_svid};
use spindle_store::Transaction;
use tracing::{info, warn};

use super::orders::{OrderError, Standing, status_name};
use super::{Authorities, AuthoritiesError, with_journal};
use crate::bundles;
use crate::directory::CommitError;

/// What is done to the roots of a key identifier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Distrust {
    Taint,
    Revoke,
}

/// Why the bundle is not changed.
enum Refused {
    /// What the bundle says against it, in SPIRE's words.
    Bundle(&'static str),
    Store(CommitError),
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self::Store(error)
    }
}

impl Authorities {
    /// Marks the old authority: everything it signed is to be replaced.
    pub(super) async fn taint(&self, id: &str) -> Result<Standing, OrderError> {
        if self.settings.upstream.is_some() {
            let text = "local authority can't be tainted if there is an upstream authority";
            return Err(OrderError::HasUpstream(text));
        }
        let (slots, standing) = {
            let state = self.rotation.lock();
            let old = taintable(&state.slots, id)?;
            let standing = Standing::of(old);
            let mut slots = state.slots.clone();
            // One that is tainted or revoked already is refused by the bundle, with the reason.
            let _ = slots.taint(id);
            (slots, standing)
        };
        self.change(id, Distrust::Taint, "failed to taint X.509 authority", Some(slots)).await?;
        info!(local_authority_id = id, "X.509 authority tainted successfully");
        self.replace_own_svid_if_tainted().await;
        Ok(standing)
    }

    /// Takes the tainted old authority out of the bundle.
    pub(super) async fn revoke(&self, id: &str) -> Result<Standing, OrderError> {
        if self.settings.upstream.is_some() {
            let text = "local authority can't be revoked if there is an upstream authority";
            return Err(OrderError::HasUpstream(text));
        }
        let (slots, standing) = {
            let state = self.rotation.lock();
            let old = revocable(&state.slots, id)?;
            let standing = Standing::of(old);
            let mut slots = state.slots.clone();
            // One that is not tainted is refused by the bundle, with the reason.
            let _ = slots.revoke(id);
            (slots, standing)
        };
        self.change(id, Distrust::Revoke, "failed to revoke X.509 authority", Some(slots)).await?;
        info!(local_authority_id = id, "X.509 authority revoked successfully");
        Ok(standing)
    }

    /// Marks a root that the old authority stands under and the active one does not.
    pub(super) async fn taint_upstream(&self, key_id: &str) -> Result<Standing, OrderError> {
        let standing = self.upstream_of_old(key_id, "provided subject key id is not valid")?;
        self.change(key_id, Distrust::Taint, "failed to taint upstream authority", None).await?;
        info!(subject_key_id = key_id, "X.509 upstream authority tainted successfully");
        self.replace_own_svid_if_tainted().await;
        Ok(standing)
    }

    /// Takes such a root out of the bundle once it is tainted.
    pub(super) async fn revoke_upstream(&self, key_id: &str) -> Result<Standing, OrderError> {
        let standing = self.upstream_of_old(key_id, "invalid subject key ID")?;
        self.change(key_id, Distrust::Revoke, "failed to revoke X.509 upstream authority", None).await?;
        info!(subject_key_id = key_id, "X.509 upstream authority successfully revoked");
        Ok(standing)
    }

    /// The old authority, when `key_id` is above it and not above the active one. SPIRE knows only the certificate that
    /// signed the authority; here the root counts as well, for with intermediates only the root is in the bundle.
    fn upstream_of_old(&self, key_id: &str, what: &str) -> Result<Standing, OrderError> {
        if self.settings.upstream.is_none() {
            return Err(OrderError::NoUpstream);
        }
        let refused = |why: &str| OrderError::Subject(format!("{what}: {why}"));
        let bundle = self.own_bundle();
        let is_above = |entry: &JournalEntry| {
            let named = |root: &&X509Authority| root.subject_key_id() == key_id;
            entry.upstream_authority_id() == key_id
                || bundle.x509_authorities.iter().filter(named).any(|root| entry.is_below(root))
        };
        let state = self.rotation.lock();
        match state.slots.next() {
            _ if key_id.is_empty() => Err(refused("no subject key ID provided")),
            _ if state.slots.active().is_some_and(is_above) => {
                Err(refused("unable to use upstream authority signing current authority"))
            }
            Some(next) if is_above(next) => match next.status {
                AuthorityStatus::Old => Ok(Standing::of(next)),
                _ => Err(OrderError::State(format!(
                    "{what}: only upstream authorities signing an old authority can be used"
                ))),
            },
            _ => Err(refused("upstream authority didn't sign the old local authority")),
        }
    }

    /// Changes the roots of `key_id` in the bundle, and the slots with them.
    async fn change(
        &self,
        key_id: &str,
        how: Distrust,
        what: &'static str,
        slots: Option<AuthoritySlots>,
    ) -> Result<(), OrderError> {
        let draft = slots.as_ref().map_or_else(Transaction::new, with_journal);
        let trust_domain = &self.settings.trust_domain;
        let changed = bundles::edit_own(&self.directory, trust_domain, draft, |bundle| {
            distrust(&mut bundle.x509_authorities, key_id, how).map_err(Refused::Bundle)
        });
        match changed.await {
            Ok(_) => {}
            Err(Refused::Bundle(why)) => return Err(OrderError::Bundle { what, why }),
            Err(Refused::Store(error)) => {
                return Err(OrderError::Failed { what, source: AuthoritiesError::from(error) });
            }
        }
        if let Some(slots) = slots {
            self.rotation.lock().slots = slots;
        }
        Ok(())
    }

    /// An activation has replaced it already, as a rule.
    async fn replace_own_svid_if_tainted(&self) {
        let (Some(svid), now) = (self.identity.svid(), self.rotation.clock.now()) else { return };
        let tainted = self.own_bundle().x509_authorities.into_iter().filter(X509Authority::is_tainted);
        let Ok(tainted) = X509Bundle::new(self.settings.trust_domain.clone(), tainted) else { return };
        if tainted.is_empty() || verify_x509_svid(svid.chain(), &X509Bundles::from(tainted), now).is_err() {
            return;
        }
        warn!("Server SVID signed using a tainted authority, forcing rotation of the Server SVID");
        *self.own() = None;
        if let Err(error) = self.renew_identity(now).await {
            // The task that rotates tries again within seconds.
            warn!(error = %ErrorChain(&error), "the server's own SVID was not replaced");
        }
    }
}

/// The authority that may be tainted, if `id` is its.
fn taintable<'s>(slots: &'s AuthoritySlots, id: &str) -> Result<&'s JournalEntry, OrderError> {
    let subject = |why: &str| OrderError::Subject(why.into());
    match slots.next() {
        _ if id.is_empty() => Err(subject("no authority ID provided")),
        _ if is_active(slots, id) => Err(OrderError::State("unable to taint current local authority".into())),
        Some(next) if next.authority_id == id && next.status == AuthorityStatus::Old => Ok(next),
        Some(next) if next.authority_id == id => Err(OrderError::State(format!(
            "only Old local authorities can be tainted: unsupported local authority status: {}",
            status_name(next.status)
        ))),
        _ => Err(subject("unexpected authority ID")),
    }
}

/// The authority that may be revoked, if `id` is its.
fn revocable<'s>(slots: &'s AuthoritySlots, id: &str) -> Result<&'s JournalEntry, OrderError> {
    match slots.next() {
        _ if id.is_empty() => {
            Err(OrderError::Subject("invalid authority ID: no authority ID provided".into()))
        }
        _ if is_active(slots, id) => {
            Err(OrderError::State("invalid authority ID: unable to use current authority".into()))
        }
        Some(next) if next.authority_id == id && next.status == AuthorityStatus::Old => Ok(next),
        next => {
            let text = "invalid authority ID: only Old local authority can be revoked".to_owned();
            let is_there = next.is_some_and(|next| next.authority_id == id);
            Err(if is_there { OrderError::State(text) } else { OrderError::Subject(text) })
        }
    }
}

fn is_active(slots: &AuthoritySlots, id: &str) -> bool {
    slots.active().is_some_and(|active| active.authority_id == id)
}

/// Changes every root of that key identifier.
fn distrust(roots: &mut Vec<X509Authority>, key_id: &str, how: Distrust) -> Result<(), &'static str> {
    let is_meant = |root: &X509Authority| root.subject_key_id() == key_id;
    let meant = || roots.iter().filter(|root| is_meant(root));
    match how {
        Distrust::Taint if meant().count() == 0 => Err("no ca found with provided subject key ID"),
        Distrust::Taint if meant().all(X509Authority::is_tainted) => Err("root CA is already tainted"),
        Distrust::Taint => {
            roots
                .iter_mut()
                .filter(|root| is_meant(root))
                .for_each(|root| *root = root.clone().with_taint(true));
            Ok(())
        }
        Distrust::Revoke if meant().count() == 0 => Err("no root CA found with provided subject key ID"),
        Distrust::Revoke if !meant().all(X509Authority::is_tainted) => {
            Err("it is not possible to revoke an untainted root CA")
        }
        Distrust::Revoke => {
            roots.retain(|root| !is_meant(root));
            Ok(())
        }
    }
}
