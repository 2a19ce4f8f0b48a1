//! The journal of authorities that sign tokens: what is special about them.

use std::marker::PhantomData;

use spindle_keys::KeyManager;
use spindle_spiffe_core::{Bundle, Timestamp, TrustDomain, Validity};

use super::{AuthorityStatus, AuthorityTrust, JournalEntry, Restored, SkipReason, restore_with};
use crate::slots::Slot;
use crate::token::{TokenFamily, TokenSigner};

/// What is public of an authority of one family; its key ID is the authority's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPublicKey<F> {
    /// The key as `SubjectPublicKeyInfo` in DER.
    pub spki_der: Vec<u8>,
    family: PhantomData<F>,
}

impl<F: TokenFamily> TokenPublicKey<F> {
    /// The key, as `SubjectPublicKeyInfo` in DER.
    pub fn new(spki_der: Vec<u8>) -> Self {
        Self { spki_der, family: PhantomData }
    }
}

impl<F: TokenFamily> JournalEntry<TokenPublicKey<F>> {
    /// The entry for an authority that was made at `now` with the key of `slot`.
    pub fn prepared_token(slot: Slot, signer: &TokenSigner<F>, now: Timestamp) -> Self {
        Self {
            slot,
            public: TokenPublicKey::new(signer.authority().spki_der().to_vec()),
            issued_at: now,
            not_before: signer.validity().not_before,
            not_after: signer.validity().not_after,
            status: AuthorityStatus::Prepared,
            trust: AuthorityTrust::Trusted,
            authority_id: signer.authority_id().to_owned(),
        }
    }

    /// Whether the bundle holds that key under that key ID, for that family.
    pub fn is_in(&self, bundle: &Bundle) -> bool {
        let authority = F::authority(bundle, &self.authority_id);
        authority.is_some_and(|authority| authority.spki_der() == self.public.spki_der)
    }
}

/// Takes up a journal of authorities that sign tokens, oldest entry first, as [`super::restore`] does for X.509. Those that
/// are not in the trust domain's `bundle` do not sign.
pub fn restore_tokens<F: TokenFamily>(
    journal: Vec<JournalEntry<TokenPublicKey<F>>>,
    trust_domain: &TrustDomain,
    keys: &dyn KeyManager,
    bundle: &Bundle,
    now: Timestamp,
) -> Restored<TokenPublicKey<F>, TokenSigner<F>> {
    let take_up = |entry: &JournalEntry<TokenPublicKey<F>>| {
        let key = keys.get(entry.slot.key_id(F::FAMILY)).ok_or(SkipReason::KeyMissing)?;
        if key.spki_der() != entry.public.spki_der {
            return Err(SkipReason::OtherKey);
        }
        if !entry.is_in(bundle) {
            return Err(SkipReason::NotInBundle);
        }
        let validity = Validity { not_before: entry.not_before, not_after: entry.not_after };
        Ok(TokenSigner::new(trust_domain, key, &entry.authority_id, validity)?)
    };
    restore_with(journal, &take_up, now)
}

#[cfg(test)]
mod tests {
    use spindle_keys::{KeyType, MemoryKeys};
    use spindle_spiffe_core::TokenAuthority;

    use super::*;
    use crate::slots::{AuthoritySlots, Family, SlotStep};
    use crate::token::{Jwt, Wit};

    const NOW: i64 = 1_790_000_000;

    type Slots = AuthoritySlots<TokenPublicKey<Jwt>>;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    fn trust_domain() -> TrustDomain {
        "prod.example".parse().unwrap()
    }

    fn make(keys: &MemoryKeys, slot: Slot, kid: &str) -> JournalEntry<TokenPublicKey<Jwt>> {
        let key = keys.generate(slot.key_id(Family::Jwt), KeyType::EcP256).unwrap();
        let validity = Validity { not_before: at(NOW - 10), not_after: at(NOW + 86_400) };
        let signer = TokenSigner::new(&trust_domain(), key, kid, validity).unwrap();
        JournalEntry::prepared_token(slot, &signer, at(NOW))
    }

    /// Old `a`, active `b` and nothing prepared.
    fn running() -> (MemoryKeys, Slots) {
        let (keys, mut slots) = (MemoryKeys::new(), AuthoritySlots::new());
        for (slot, kid) in [(Slot::A, "a"), (Slot::B, "b")] {
            slots.on_prepared(make(&keys, slot, kid)).unwrap();
            slots.on_activated(slot).unwrap();
        }
        (keys, slots)
    }

    /// A bundle with the authorities of the journal.
    fn published(slots: &Slots) -> Bundle {
        let mut bundle = Bundle::new(trust_domain());
        let authority = |entry: &JournalEntry<TokenPublicKey<Jwt>>| {
            TokenAuthority::new(&entry.authority_id, &entry.public.spki_der, None, false).unwrap()
        };
        bundle.jwt_authorities = slots.entries().iter().map(authority).collect();
        bundle
    }

    fn restored(
        slots: &Slots,
        keys: &MemoryKeys,
        bundle: &Bundle,
        now: i64,
    ) -> Restored<TokenPublicKey<Jwt>, TokenSigner<Jwt>> {
        restore_tokens(slots.entries().to_vec(), &trust_domain(), keys, bundle, at(now))
    }

    #[test]
    fn after_a_restart_the_same_key_goes_on_and_the_old_one_is_at_hand() {
        let (keys, slots) = running();
        let restored = restored(&slots, &keys, &published(&slots), NOW + 60);
        assert_eq!(restored.slots, slots);
        assert_eq!(restored.active.unwrap().authority_id(), "b");
        let others: Vec<_> = restored.others.iter().map(TokenSigner::authority_id).collect();
        assert_eq!((others, restored.skipped.len()), (vec!["a"], 0));
    }

    #[test]
    fn a_key_that_is_gone_replaced_unpublished_or_over_does_not_sign() {
        let (keys, slots) = running();
        let whole = published(&slots);
        let why = |keys: &MemoryKeys, bundle: &Bundle, now| {
            let restored = restored(&slots, keys, bundle, now);
            assert!(restored.active.is_none() && restored.others.is_empty());
            let step = restored.slots.step(at(now), true);
            assert!(matches!(step, SlotStep::PrepareAndActivate(_)), "{step:?}");
            restored.skipped[0].1.clone()
        };
        assert_eq!(why(&MemoryKeys::new(), &whole, NOW), SkipReason::KeyMissing);
        assert_eq!(why(&keys, &Bundle::new(trust_domain()), NOW), SkipReason::NotInBundle);
        let mut swapped = Bundle::new(trust_domain());
        let other = &slots.entries()[0].public.spki_der;
        swapped.jwt_authorities.push(TokenAuthority::new("b", other, None, false).unwrap());
        assert_eq!(why(&keys, &swapped, NOW), SkipReason::NotInBundle, "the kid is there with another key");
        let mut misplaced = whole.clone();
        misplaced.wit_authorities = std::mem::take(&mut misplaced.jwt_authorities);
        assert_eq!(why(&keys, &misplaced, NOW), SkipReason::NotInBundle, "for the other family");
        for slot in [Slot::A, Slot::B] {
            keys.generate(slot.key_id(Family::Jwt), KeyType::EcP256).unwrap();
        }
        assert_eq!(why(&keys, &whole, NOW), SkipReason::OtherKey);
        assert!(restored(&slots, &keys, &whole, NOW + 86_401).active.is_none());
    }

    #[test]
    fn a_key_of_another_family_is_not_taken_for_it() {
        let (keys, slots) = running();
        let others = MemoryKeys::new();
        for family in [Family::X509, Wit::FAMILY] {
            for slot in [Slot::A, Slot::B] {
                others.keep(slot.key_id(family), &keys.get(slot.key_id(Family::Jwt)).unwrap()).unwrap();
            }
        }
        assert!(restored(&slots, &others, &published(&slots), NOW).active.is_none());
    }

    #[test]
    fn a_tainted_key_does_not_sign_again() {
        let (keys, mut slots) = running();
        slots.taint("a").unwrap();
        let restored = restored(&slots, &keys, &published(&slots), NOW);
        assert!(restored.active.is_some() && restored.others.is_empty());
    }
}
