//! Restarts: what a journal brings back, and what it refuses.

use spindle_keys::{KeyType, MemoryKeys};
use spindle_spiffe_core::Validity;

use super::*;
use crate::subject::CaSubject;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

fn trust_domain() -> TrustDomain {
    "prod.example".parse().unwrap()
}

const NOW: i64 = 1_790_000_000;

fn make(keys: &MemoryKeys, slot: Slot, issued_at: i64) -> X509Ca {
    let key = keys.generate(slot.key_id(Family::X509), KeyType::EcP256).unwrap();
    let validity = Validity { not_before: at(issued_at - 10), not_after: at(issued_at + 86_400) };
    X509Ca::self_signed(&trust_domain(), key, &CaSubject::default(), validity, [1; 16]).unwrap()
}

/// An active authority in slot A and a prepared one in slot B, as a running server leaves them.
fn running() -> (MemoryKeys, AuthoritySlots) {
    let keys = MemoryKeys::new();
    let mut slots = AuthoritySlots::new();
    slots.on_prepared(JournalEntry::prepared(Slot::A, &make(&keys, Slot::A, NOW), at(NOW))).unwrap();
    slots.on_activated(Slot::A).unwrap();
    slots.on_prepared(JournalEntry::prepared(Slot::B, &make(&keys, Slot::B, NOW), at(NOW))).unwrap();
    (keys, slots)
}

fn restore_all(slots: &AuthoritySlots, keys: &MemoryKeys, now: i64) -> Restored {
    restore(slots.entries().to_vec(), &trust_domain(), keys, &|_| true, at(now))
}

fn reasons(restored: &Restored) -> Vec<&SkipReason> {
    restored.skipped.iter().map(|(_, why)| why).collect()
}

#[test]
fn after_a_restart_the_same_authorities_go_on() {
    let (keys, slots) = running();
    let restored = restore_all(&slots, &keys, NOW + 60);
    assert_eq!(restored.slots, slots);
    assert_eq!(restored.active.unwrap().authority_id(), slots.active().unwrap().authority_id);
    assert_eq!(restored.prepared.unwrap().authority_id(), slots.prepared().unwrap().authority_id);
    assert!(restored.skipped.is_empty());
}

#[test]
fn an_empty_journal_is_a_first_start() {
    let restored = restore(Vec::new(), &trust_domain(), &MemoryKeys::new(), &|_| true, at(NOW));
    assert!(restored.active.is_none() && restored.prepared.is_none() && restored.skipped.is_empty());
    assert_eq!(restored.slots.step(at(NOW), false), crate::slots::SlotStep::PrepareAndActivate(Slot::A));
}

#[test]
fn without_its_key_an_authority_is_skipped() {
    let (_, slots) = running();
    let restored = restore_all(&slots, &MemoryKeys::new(), NOW);
    assert_eq!(reasons(&restored), [&SkipReason::KeyMissing, &SkipReason::KeyMissing]);
    assert!(restored.slots.active().is_none() && restored.slots.prepared().is_none());
}

#[test]
fn with_another_key_in_its_slot_an_authority_is_skipped() {
    let (keys, slots) = running();
    keys.generate(Slot::A.key_id(Family::X509), KeyType::EcP256).unwrap();
    let restored = restore_all(&slots, &keys, NOW);
    assert!(matches!(reasons(&restored)[..], [SkipReason::Authority(AuthorityError::OtherKey(_))]));
    assert!(restored.active.is_none() && restored.prepared.is_some());
    let step = restored.slots.step(at(NOW), true);
    assert_eq!(step, crate::slots::SlotStep::Activate { slot: Slot::B, forced: false });
}

#[test]
fn an_expired_authority_is_skipped() {
    let (keys, slots) = running();
    assert!(restore_all(&slots, &keys, NOW + 86_400).skipped.is_empty());
    let restored = restore_all(&slots, &keys, NOW + 86_401);
    assert_eq!(reasons(&restored), [&SkipReason::Expired, &SkipReason::Expired]);
}

#[test]
fn a_machine_whose_clock_is_late_keeps_its_authorities() {
    let (keys, slots) = running();
    let restored = restore_all(&slots, &keys, NOW - 86_400);
    assert_eq!(restored.slots, slots);
    assert!(restored.active.is_some() && restored.prepared.is_some() && restored.skipped.is_empty());
    let step = restored.slots.step(at(NOW - 86_400), true);
    assert!(matches!(step, crate::slots::SlotStep::PrepareAndActivate(_)), "{step:?}");
}

#[test]
fn old_authorities_with_their_keys_are_at_hand_again() {
    let (keys, mut slots) = running();
    slots.on_activated(Slot::B).unwrap();
    let others = |restored: Restored| -> Vec<String> {
        restored.others.iter().map(|ca| ca.authority_id().to_owned()).collect()
    };
    let old = slots.entries()[0].authority_id.clone();
    assert_eq!(others(restore_all(&slots, &keys, NOW)), [old]);
    // One that ended by a clock that is early is at hand when the clock is right again.
    assert_eq!(others(restore_all(&slots, &keys, NOW + 100_000)).len(), 2);
    assert_eq!(others(restore_all(&slots, &MemoryKeys::new(), NOW)).len(), 0);
    slots.on_prepared(JournalEntry::prepared(Slot::A, &make(&keys, Slot::A, NOW), at(NOW))).unwrap();
    assert_eq!(others(restore_all(&slots, &keys, NOW)).len(), 0, "the key is another one's");
}

#[test]
fn an_authority_that_is_not_in_the_bundle_is_skipped() {
    let (keys, slots) = running();
    let active = slots.active().unwrap().public.certificate.clone();
    let in_bundle = |entry: &JournalEntry| entry.public.certificate == active;
    let restored = restore(slots.entries().to_vec(), &trust_domain(), &keys, &in_bundle, at(NOW));
    assert_eq!(reasons(&restored), [&SkipReason::NotInBundle]);
    assert!(restored.active.is_some() && restored.prepared.is_none());
}

#[test]
fn an_authority_of_another_trust_domain_or_with_a_damaged_certificate_is_skipped() {
    let (keys, slots) = running();
    let other = "staging.example".parse().unwrap();
    let restored = restore(slots.entries().to_vec(), &other, &keys, &|_| true, at(NOW));
    assert!(restored.active.is_none() && restored.skipped.len() == 2);
    let mut entries = slots.entries().to_vec();
    entries[0].public.certificate = CertificateDer::from(b"garbage".to_vec());
    let restored = restore(entries, &trust_domain(), &keys, &|_| true, at(NOW));
    assert!(matches!(reasons(&restored)[..], [SkipReason::Authority(AuthorityError::Profile(_))]));
}

#[test]
fn of_two_active_entries_the_newer_one_signs() {
    let (keys, slots) = running();
    let mut entries = slots.entries().to_vec();
    entries[1].status = AuthorityStatus::Active;
    let newer = entries[1].authority_id.clone();
    let restored = restore(entries, &trust_domain(), &keys, &|_| true, at(NOW));
    assert_eq!(restored.active.unwrap().authority_id(), newer);
    assert_eq!(restored.slots.active().unwrap().authority_id, newer);
    assert_eq!(restored.skipped[0].1, SkipReason::Superseded);
}

#[test]
fn a_tainted_authority_does_not_sign_again() {
    let (keys, slots) = running();
    let mut entries = slots.entries().to_vec();
    entries[0].trust = AuthorityTrust::Tainted;
    let restored = restore(entries, &trust_domain(), &keys, &|_| true, at(NOW));
    assert_eq!(reasons(&restored), [&SkipReason::NotTrusted]);
}

#[test]
fn a_journal_keeps_its_last_ten_entries_and_whatever_signs() {
    let (keys, mut slots) = running();
    slots.on_activated(Slot::B).unwrap();
    let active = slots.active().unwrap().authority_id.clone();
    for _ in 0..30 {
        slots.on_prepared(JournalEntry::prepared(Slot::A, &make(&keys, Slot::A, NOW), at(NOW))).unwrap();
    }
    assert_eq!(slots.entries().len(), JOURNAL_ENTRIES_MAX);
    assert_eq!(slots.active().unwrap().authority_id, active);
    let flood = [slots.entries(), slots.entries()].concat();
    assert_eq!(newest(flood).len(), JOURNAL_ENTRIES_MAX);
}

#[test]
fn authorities_leave_the_bundle_a_day_after_their_end_but_never_all() {
    let prune = |ends: &[i64], now: i64| -> Vec<i64> {
        prunable(ends, |end| at(*end), at(now)).into_iter().copied().collect()
    };
    assert_eq!(prune(&[0, 100_000], PRUNE_AFTER_SECS), [0]);
    assert_eq!(prune(&[0, 100_000], PRUNE_AFTER_SECS - 1), [0; 0]);
    assert_eq!(prune(&[0, 1, 2], 10 * PRUNE_AFTER_SECS), [0; 0]);
    assert_eq!(prune(&[], 0), [0; 0]);
}
