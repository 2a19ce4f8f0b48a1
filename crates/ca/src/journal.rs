//! What is remembered of the authorities a server has made, so that a restart goes on with the same one.
//!
//! Plain values: the server encodes and stores them, in the same commit as the bundle they change. [`restore`] trusts an
//! entry only with its key at hand and its certificate in the bundle; another entry counts as old and is reported. Signing
//! with an authority that nobody trusts would be worse than making a new one.

use rustls_pki_types::CertificateDer;
use spindle_keys::KeyManager;
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::{Timestamp, TrustDomain, Validity, X509Authority};

use crate::csr::is_signed_by;
use crate::profile;
use crate::slots::{AuthoritySlots, Family, Slot};
use crate::x509_ca::{AuthorityError, X509Ca, lower_hex};

mod token;

pub use token::{TokenPublicKey, restore_tokens};

/// The most authorities kept in a journal, SPIRE's number: far more than live at one time.
pub const JOURNAL_ENTRIES_MAX: usize = 10;

/// Where an authority stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthorityStatus {
    /// Made and in the bundle, does not sign yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no more; what it signed is still trusted.
    Old,
}

/// Whether what an authority signed is still trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AuthorityTrust {
    /// Yes.
    #[default]
    Trusted,
    /// Still in the bundle, but everything it signed is being replaced.
    Tainted,
    /// Taken out of the bundle.
    Revoked,
}

/// What is public of an X.509 authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// What follows every leaf it signs; empty when self-signed.
    pub upstream_chain: Vec<CertificateDer<'static>>,
}

/// One authority; `P` is what is public of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry<P = CaCertificate> {
    /// Which key it signs with.
    pub slot: Slot,
    /// What others verify with; by it a restart recognises the key.
    pub public: P,
    /// When it was made, from which its lifetime counts.
    pub issued_at: Timestamp,
    /// The first second it is valid.
    pub not_before: Timestamp,
    /// Its last valid second.
    pub not_after: Timestamp,
    /// Where it stands.
    pub status: AuthorityStatus,
    /// Whether it is trusted.
    pub trust: AuthorityTrust,
    /// Its name: of an X.509 authority the lower-case hex of its subject key identifier, of a JWT or WIT authority its key ID.
    pub authority_id: String,
}

/// What a restart found. `P` is what is public of an authority, `A` the authority that signs.
#[derive(Debug)]
pub struct Restored<P = CaCertificate, A = X509Ca> {
    /// The slots as they stand; entries that cannot be used count as old.
    pub slots: AuthoritySlots<P>,
    /// The authority that signs.
    pub active: Option<A>,
    /// The one that will sign next.
    pub prepared: Option<A>,
    /// Those that could sign again: the clock decides, see [`AuthoritySlots::resumable`].
    pub others: Vec<A>,
    /// Authorities that could have been used, and why they cannot.
    pub skipped: Vec<(String, SkipReason)>,
}

/// Why a journal entry cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Past its end.
    #[error("it has expired")]
    Expired,
    /// Nothing under its key's name.
    #[error("its key is missing from the key manager")]
    KeyMissing,
    /// Certificate, chain or key do not fit.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Key ID or key of an authority of tokens do not do.
    #[error(transparent)]
    TokenAuthority(#[from] BundleError),
    /// The key in its slot is not the one it was made with.
    #[error("the key in its slot is another one")]
    OtherKey,
    /// The trust domain's bundle does not hold it, nor a root above it.
    #[error("it is not in the bundle")]
    NotInBundle,
    /// A newer entry has the same status.
    #[error("a newer authority has taken its place")]
    Superseded,
    /// Tainted or revoked.
    #[error("it is no longer trusted")]
    NotTrusted,
}

impl JournalEntry {
    /// The entry for an authority that was made at `now` with the key of `slot`.
    pub fn prepared(slot: Slot, ca: &X509Ca, now: Timestamp) -> Self {
        Self {
            slot,
            public: CaCertificate {
                certificate: ca.certificate().clone(),
                upstream_chain: ca.upstream_chain().to_vec(),
            },
            issued_at: now,
            not_before: ca.validity().not_before,
            not_after: ca.validity().not_after,
            status: AuthorityStatus::Prepared,
            trust: AuthorityTrust::Trusted,
            authority_id: ca.authority_id().to_owned(),
        }
    }

    /// What SPIRE names the upstream authority by: the key identifier of whoever signed it, in lower-case hex. Empty for a
    /// self-signed one.
    pub fn upstream_authority_id(&self) -> String {
        if self.public.upstream_chain.is_empty() {
            return String::new();
        }
        let certificate = profile::parse(&self.public.certificate).ok();
        certificate
            .and_then(|one| profile::authority_key_id(&one))
            .map(|id| lower_hex(&id))
            .unwrap_or_default()
    }

    /// Whether what it signs leads to `root`: it is that root, or the root has signed a certificate of its chain.
    pub fn is_below(&self, root: &X509Authority) -> bool {
        if self.public.upstream_chain.is_empty() {
            return self.public.certificate == *root.der();
        }
        self.public.upstream_chain.iter().any(|certificate| is_signed_by(certificate, root))
    }
}

impl<P> JournalEntry<P> {
    /// Whether it is valid: before its first second it is of as little use as past its last one.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        Validity { not_before: self.not_before, not_after: self.not_after }.contains(now)
    }

    /// Whether it is past its end.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

/// Takes up a journal of X.509 authorities, oldest entry first. One that is not valid yet is taken up as well: a machine
/// whose clock is late at its start must not lose it. `is_trusted` tells whether an authority is below one of the trust
/// domain's roots, see [`JournalEntry::is_below`].
pub fn restore(
    journal: Vec<JournalEntry>,
    trust_domain: &TrustDomain,
    keys: &dyn KeyManager,
    is_trusted: &dyn Fn(&JournalEntry) -> bool,
    now: Timestamp,
) -> Restored {
    restore_with(journal, &|entry| take_up(entry, trust_domain, keys, is_trusted), now)
}

/// Takes up a journal of any family; `take_up` makes an authority out of an entry.
fn restore_with<P, A>(
    journal: Vec<JournalEntry<P>>,
    take_up: &dyn Fn(&JournalEntry<P>) -> Result<A, SkipReason>,
    now: Timestamp,
) -> Restored<P, A> {
    let mut entries = newest(journal);
    let (mut active, mut prepared) = (None, None);
    let mut skipped = Vec::new();
    for entry in entries.iter_mut().rev() {
        let place = match entry.status {
            AuthorityStatus::Active => &mut active,
            AuthorityStatus::Prepared => &mut prepared,
            AuthorityStatus::Old => continue,
        };
        let taken_up = match place {
            Some(_) => Err(SkipReason::Superseded),
            None if entry.is_over(now) => Err(SkipReason::Expired),
            None if entry.trust != AuthorityTrust::Trusted => Err(SkipReason::NotTrusted),
            None => take_up(entry),
        };
        match taken_up {
            Ok(authority) => *place = Some(authority),
            Err(why) => {
                entry.status = AuthorityStatus::Old;
                skipped.push((entry.authority_id.clone(), why));
            }
        }
    }
    let slots = AuthoritySlots::from_entries(entries);
    let old = slots.newest_of_slots().filter(|entry| entry.status == AuthorityStatus::Old);
    let trusted = old.filter(|entry| entry.trust == AuthorityTrust::Trusted);
    let others = trusted.filter_map(|entry| take_up(entry).ok()).collect();
    Restored { slots, active, prepared, others, skipped }
}

fn take_up(
    entry: &JournalEntry,
    trust_domain: &TrustDomain,
    keys: &dyn KeyManager,
    is_trusted: &dyn Fn(&JournalEntry) -> bool,
) -> Result<X509Ca, SkipReason> {
    let key = keys.get(entry.slot.key_id(Family::X509)).ok_or(SkipReason::KeyMissing)?;
    let CaCertificate { certificate, upstream_chain } = entry.public.clone();
    let ca = X509Ca::from_parts(trust_domain, certificate, key, upstream_chain)?;
    if !is_trusted(entry) {
        return Err(SkipReason::NotInBundle);
    }
    Ok(ca)
}

/// The last [`JOURNAL_ENTRIES_MAX`] entries.
pub(crate) fn newest<P>(mut entries: Vec<JournalEntry<P>>) -> Vec<JournalEntry<P>> {
    entries.split_off(entries.len().saturating_sub(JOURNAL_ENTRIES_MAX))
}

/// Which authorities of a bundle may go: those that ended a day or longer ago, so that peers whose clocks are late lose
/// nothing. Never all of them, as a trust domain without authorities trusts nobody: then none goes.
pub fn prunable<T>(authorities: &[T], not_after: impl Fn(&T) -> Timestamp, now: Timestamp) -> Vec<&T> {
    let over: Vec<&T> = authorities
        .iter()
        .filter(|authority| now.secs_since(not_after(authority)) >= PRUNE_AFTER_SECS)
        .collect();
    if over.len() == authorities.len() { Vec::new() } else { over }
}

/// How long an authority stays in the bundle past its end, in seconds: SPIRE's day.
pub const PRUNE_AFTER_SECS: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests;
