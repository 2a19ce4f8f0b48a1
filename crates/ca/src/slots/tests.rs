//! The slots by hand, then through virtual years with late publishing and failed preparations.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use super::*;

const DAY: i64 = DAY_SECS;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

fn entry(slot: Slot, id: &str, issued_at: i64, ttl: i64) -> JournalEntry {
    JournalEntry {
        slot,
        public: CaCertificate {
            certificate: CertificateDer::from(id.as_bytes().to_vec()),
            upstream_chain: Vec::new(),
        },
        issued_at: at(issued_at),
        not_before: at(issued_at - 10),
        not_after: at(issued_at + ttl),
        status: AuthorityStatus::Prepared,
        trust: AuthorityTrust::Trusted,
        authority_id: id.to_owned(),
    }
}

/// Slots with one active authority of that lifetime, made at second 0.
fn active(ttl: i64) -> AuthoritySlots {
    let mut slots = AuthoritySlots::new();
    slots.on_prepared(entry(Slot::A, "a", 0, ttl)).unwrap();
    slots.on_activated(Slot::A).unwrap();
    slots
}

#[test]
fn a_first_start_prepares_and_activates_slot_a() {
    let mut slots = AuthoritySlots::new();
    assert_eq!(slots.step(at(0), false), SlotStep::PrepareAndActivate(Slot::A));
    slots.on_prepared(entry(Slot::A, "a", 0, DAY)).unwrap();
    assert_eq!(slots.step(at(0), false), SlotStep::Activate { slot: Slot::A, forced: true });
    slots.on_activated(Slot::A).unwrap();
    assert_eq!(slots.active().unwrap().authority_id, "a");
    assert_eq!(slots.step(at(0), false), SlotStep::Wait(at(DAY / 2 + 1)));
}

#[test]
fn the_next_authority_is_prepared_past_half_and_activated_past_five_sixths() {
    let mut slots = active(DAY);
    assert_eq!(slots.step(at(DAY / 2), true), SlotStep::Wait(at(DAY / 2 + 1)));
    assert_eq!(slots.step(at(DAY / 2 + 1), true), SlotStep::Prepare(Slot::B));
    slots.on_prepared(entry(Slot::B, "b", DAY / 2 + 1, DAY)).unwrap();
    let swap = DAY - DAY / 6;
    assert_eq!(slots.step(at(swap), true), SlotStep::Wait(at(swap + 1)));
    assert_eq!(slots.step(at(swap + 1), true), SlotStep::Activate { slot: Slot::B, forced: false });
    slots.on_activated(Slot::B).unwrap();
    assert_eq!(slots.active().unwrap().authority_id, "b");
    assert_eq!(slots.prepared(), None);
    assert_eq!(slots.entries()[0].status, AuthorityStatus::Old);
    assert!(matches!(slots.step(at(swap + 1), true), SlotStep::Wait(_)));
}

#[test]
fn the_thresholds_of_a_long_lived_authority_are_thirty_and_seven_days() {
    let mut slots = active(365 * DAY);
    assert_eq!(slots.step(at(0), true), SlotStep::Wait(at(335 * DAY + 1)));
    slots.on_prepared(entry(Slot::B, "b", 336 * DAY, 365 * DAY)).unwrap();
    assert_eq!(slots.step(at(336 * DAY), true), SlotStep::Wait(at(358 * DAY + 1)));
    assert_eq!(guaranteed_svid_ttl_secs(365 * DAY), 7 * DAY);
    assert_eq!(guaranteed_svid_ttl_secs(DAY), 4 * 60 * 60);
}

#[test]
fn an_unpublished_authority_waits_until_the_active_one_ends() {
    let mut slots = active(DAY);
    slots.on_prepared(entry(Slot::B, "b", DAY / 2 + 1, DAY)).unwrap();
    assert_eq!(slots.step(at(DAY - 100), false), SlotStep::Wait(at(DAY)));
    assert_eq!(slots.step(at(DAY - 100), true), SlotStep::Activate { slot: Slot::B, forced: false });
    assert_eq!(slots.step(at(DAY), false), SlotStep::Activate { slot: Slot::B, forced: true });
    assert_eq!(slots.step(at(DAY + 1), false), SlotStep::Activate { slot: Slot::B, forced: true });
}

#[test]
fn a_server_that_slept_past_everything_starts_anew_in_the_other_slot() {
    let mut slots = active(DAY);
    slots.on_prepared(entry(Slot::B, "b", DAY / 2 + 1, DAY)).unwrap();
    assert_eq!(slots.step(at(9 * DAY), false), SlotStep::PrepareAndActivate(Slot::A));
    slots.on_prepared(entry(Slot::A, "c", 9 * DAY, DAY)).unwrap();
    slots.on_activated(Slot::A).unwrap();
    assert_eq!(slots.active().unwrap().authority_id, "c");
    assert_eq!(slots.prepared(), None);
}

#[test]
fn an_authority_that_is_not_valid_yet_does_not_sign() {
    let slots = active(DAY);
    assert!(matches!(slots.step(at(-10), true), SlotStep::Wait(_)), "made ten seconds into the past");
    assert_eq!(slots.step(at(-11), true), SlotStep::PrepareAndActivate(Slot::B));
    let mut slots = active(DAY);
    slots.on_prepared(entry(Slot::B, "b", DAY / 2 + 1, DAY)).unwrap();
    assert!(matches!(slots.step(at(1), true), SlotStep::Wait(_)), "the active one signs on");
    assert_eq!(slots.step(at(-11), true), SlotStep::PrepareAndActivate(Slot::A));
    slots.on_prepared(entry(Slot::A, "c", -11, DAY)).unwrap();
    slots.on_activated(Slot::A).unwrap();
    assert_eq!(slots.active().unwrap().authority_id, "c");
}

#[test]
fn after_a_jump_forward_and_back_the_authority_from_before_signs_again() {
    let mut slots = active(DAY);
    assert_eq!(slots.resumable(at(0)).count(), 0, "the active one is no old one");
    slots.on_prepared(entry(Slot::B, "b", 9 * DAY, DAY)).unwrap();
    slots.on_activated(Slot::B).unwrap();
    assert_eq!(slots.resumable(at(9 * DAY)).count(), 0, "it has ended there");
    assert_eq!(slots.step(at(60), false), SlotStep::PrepareAndActivate(Slot::A));
    let ids: Vec<_> = slots.resumable(at(60)).map(|entry| entry.authority_id.clone()).collect();
    assert_eq!(ids, ["a"]);
    slots.on_resumed("a", at(60)).unwrap();
    assert_eq!(slots.active().unwrap().authority_id, "a");
    assert!(matches!(slots.step(at(60), false), SlotStep::Wait(_)));
}

#[test]
fn an_authority_without_its_key_or_trust_does_not_sign_again() {
    let mut slots = active(DAY);
    slots.on_prepared(entry(Slot::B, "b", 10, DAY)).unwrap();
    slots.on_activated(Slot::B).unwrap();
    let mut tainted = slots.clone();
    tainted.taint("a").unwrap();
    assert_eq!(tainted.on_resumed("a", at(20)), Err(SlotError::NotResumable("a".into())));
    assert_eq!(slots.on_resumed("b", at(20)), Err(SlotError::NotResumable("b".into())), "it is active");
    slots.on_prepared(entry(Slot::A, "c", 20, DAY)).unwrap();
    assert_eq!(slots.on_resumed("a", at(20)), Err(SlotError::NotResumable("a".into())));
}

#[test]
fn the_key_of_the_active_authority_cannot_be_replaced() {
    let mut slots = active(DAY);
    let before = slots.clone();
    assert_eq!(slots.on_prepared(entry(Slot::A, "b", 10, DAY)), Err(SlotError::SlotInUse(Slot::A)));
    assert_eq!(slots, before);
}

#[test]
fn only_what_is_prepared_can_be_activated() {
    let mut slots = active(DAY);
    assert_eq!(slots.on_activated(Slot::A), Err(SlotError::NotPrepared(Slot::A)));
    assert_eq!(slots.on_activated(Slot::B), Err(SlotError::NotPrepared(Slot::B)));
    assert_eq!(
        AuthoritySlots::<CaCertificate>::new().on_activated(Slot::A),
        Err(SlotError::NotPrepared(Slot::A))
    );
}

#[test]
fn an_authority_is_tainted_when_old_and_revoked_when_tainted() {
    let mut slots = active(DAY);
    assert_eq!(slots.taint("a"), Err(SlotError::NotOld("a".into())));
    assert_eq!(slots.taint("x"), Err(SlotError::Unknown("x".into())));
    slots.on_prepared(entry(Slot::B, "b", 10, DAY)).unwrap();
    assert_eq!(slots.taint("b"), Err(SlotError::NotOld("b".into())));
    slots.on_activated(Slot::B).unwrap();
    assert_eq!(slots.revoke("a"), Err(SlotError::NotTainted("a".into())));
    slots.taint("a").unwrap();
    slots.taint("a").unwrap();
    assert_eq!(slots.entries()[0].trust, AuthorityTrust::Tainted);
    slots.revoke("a").unwrap();
    slots.taint("a").unwrap();
    assert_eq!(slots.entries()[0].trust, AuthorityTrust::Revoked, "taint does not bring it back");
}

#[test]
fn what_stands_beside_the_active_authority_is_the_prepared_or_the_last_old_one() {
    let mut slots = AuthoritySlots::new();
    slots.on_prepared(entry(Slot::A, "a", 0, DAY)).unwrap();
    assert_eq!(slots.next(), None, "nothing is active");
    slots.on_activated(Slot::A).unwrap();
    assert_eq!(slots.next(), None);
    for (slot, id, before) in [(Slot::B, "b", "a"), (Slot::A, "c", "b")] {
        slots.on_prepared(entry(slot, id, 10, DAY)).unwrap();
        assert_eq!(slots.next().unwrap().authority_id, id);
        slots.on_activated(slot).unwrap();
        assert_eq!(slots.next().unwrap().authority_id, before);
    }
}

#[test]
fn a_second_preparation_replaces_the_first() {
    let mut slots = active(DAY);
    slots.on_prepared(entry(Slot::B, "b", 10, DAY)).unwrap();
    slots.on_prepared(entry(Slot::B, "c", 20, DAY)).unwrap();
    assert_eq!(slots.prepared().unwrap().authority_id, "c");
    slots.on_activated(Slot::B).unwrap();
    let statuses: Vec<_> = slots.entries().iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [AuthorityStatus::Old, AuthorityStatus::Old, AuthorityStatus::Active]);
}

#[test]
fn key_names_are_spires() {
    let names = |family| (Slot::A.key_id(family), Slot::B.key_id(family));
    assert_eq!(names(Family::X509), ("x509-CA-A", "x509-CA-B"));
    assert_eq!(names(Family::Jwt), ("JWT-Signer-A", "JWT-Signer-B"));
    assert_eq!(names(Family::Wit), ("WIT-Signer-A", "WIT-Signer-B"));
    assert_eq!(Slot::of_key_id(Family::X509, "x509-CA-B"), Some(Slot::B));
    assert_eq!(Slot::of_key_id(Family::Jwt, "JWT-Signer-A"), Some(Slot::A));
    assert_eq!(Slot::of_key_id(Family::X509, "JWT-Signer-A"), None, "each family has its own");
}

/// Lives in which an authority was due but had to wait for its publication.
static HELD_BACK: AtomicU32 = AtomicU32::new(0);

#[test]
fn through_virtual_years_there_is_always_an_active_authority_that_was_published() {
    virtual_years();
    let lives = HELD_BACK.load(Ordering::Relaxed);
    assert!(lives >= 32, "only {lives} of 64 lives put the rule to the test");
}

/// The rules that hold after every event.
fn check_invariants(slots: &AuthoritySlots) {
    let count = |status| slots.entries().iter().filter(|entry| entry.status == status).count();
    assert!(count(AuthorityStatus::Active) <= 1 && count(AuthorityStatus::Prepared) <= 1, "{slots:?}");
    assert!(slots.entries().len() <= JOURNAL_ENTRIES_MAX);
    if let (Some(active), Some(prepared)) = (slots.active(), slots.prepared()) {
        assert_ne!(active.slot, prepared.slot, "the active key would be overwritten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Publishing takes its time and preparing fails now and then; an authority that is still valid signs all along, and
    /// none signs before it was published.
    fn virtual_years(
        ttl in 600i64..90 * DAY,
        ticks in prop::collection::vec((1i64..100, 0u8..4, 0i64..80), 3600),
    ) {
        let mut slots = AuthoritySlots::new();
        let (mut now, mut number, mut published_at, mut held_back) = (0, 0, 0, false);
        for (pace, failure, delay) in ticks {
            let published = now >= published_at;
            match slots.step(at(now), published) {
                SlotStep::PrepareAndActivate(slot) => {
                    prop_assert_eq!(number, 0, "only a first start finds nothing");
                    slots.on_prepared(entry(slot, "0", now, ttl)).unwrap();
                    slots.on_activated(slot).unwrap();
                    number += 1;
                }
                SlotStep::Prepare(_) if failure == 0 => {}
                SlotStep::Prepare(slot) => {
                    slots.on_prepared(entry(slot, &number.to_string(), now, ttl)).unwrap();
                    // Up to four fifths of what is left: often later than the other threshold, never too late.
                    let left = slots.active().expect("there is one").not_after.secs_since(at(now));
                    published_at = now + left * delay / 100;
                    number += 1;
                }
                SlotStep::Activate { slot, forced } => {
                    prop_assert!(published && !forced);
                    slots.on_activated(slot).unwrap();
                }
                SlotStep::Wait(until) => {
                    prop_assert!(until > at(now));
                    held_back |= !published && slots.step(at(now), true) != SlotStep::Wait(until);
                }
            }
            check_invariants(&slots);
            let active = slots.active().expect("there is an active authority");
            prop_assert!(active.is_valid(at(now)));
            now += (ttl * pace / 10_000).max(1);
        }
        HELD_BACK.fetch_add(u32::from(held_back), Ordering::Relaxed);
    }

    /// Events in any order and any clock: the rules hold and steps that wait lie ahead.
    #[test]
    fn no_order_of_events_breaks_the_slots(
        events in prop::collection::vec((0u8..6, 0i64..200 * DAY, 1i64..60 * DAY), 0..60),
    ) {
        let mut slots = AuthoritySlots::new();
        for (number, (event, now, ttl)) in events.into_iter().enumerate() {
            let slot = if now % 2 == 0 { Slot::A } else { Slot::B };
            // A refusal is an answer too; what counts is the state after it.
            let _ = match event {
                0 | 1 => slots.on_prepared(entry(slot, &number.to_string(), now, ttl)),
                2 => slots.on_activated(slot),
                3 => slots.taint(&(number / 2).to_string()),
                4 => slots.on_resumed(&(number / 2).to_string(), at(now)),
                _ => slots.revoke(&(number / 2).to_string()),
            };
            check_invariants(&slots);
            if let SlotStep::Wait(until) = slots.step(at(now), event == 0) {
                prop_assert!(until > at(now));
            }
        }
    }
}
