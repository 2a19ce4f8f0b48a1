//! Every field that can be wrong is refused by its name, on the wire, in a merge and in a record.

use spindle_spiffe_core::entry::{DNS_NAMES_MAX, ENTRY_ID_BYTES_MAX, EntryError, HINT_BYTES_MAX};
use spindle_spiffe_core::selector::{SELECTOR_BYTES_MAX, SELECTORS_MAX};

use super::super::*;
use super::{no_new_id, plain_entry};
use crate::records::v1 as records;
use crate::spire::api::types;

fn id(trust_domain: &str, path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: trust_domain.into(), path: path.into() })
}

fn selector(kind: &str, value: &str) -> types::Selector {
    types::Selector { r#type: kind.into(), value: value.into() }
}

/// A change that makes an entry bad in one field must be refused by that field, when made and when merged.
fn check(field: Field, spoil: impl Fn(&mut types::Entry)) {
    let mut wire = entry_to_proto(&plain_entry());
    spoil(&mut wire);
    assert_eq!(entry_from_proto(&wire, no_new_id).unwrap_err().field, field, "{wire:?}");
    assert_eq!(existing_entry_from_proto(&wire).unwrap_err().field, field, "{wire:?}");
    if field != Field::Id {
        assert_eq!(
            merge_entry(&plain_entry(), &wire, &EntryMask::all()).unwrap_err().field,
            field,
            "{wire:?}"
        );
        let masked = EntryMask::input(Some(types::EntryMask::default()));
        assert_eq!(
            merge_entry(&plain_entry(), &wire, &masked).unwrap(),
            plain_entry(),
            "a field outside the mask"
        );
    }
}

#[test]
fn a_bad_entry_id_is_refused() {
    for bad in ["a b", "a/b", "ä", "\0"] {
        check(Field::Id, |entry| entry.id = bad.into());
    }
    check(Field::Id, |entry| entry.id = "x".repeat(ENTRY_ID_BYTES_MAX + 1));
}

#[test]
fn an_entry_from_a_server_needs_an_id() {
    let wire = types::Entry { id: String::new(), ..entry_to_proto(&plain_entry()) };
    let error = existing_entry_from_proto(&wire).unwrap_err();
    assert_eq!(error, ConvertError { field: Field::Id, fault: Fault::Missing });
    assert_eq!(error.to_string(), "invalid entry ID: it is missing");
}

#[test]
fn bad_spiffe_ids_are_refused() {
    let bad = [
        None,
        id("", ""),
        id("", "/web"),
        id("PROD.example", "/web"),
        id("prod.example", "web"),
        id("prod.example", "/"),
        id("prod.example", "/web/"),
        id("prod.example", "//web"),
        id("prod.example", "/../web"),
        id("prod.example", "/we b"),
        id("prod.example:1", "/web"),
        id("user@prod.example", "/web"),
        id("prod.example/extra", "/web"),
        id("http://prod.example", "/web"),
        id("prod.example", &format!("/{}", "x".repeat(2048))),
    ];
    for bad in &bad {
        check(Field::SpiffeId, |entry| entry.spiffe_id = bad.clone());
        check(Field::ParentId, |entry| entry.parent_id = bad.clone());
    }
}

#[test]
fn bad_selectors_are_refused() {
    let bad = [
        vec![],
        vec![selector("", "uid:1")],
        vec![selector("unix", "")],
        vec![selector("unix:uid", "1")],
        vec![selector("unix", &"x".repeat(SELECTOR_BYTES_MAX))],
        vec![selector("unix", "uid:1"), selector("", "")],
        vec![selector("unix", "uid:1"); SELECTORS_MAX + 1],
    ];
    for bad in &bad {
        check(Field::Selectors, |entry| entry.selectors = bad.clone());
    }
}

#[test]
fn selectors_behind_many_repeats_are_not_lost() {
    // Counting repeats only once before the bound would let a list drop its last, most telling selector.
    let mut list = vec![selector("unix", "uid:1"); SELECTORS_MAX + 1];
    list.push(selector("unix", "path:/bin/web"));
    let count = SELECTORS_MAX + 2;
    assert_eq!(selectors_from_proto(&list).unwrap_err(), Fault::TooMany { count, max: SELECTORS_MAX });
}

#[test]
fn an_empty_selector_list_reads_as_in_spire() {
    let wire = types::Entry { selectors: vec![], ..entry_to_proto(&plain_entry()) };
    let error = existing_entry_from_proto(&wire).unwrap_err();
    assert_eq!(error.fault, Fault::Entry(EntryError::NoSelectors));
    assert!(error.to_string().ends_with("selector list is empty"), "{error}");
}

#[test]
fn negative_times_are_refused() {
    for bad in [-1, i32::MIN] {
        check(Field::X509SvidTtl, |entry| entry.x509_svid_ttl = bad);
        check(Field::JwtSvidTtl, |entry| entry.jwt_svid_ttl = bad);
        check(Field::ExpiresAt, |entry| entry.expires_at = bad.into());
    }
    check(Field::ExpiresAt, |entry| entry.expires_at = i64::MIN);
}

#[test]
fn bad_foreign_trust_domains_are_refused() {
    for bad in
        ["", "A.example", "a example", "spiffe://", "spiffe://A/x", "https://a.example", "a.example/x", "a:1"]
    {
        check(Field::FederatesWith, |entry| entry.federates_with = vec!["b.example".into(), bad.into()]);
    }
    check(Field::FederatesWith, |entry| entry.federates_with = vec!["b.example".into(); 1025]);
}

#[test]
fn bad_dns_names_are_refused() {
    for bad in [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "a b",
        "*",
        "*.",
        "a.*",
        "**.a",
        "a*.b",
        "ä.example",
        "a_b",
        "1.2.3.4:80",
    ] {
        check(Field::DnsNames, |entry| entry.dns_names = vec!["ok.example".into(), bad.into()]);
    }
    check(Field::DnsNames, |entry| entry.dns_names = vec!["x".repeat(64)]);
    check(Field::DnsNames, |entry| entry.dns_names = vec!["a.example".into(); DNS_NAMES_MAX + 1]);
}

#[test]
fn a_hint_is_bounded_in_bytes() {
    check(Field::Hint, |entry| entry.hint = "x".repeat(HINT_BYTES_MAX + 1));
    check(Field::Hint, |entry| entry.hint = "ä".repeat(HINT_BYTES_MAX / 2 + 1));
}

#[test]
fn an_error_names_field_and_cause_on_one_line() {
    let mut wire = entry_to_proto(&plain_entry());
    wire.parent_id = id("Prod", "/node");
    let text = existing_entry_from_proto(&wire).unwrap_err().to_string();
    assert!(text.starts_with("invalid parent ID: a trust domain name is made of"), "{text}");
    wire.parent_id = id("spiffe://Prod", "/node");
    let text = existing_entry_from_proto(&wire).unwrap_err().to_string();
    assert!(text.contains("bad trust domain in SPIFFE ID: a trust domain name is made of"), "{text}");
}

#[test]
fn a_damaged_record_is_refused_by_field() {
    type Spoil = fn(&mut records::EntryRecord);
    let spoils: [(Field, Spoil); 10] = [
        (Field::Id, |record| record.id.clear()),
        (Field::Id, |record| record.id = "a b".into()),
        (Field::SpiffeId, |record| record.spiffe_id.clear()),
        (Field::SpiffeId, |record| record.spiffe_id = "prod.example/web".into()),
        (Field::ParentId, |record| record.parent_id = "spiffe://prod.example/".into()),
        (Field::Selectors, |record| record.selectors[0].kind.clear()),
        (Field::ExpiresAt, |record| record.expires_at = -5),
        (Field::FederatesWith, |record| record.federates_with.push("A".into())),
        (Field::DnsNames, |record| record.dns_names.push("..".into())),
        (Field::Hint, |record| record.hint = "x".repeat(HINT_BYTES_MAX + 1)),
    ];
    for (field, spoil) in spoils {
        let mut record = entry_to_record(&plain_entry());
        spoil(&mut record);
        assert_eq!(entry_from_record(record).unwrap_err().field, field);
    }
}
