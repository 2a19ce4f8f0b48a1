use super::*;
use crate::selector::Selector;

fn td() -> TrustDomain {
    "td".parse().unwrap()
}

fn selectors(texts: &[&str]) -> Selectors {
    Selectors::new(texts.iter().map(|text| text.parse::<Selector>().unwrap())).unwrap()
}

fn entry() -> RegistrationEntry {
    RegistrationEntry {
        id: "e1".parse().unwrap(),
        spiffe_id: "spiffe://td/web".parse().unwrap(),
        parent_id: "spiffe://td/spire/agent/join_token/x".parse().unwrap(),
        selectors: selectors(&["unix:uid:1", "unix:gid:2"]),
        x509_svid_ttl_secs: 0,
        jwt_svid_ttl_secs: 0,
        federates_with: vec![],
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: vec![],
        revision_number: 0,
        store_svid: false,
        hint: Hint::default(),
        created_at: Timestamp::default(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    }
}

/// Why an entry with one change is refused.
fn refusal(change: impl FnOnce(&mut RegistrationEntry)) -> EntryError {
    let mut entry = entry();
    change(&mut entry);
    entry.check(&td()).unwrap_err()
}

fn dns_fault(name: &str) -> &'static str {
    match name.parse::<DnsName>() {
        Err(EntryError::DnsName { why, .. }) => why,
        other => panic!("{name:?}: {other:?}"),
    }
}

#[test]
fn an_entry_id_has_1_to_255_bytes_of_its_alphabet() {
    for good in ["a", "A.b-C_9", "6d5a6b2c-0f4e-4d0f-9a58-0a4b5b7a0f11", &"x".repeat(255)] {
        assert_eq!(good.parse::<EntryId>().unwrap().as_str(), good);
    }
    for bytes in [0, 256, 100_000] {
        assert_eq!("x".repeat(bytes).parse::<EntryId>(), Err(EntryError::IdLength(bytes)));
    }
    for byte in 0..=u8::MAX {
        let id = format!("a{}", char::from(byte));
        let is_allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        assert_eq!(id.parse::<EntryId>().is_ok(), is_allowed, "{id:?}");
    }
}

#[test]
fn wap_80_a_hint_is_counted_in_bytes_and_an_empty_one_is_none() {
    assert!("".parse::<Hint>().unwrap().is_empty());
    assert_eq!("".parse::<Hint>().unwrap(), Hint::default());
    assert_eq!("internal".parse::<Hint>().unwrap().as_str(), "internal");
    "x".repeat(1024).parse::<Hint>().unwrap();
    assert_eq!("x".repeat(1025).parse::<Hint>(), Err(EntryError::HintLength(1025)));
    "é".repeat(512).parse::<Hint>().unwrap();
    assert_eq!("é".repeat(513).parse::<Hint>(), Err(EntryError::HintLength(1026)));
}

#[test]
fn good_dns_names_keep_their_text() {
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(long.len(), 253);
    for name in [
        "a",
        "localhost",
        "web.example.org",
        "WEB.Example.org",
        "*.example.org",
        "*.a",
        "1.2.3.4",
        "xn--bcher-kva.example",
        "XN--a",
        "a-b",
        &long,
    ] {
        assert_eq!(name.parse::<DnsName>().unwrap().as_str(), name);
    }
}

#[test]
fn dns_names_with_empty_parts_are_refused() {
    for name in ["", "*."] {
        assert_eq!(dns_fault(name), "it is empty", "{name:?}");
    }
    for name in [".", "a.", ".a", "a..b", "*..a"] {
        assert_eq!(dns_fault(name), "a label is empty", "{name:?}");
    }
}

#[test]
fn dns_names_with_stars_elsewhere_are_refused() {
    for name in ["*", "**", "*a.b", "a*.b", "a.*", "a.*.b", "*.*.a", "*.*", "**.a"] {
        assert_eq!(dns_fault(name), "a star may only be the whole first label", "{name:?}");
    }
}

#[test]
fn dns_names_with_misplaced_dashes_are_refused() {
    for name in ["-", "-a", "a-", "a.-b", "a-.b", "*.-a", "xn--"] {
        assert_eq!(dns_fault(name), "a label starts or ends with a dash", "{name:?}");
    }
    for name in ["ab--c", "a.ab--c", "xm--a"] {
        assert_eq!(dns_fault(name), "a label has dashes in its third and fourth place", "{name:?}");
    }
}

#[test]
fn dns_names_that_are_too_long_are_refused() {
    assert_eq!(dns_fault(&"a".repeat(64)), "a label is longer than 63 bytes");
    assert_eq!(dns_fault(&"a.".repeat(127)), "it is longer than 253 bytes");
    let EntryError::DnsName { name, .. } = "a".repeat(100_000).parse::<DnsName>().unwrap_err() else {
        panic!()
    };
    assert_eq!(name.len(), 80);
}

#[test]
fn of_all_bytes_only_letters_digits_dash_and_dot_stand_in_a_dns_name() {
    for byte in 0..=u8::MAX {
        let name = format!("a{}b", char::from(byte));
        let is_allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        assert_eq!(name.parse::<DnsName>().is_ok(), is_allowed, "{name:?}");
    }
    dns_fault("bücher.example");
    dns_fault("web.example.org:443");
    dns_fault("https://web.example.org");
}

#[test]
fn a_wildcard_covers_one_level_and_no_other_wildcard() {
    let name = |text: &str| text.parse::<DnsName>().unwrap();
    let wildcard = name("*.example.org");
    assert!(wildcard.covers(&name("web.example.org")) && wildcard.covers(&name("WEB.EXAMPLE.ORG")));
    for other in ["example.org", "a.b.example.org", "*.example.org", "web.example.com", "webexample.org"] {
        assert!(!wildcard.covers(&name(other)), "{other}");
    }
    assert!(!name("web.example.org").covers(&name("web.example.org")));
}

#[test]
fn a_proper_entry_passes() {
    entry().check(&td()).unwrap();
}

#[test]
fn a_parent_outside_the_trust_domain_or_without_a_path_is_refused() {
    let foreign = refusal(|entry| entry.parent_id = "spiffe://other/node".parse().unwrap());
    assert!(matches!(foreign, EntryError::ForeignParent { .. }), "{foreign}");
    let bare = refusal(|entry| entry.parent_id = td().id());
    assert_eq!(bare, EntryError::ParentWithoutPath(td().id()));
}

#[test]
fn a_spiffe_id_that_is_foreign_bare_or_reserved_is_refused() {
    let foreign = refusal(|entry| entry.spiffe_id = "spiffe://other/web".parse().unwrap());
    assert!(matches!(foreign, EntryError::ForeignId { .. }), "{foreign}");
    assert_eq!(refusal(|entry| entry.spiffe_id = td().id()), EntryError::IdWithoutPath(td().id()));
    for path in ["/spire", "/spire/server", "/spire/agent/x"] {
        let id = td().member(path).unwrap();
        assert_eq!(refusal(|entry| entry.spiffe_id = id.clone()), EntryError::ReservedId(id));
    }
}

#[test]
fn an_entry_without_selectors_is_refused() {
    assert_eq!(refusal(|entry| entry.selectors = Selectors::default()), EntryError::NoSelectors);
}

#[test]
fn a_stored_svid_needs_selectors_of_one_type_and_prefetch() {
    let mixed = refusal(|entry| {
        entry.store_svid = true;
        entry.selectors = selectors(&["a:1", "b:2"]);
    });
    assert_eq!(mixed, EntryError::MixedStoreSelectors);
    let lazy = refusal(|entry| {
        entry.store_svid = true;
        entry.disable_x509_svid_prefetch = true;
    });
    assert_eq!(lazy, EntryError::PrefetchOfStored);
    let stored = RegistrationEntry { store_svid: true, ..entry() };
    stored.check(&td()).unwrap();
}

#[test]
fn an_entry_has_at_most_256_dns_names() {
    let names = |count: usize| vec!["a".parse::<DnsName>().unwrap(); count];
    RegistrationEntry { dns_names: names(256), ..entry() }.check(&td()).unwrap();
    assert_eq!(refusal(|entry| entry.dns_names = names(257)), EntryError::TooManyDnsNames(257));
}

#[test]
fn the_dns_names_of_an_entry_have_a_bound_together() {
    let longest: DnsName = ["a", "b", "c", "d"].map(|label| label.repeat(62)).join(".").parse().unwrap();
    let bytes = longest.as_str().len();
    let fitting = DNS_NAMES_BYTES_MAX / bytes;
    RegistrationEntry { dns_names: vec![longest.clone(); fitting], ..entry() }.check(&td()).unwrap();
    let over = EntryError::DnsNamesTooLong((fitting + 1) * bytes);
    assert_eq!(refusal(|entry| entry.dns_names = vec![longest.clone(); fitting + 1]), over);
}

#[test]
fn an_entry_ends_at_the_second_it_names() {
    let end = Timestamp::from_unix_secs(100);
    let ending = RegistrationEntry { expires_at: Some(end), ..entry() };
    assert_eq!([end - 1, end, end + 1].map(|now| ending.is_expired(now)), [false, true, true]);
    assert!(!entry().is_expired(Timestamp::from_unix_secs(i64::MAX)));
}
