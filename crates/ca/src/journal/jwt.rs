//! The journal of JWT authorities: what is special about them.

use spindle_keys::KeyManager;
use spindle_spiffe_core::{Timestamp, TrustDomain, Validity};

use super::{AuthorityStatus, AuthorityTrust, JournalEntry, Restored, SkipReason, restore_with};
use crate::jwt::JwtSigner;
use crate::slots::{Family, Slot};

/// What is public of a JWT authority; its key ID is the authority's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtPublicKey {
    /// The key as `SubjectPublicKeyInfo` in DER.
    pub spki_der: Vec<u8>,
}

impl JournalEntry<JwtPublicKey> {
    /// The entry for an authority that was made at `now` with the key of `slot`.
    pub fn prepared_jwt(slot: Slot, signer: &JwtSigner, now: Timestamp) -> Self {
        Self {
            slot,
            public: JwtPublicKey { spki_der: signer.authority().spki_der().to_vec() },
            issued_at: now,
            not_before: signer.validity().not_before,
            not_after: signer.validity().not_after,
            status: AuthorityStatus::Prepared,
            trust: AuthorityTrust::Trusted,
            authority_id: signer.authority_id().to_owned(),
        }
    }
}

/// Takes up a journal of JWT authorities, oldest entry first, as [`super::restore`] does for X.509. `in_bundle` tells whether
/// the trust domain's bundle holds that key under that key ID.
pub fn restore_jwt(
    journal: Vec<JournalEntry<JwtPublicKey>>,
    trust_domain: &TrustDomain,
    keys: &dyn KeyManager,
    in_bundle: &dyn Fn(&str, &[u8]) -> bool,
    now: Timestamp,
) -> Restored<JwtPublicKey, JwtSigner> {
    let take_up = |entry: &JournalEntry<JwtPublicKey>| {
        let key = keys.get(entry.slot.key_id(Family::Jwt)).ok_or(SkipReason::KeyMissing)?;
        if key.spki_der() != entry.public.spki_der {
            return Err(SkipReason::OtherKey);
        }
        if !in_bundle(&entry.authority_id, key.spki_der()) {
            return Err(SkipReason::NotInBundle);
        }
        let validity = Validity { not_before: entry.not_before, not_after: entry.not_after };
        Ok(JwtSigner::new(trust_domain, key, &entry.authority_id, validity)?)
    };
    restore_with(journal, &take_up, now)
}

#[cfg(test)]
mod tests {
    use spindle_keys::{KeyType, MemoryKeys};

    use super::*;
    use crate::slots::{AuthoritySlots, SlotStep};

    const NOW: i64 = 1_790_000_000;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    fn trust_domain() -> TrustDomain {
        "prod.example".parse().unwrap()
    }

    fn make(keys: &MemoryKeys, slot: Slot, kid: &str) -> JournalEntry<JwtPublicKey> {
        let key = keys.generate(slot.key_id(Family::Jwt), KeyType::EcP256).unwrap();
        let validity = Validity { not_before: at(NOW - 10), not_after: at(NOW + 86_400) };
        let signer = JwtSigner::new(&trust_domain(), key, kid, validity).unwrap();
        JournalEntry::prepared_jwt(slot, &signer, at(NOW))
    }

    /// Old `a`, active `b` and nothing prepared.
    fn running() -> (MemoryKeys, AuthoritySlots<JwtPublicKey>) {
        let (keys, mut slots) = (MemoryKeys::new(), AuthoritySlots::new());
        for (slot, kid) in [(Slot::A, "a"), (Slot::B, "b")] {
            slots.on_prepared(make(&keys, slot, kid)).unwrap();
            slots.on_activated(slot).unwrap();
        }
        (keys, slots)
    }

    fn restored(
        slots: &AuthoritySlots<JwtPublicKey>,
        keys: &MemoryKeys,
        in_bundle: &dyn Fn(&str, &[u8]) -> bool,
        now: i64,
    ) -> Restored<JwtPublicKey, JwtSigner> {
        restore_jwt(slots.entries().to_vec(), &trust_domain(), keys, in_bundle, at(now))
    }

    #[test]
    fn after_a_restart_the_same_key_goes_on_and_the_old_one_is_at_hand() {
        let (keys, slots) = running();
        let restored = restored(&slots, &keys, &|_, _| true, NOW + 60);
        assert_eq!(restored.slots, slots);
        assert_eq!(restored.active.unwrap().authority_id(), "b");
        let others: Vec<_> = restored.others.iter().map(JwtSigner::authority_id).collect();
        assert_eq!((others, restored.skipped.len()), (vec!["a"], 0));
    }

    #[test]
    fn a_key_that_is_gone_replaced_unpublished_or_over_does_not_sign() {
        let (keys, slots) = running();
        let why = |keys: &MemoryKeys, in_bundle: &dyn Fn(&str, &[u8]) -> bool, now| {
            let restored = restored(&slots, keys, in_bundle, now);
            assert!(restored.active.is_none() && restored.others.is_empty());
            let step = restored.slots.step(at(now), true);
            assert!(matches!(step, SlotStep::PrepareAndActivate(_)), "{step:?}");
            restored.skipped[0].1.clone()
        };
        assert_eq!(why(&MemoryKeys::new(), &|_, _| true, NOW), SkipReason::KeyMissing);
        assert_eq!(why(&keys, &|_, _| false, NOW), SkipReason::NotInBundle);
        let published = slots.entries()[0].public.spki_der.clone();
        assert_eq!(
            why(&keys, &|kid, spki| kid == "b" && spki == published, NOW),
            SkipReason::NotInBundle,
            "the kid is there with another key"
        );
        for slot in [Slot::A, Slot::B] {
            keys.generate(slot.key_id(Family::Jwt), KeyType::EcP256).unwrap();
        }
        assert_eq!(why(&keys, &|_, _| true, NOW), SkipReason::OtherKey);
        assert!(restored(&slots, &keys, &|_, _| true, NOW + 86_401).active.is_none());
    }

    #[test]
    fn a_key_of_the_other_family_is_not_taken_for_it() {
        let (keys, slots) = running();
        let x509 = MemoryKeys::new();
        for slot in [Slot::A, Slot::B] {
            x509.keep(slot.key_id(Family::X509), &keys.get(slot.key_id(Family::Jwt)).unwrap()).unwrap();
        }
        assert!(restored(&slots, &x509, &|_, _| true, NOW).active.is_none());
    }

    #[test]
    fn a_tainted_key_does_not_sign_again() {
        let (keys, mut slots) = running();
        slots.taint("a").unwrap();
        let restored = restored(&slots, &keys, &|_, _| true, NOW);
        assert!(restored.active.is_some() && restored.others.is_empty());
    }
}
