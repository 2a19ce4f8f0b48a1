//! Entries survive every trip, masks and merges do what they name. Refusals and hostile input are in the submodules.

mod hostile;
mod refusals;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use spindle_spiffe_core::entry::HINT_BYTES_MAX;
use spindle_spiffe_core::{RegistrationEntry, Selector, Selectors, SpiffeId, Timestamp};

use super::*;
use crate::spire::api::types;

const ID: &str = "[A-Za-z0-9._-]{1,40}";
const TRUST_DOMAIN: &str = "[a-z0-9][a-z0-9.-]{0,20}";

fn spiffe_ids() -> impl Strategy<Value = SpiffeId> {
    (TRUST_DOMAIN, "(/[A-Za-z0-9_-]{1,12}){0,4}")
        .prop_map(|(name, path)| format!("spiffe://{name}{path}").parse().unwrap())
}

fn some_selectors() -> impl Strategy<Value = Selectors> {
    let selector =
        ("[a-z0-9_]{1,8}", "[ -~äß]{1,30}").prop_map(|(kind, value)| Selector::new(&kind, &value).unwrap());
    vec(selector, 1..8).prop_map(|selectors| Selectors::new(selectors).unwrap())
}

fn hints() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ -~äß]{1,60}", Just("h".repeat(HINT_BYTES_MAX))]
}

prop_compose! {
    fn entries()(
        names in (ID, spiffe_ids(), spiffe_ids(), hints()),
        selectors in some_selectors(),
        ttls in (0..=i32::MAX as u32, 0..=i32::MAX as u32),
        foreign in btree_set(TRUST_DOMAIN, 0..5),
        dns_names in vec("(\\*\\.)?[a-z0-9]{1,9}(\\.[a-zA-Z0-9]{1,9}){0,3}", 0..4),
        switches in any::<[bool; 5]>(),
        times in (prop::option::of(1..i64::MAX), any::<i64>(), any::<i64>()),
    ) -> RegistrationEntry {
        RegistrationEntry {
            id: names.0.parse().unwrap(),
            spiffe_id: names.1,
            parent_id: names.2,
            selectors,
            x509_svid_ttl_secs: ttls.0,
            jwt_svid_ttl_secs: ttls.1,
            federates_with: foreign.iter().map(|name| name.parse().unwrap()).collect(),
            admin: switches[0],
            downstream: switches[1],
            expires_at: times.0.map(Timestamp::from_unix_secs),
            dns_names: dns_names.iter().map(|name| name.parse().unwrap()).collect(),
            revision_number: times.1,
            store_svid: switches[2],
            hint: names.3.parse().unwrap(),
            created_at: Timestamp::from_unix_secs(times.2),
            disable_x509_svid_prefetch: switches[3],
            jwt_svid_include_jti: switches[4],
        }
    }
}

fn masks() -> impl Strategy<Value = types::EntryMask> {
    any::<[bool; 15]>().prop_map(|on| types::EntryMask {
        spiffe_id: on[0],
        parent_id: on[1],
        selectors: on[2],
        x509_svid_ttl: on[3],
        federates_with: on[4],
        admin: on[5],
        downstream: on[6],
        expires_at: on[7],
        dns_names: on[8],
        revision_number: on[9],
        store_svid: on[10],
        jwt_svid_ttl: on[11],
        hint: on[12],
        created_at: on[13],
        additional_attributes: on[14],
    })
}

/// A small valid entry to change one thing of.
pub(super) fn plain_entry() -> RegistrationEntry {
    let wire = types::Entry {
        id: "web".into(),
        spiffe_id: Some(types::Spiffeid { trust_domain: "prod.example".into(), path: "/web".into() }),
        parent_id: Some(types::Spiffeid { trust_domain: "prod.example".into(), path: "/node".into() }),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1000".into() }],
        ..Default::default()
    };
    existing_entry_from_proto(&wire).unwrap()
}

fn no_new_id() -> spindle_spiffe_core::EntryId {
    panic!("an entry with an id needs no new one")
}

proptest! {
    #[test]
    fn an_entry_survives_the_wire(entry in entries()) {
        let wire = entry_to_proto(&entry);
        prop_assert_eq!(&entry_from_proto(&wire, no_new_id).unwrap(), &entry);
        prop_assert_eq!(existing_entry_from_proto(&wire).unwrap(), entry);
    }

    #[test]
    fn an_entry_survives_the_store(entry in entries()) {
        prop_assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
    }

    #[test]
    fn a_merge_takes_the_masked_fields_and_keeps_the_others(old in entries(), new in entries(), mask in masks()) {
        let merged = merge_entry(&old, &entry_to_proto(&new), &EntryMask::input(Some(mask))).unwrap();
        prop_assert_eq!((&merged.id, merged.revision_number, merged.created_at), (&old.id, old.revision_number, old.created_at));
        // What the mask names comes from the new entry, what its complement names from the old one.
        let fixed = types::EntryMask { revision_number: false, created_at: false, ..mask };
        let rest = types::EntryMask { revision_number: true, created_at: true, ..complement(mask) };
        let (taken, kept) = (EntryMask::output(Some(fixed)), EntryMask::output(Some(rest)));
        let nameless = |mask: &EntryMask, entry: &RegistrationEntry| types::Entry { id: String::new(), ..mask.apply(entry_to_proto(entry)) };
        prop_assert_eq!(nameless(&taken, &merged), nameless(&taken, &new));
        prop_assert_eq!(nameless(&kept, &merged), nameless(&kept, &old));
    }

    #[test]
    fn a_mask_and_its_complement_split_an_entry(entry in entries(), mask in masks()) {
        use prost::Message;
        let wire = entry_to_proto(&entry);
        let one = EntryMask::output(Some(mask)).apply(wire.clone());
        let other = EntryMask::output(Some(complement(mask))).apply(wire.clone());
        prop_assert_eq!((&one.id, &other.id), (&wire.id, &wire.id));
        // Merging messages by concatenation gives the whole back: no field was lost, none was kept twice.
        let mut both = one.encode_to_vec();
        both.extend(other.encode_to_vec());
        prop_assert_eq!(types::Entry::decode(both.as_slice()).unwrap(), wire);
    }

    #[test]
    fn ids_and_selectors_survive_the_wire(id in spiffe_ids(), selectors in some_selectors()) {
        prop_assert_eq!(spiffe_id_from_proto(&spiffe_id_to_proto(&id)).unwrap(), id);
        prop_assert_eq!(selectors_from_proto(&selectors_to_proto(&selectors)).unwrap(), selectors);
    }
}

fn complement(mask: types::EntryMask) -> types::EntryMask {
    types::EntryMask {
        spiffe_id: !mask.spiffe_id,
        parent_id: !mask.parent_id,
        selectors: !mask.selectors,
        x509_svid_ttl: !mask.x509_svid_ttl,
        federates_with: !mask.federates_with,
        admin: !mask.admin,
        downstream: !mask.downstream,
        expires_at: !mask.expires_at,
        dns_names: !mask.dns_names,
        revision_number: !mask.revision_number,
        store_svid: !mask.store_svid,
        jwt_svid_ttl: !mask.jwt_svid_ttl,
        hint: !mask.hint,
        created_at: !mask.created_at,
        additional_attributes: !mask.additional_attributes,
    }
}

#[test]
fn an_absent_mask_means_all_fields() {
    let wire = entry_to_proto(&plain_entry());
    assert_eq!(EntryMask::output(None).apply(wire.clone()), wire);
    assert_eq!(EntryMask::input(None), EntryMask::all());
}

#[test]
fn an_empty_mask_leaves_the_id_alone() {
    let only_id = EntryMask::output(Some(types::EntryMask::default())).apply(entry_to_proto(&plain_entry()));
    assert_eq!(only_id, types::Entry { id: "web".into(), ..Default::default() });
}

#[test]
fn an_entry_without_an_id_gets_a_new_one() {
    let wire = types::Entry { id: String::new(), ..entry_to_proto(&plain_entry()) };
    let entry = entry_from_proto(&wire, || "made-up".parse().unwrap()).unwrap();
    assert_eq!(entry.id.as_str(), "made-up");
}

#[test]
fn an_end_before_the_epoch_stays_an_end() {
    for end in [i64::MIN, -1, 0] {
        let entry = RegistrationEntry { expires_at: Some(Timestamp::from_unix_secs(end)), ..plain_entry() };
        let read = existing_entry_from_proto(&entry_to_proto(&entry)).unwrap();
        assert_eq!(read.expires_at, Some(Timestamp::from_unix_secs(1)), "{end}");
        assert_eq!(
            entry_from_record(entry_to_record(&entry)).unwrap().expires_at,
            Some(Timestamp::from_unix_secs(1))
        );
    }
}

#[test]
fn a_lifetime_past_the_wire_stays_as_long_as_it_can() {
    let entry = RegistrationEntry { x509_svid_ttl_secs: u32::MAX, ..plain_entry() };
    assert_eq!(entry_to_proto(&entry).x509_svid_ttl, i32::MAX);
    assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap().x509_svid_ttl_secs, u32::MAX);
}

#[test]
fn a_trust_domain_may_be_given_as_an_id() {
    for text in ["prod.example", "spiffe://prod.example", "spiffe://prod.example/any"] {
        assert_eq!(trust_domain_from_proto(text).unwrap().name(), "prod.example");
    }
}

#[test]
fn repeats_count_once() {
    let selector = types::Selector { r#type: "unix".into(), value: "uid:1".into() };
    assert_eq!(selectors_from_proto(&[selector.clone(), selector]).unwrap().len(), 1);
    let wire = types::Entry {
        federates_with: vec!["b.example".into(), "a.example".into(), "spiffe://b.example".into()],
        ..entry_to_proto(&plain_entry())
    };
    let entry = existing_entry_from_proto(&wire).unwrap();
    let names: Vec<_> = entry.federates_with.iter().map(|name| name.name()).collect();
    assert_eq!(names, ["b.example", "a.example"]);
}

#[test]
fn attributes_that_are_all_off_are_absent() {
    assert_eq!(entry_to_proto(&plain_entry()).additional_attributes, None);
    let entry = RegistrationEntry { jwt_svid_include_jti: true, ..plain_entry() };
    assert!(entry_to_proto(&entry).additional_attributes.is_some());
}
