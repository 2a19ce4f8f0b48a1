//! The rows of Trust Domain and Bundle on bundle maps; the name starts with the row.

#[path = "support/authority.rs"]
mod authority;

use authority::{mixed_bundle, trust_domain};
use serde_json::{Value, json};
use spindle_spiffe_core::bundle_document::{self, BundleDocumentError, map};

fn map_of(entries: &[(&str, Value)]) -> Value {
    let entries: serde_json::Map<_, _> =
        entries.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    json!({ "trust_domains": entries })
}

fn parse_map(document: &Value) -> Result<bundle_document::BundleMap, BundleDocumentError> {
    map::parse(document.to_string().as_bytes())
}

#[test]
fn bnd_29_a_map_without_trust_domains_is_refused() {
    for document in [json!({}), json!({ "trust_domains": null }), json!({ "trust_domains": [] }), json!([])] {
        assert!(matches!(parse_map(&document), Err(BundleDocumentError::Json(_))), "{document}");
    }
}

#[test]
fn bnd_30_the_smallest_map_is_empty_in_both_directions() {
    assert!(parse_map(&json!({ "trust_domains": {} })).unwrap().is_empty());
    let printed: Value = serde_json::from_str(&map::to_json([]).unwrap()).unwrap();
    assert_eq!(printed, json!({ "trust_domains": {} }));
}

#[test]
fn bnd_31_names_in_a_map_are_bare_trust_domain_names_and_values_are_bundles() {
    let good = json!({ "keys": [] });
    for name in ["spiffe://td", "TD", "", "td/a", "td:80"] {
        let error = parse_map(&map_of(&[(name, good.clone())])).unwrap_err();
        assert!(matches!(error, BundleDocumentError::MapName { .. }), "{name:?}: {error}");
    }
    for bad in [json!({}), json!(null), json!([])] {
        let error = parse_map(&map_of(&[("a", good.clone()), ("td", bad)])).unwrap_err();
        let BundleDocumentError::InMap { trust_domain: culprit, .. } = error else { panic!("{error}") };
        assert_eq!(culprit, trust_domain("td"));
    }
}

#[test]
fn bnd_32_no_map_is_made_of_two_bundles_of_one_name() {
    let (one, two) = (mixed_bundle("td"), mixed_bundle("td"));
    let error = map::to_json([&one, &two]).unwrap_err();
    assert_eq!(error.to_string(), "two bundles of trust domain td cannot stand in one bundle map");
}

#[test]
fn bnd_33_a_map_that_names_a_trust_domain_twice_is_refused_whole() {
    for second in ["a", "\\u0061"] {
        let text = format!(
            r#"{{"trust_domains":{{"b":{{"keys":[]}},"a":{{"keys":[]}},"{second}":{{"keys":[]}}}}}}"#
        );
        let error = map::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("\"a\" occurs twice"), "{error}");
    }
    let twice = br#"{"trust_domains":{},"trust_domains":{"a":{"keys":[]}}}"#;
    assert!(matches!(map::parse(twice), Err(BundleDocumentError::Json(_))));
}

#[test]
fn bnd_34_bundles_in_a_map_are_printed_without_a_hint() {
    let text = map::to_json([&mixed_bundle("a"), &mixed_bundle("b")]).unwrap();
    assert!(!text.contains("refresh_hint"), "{text}");
    assert!(text.contains("\"spiffe_sequence\": 7"), "{text}");
}

#[test]
fn bnd_35_hints_in_a_map_are_dropped() {
    for hint in ["spiffe_refresh_hint", "refresh_hint"] {
        let map = parse_map(&map_of(&[("a", json!({ "keys": [], hint: 1 }))])).unwrap();
        assert_eq!(map[&trust_domain("a")].refresh_hint_secs, None);
    }
}

#[test]
fn bnd_36_a_parsed_map_is_the_full_state_of_the_world() {
    let (a, b) = (mixed_bundle("a"), mixed_bundle("b"));
    let both = map::parse(map::to_json([&a, &b]).unwrap().as_bytes()).unwrap();
    assert!(both.values().zip([&a, &b]).all(|(parsed, given)| parsed.has_same_keys(given)));
    let one = map::parse(map::to_json([&a]).unwrap().as_bytes()).unwrap();
    assert_eq!(one.keys().collect::<Vec<_>>(), [&trust_domain("a")]);
}

#[test]
fn maps_past_their_bounds_are_refused() {
    let of_size = |count: usize| {
        let entries: serde_json::Map<_, _> =
            (0..count).map(|n| (format!("t{n}"), json!({ "keys": [] }))).collect();
        parse_map(&json!({ "trust_domains": entries }))
    };
    assert_eq!(of_size(map::TRUST_DOMAINS_MAX).unwrap().len(), map::TRUST_DOMAINS_MAX);
    let error = of_size(map::TRUST_DOMAINS_MAX + 1).unwrap_err();
    assert!(error.to_string().contains("more than 4096 trust domains"), "{error}");
    let (bytes, max) = (map::MAP_BYTES_MAX + 1, map::MAP_BYTES_MAX);
    assert_eq!(map::parse(&vec![b' '; bytes]), Err(BundleDocumentError::Length { bytes, max }));
}
