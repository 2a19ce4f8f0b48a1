//! Rows WIT-42 to WIT-45 of the requirements: keys of WIT-SVIDs in bundles and their documents.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/authority.rs"]
mod authority;

use authority::{mixed_bundle, printed_keys, token_authority, trust_domain};
use serde_json::json;
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::bundle_document::{KeyFault, ParsedBundle, parse};
use spindle_spiffe_core::{Bundle, WitAuthority};

fn reread(bundle: &Bundle) -> ParsedBundle {
    parse(trust_domain("td"), bundle.to_json().as_bytes()).unwrap()
}

#[test]
fn wit_42_wit_43_wit_44_each_key_is_one_entry_with_its_use_and_its_id() {
    let mut bundle = mixed_bundle("td");
    bundle.wit_authorities = vec![token_authority("one"), token_authority("two")];
    let keys = printed_keys(&bundle);
    let wit: Vec<_> = keys.iter().filter(|key| key["use"] == "wit-svid").collect();
    assert_eq!(wit.iter().map(|key| key["kid"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(wit.iter().all(|key| key["x"].is_string() && key.get("d").is_none()), "{wit:?}");
    assert_eq!(reread(&bundle), ParsedBundle { bundle, ignored: vec![] });
}

#[test]
fn wit_45_a_key_id_stands_once_in_the_whole_bundle() {
    let mut bundle = mixed_bundle("td");
    let jwt_kid = bundle.jwt_authorities[0].kid().to_owned();
    for clash in [token_authority(&jwt_kid), bundle.wit_authorities[0].clone()] {
        let mut clashing = bundle.clone();
        clashing.wit_authorities.push(clash.clone());
        assert_eq!(clashing.check(), Err(BundleError::RepeatedKeyId(clash.kid().into())));
    }
    bundle.wit_authorities.push(token_authority(&jwt_kid.to_uppercase()));
    bundle.check().unwrap();
}

#[test]
fn wit_45_of_a_jwt_and_a_wit_key_with_one_id_in_a_document_the_first_is_used() {
    let mut bundle = mixed_bundle("td");
    bundle.wit_authorities = vec![token_authority(bundle.jwt_authorities[0].kid())];
    let mut keys = printed_keys(&bundle);
    for (jwt, wit) in [(1, 0), (0, 1)] {
        let parsed = parse(trust_domain("td"), json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        let counts = (parsed.bundle.jwt_authorities.len(), parsed.bundle.wit_authorities.len());
        assert_eq!(counts, (jwt, wit));
        assert_eq!(parsed.ignored.iter().map(|key| &key.why).collect::<Vec<_>>(), [&KeyFault::RepeatedKeyId]);
        keys.reverse();
    }
}

#[test]
fn a_key_of_a_wit_authority_is_no_key_of_another_svid_type() {
    let bundle = mixed_bundle("td");
    for other in [bundle.x509_authorities[0].spki_der(), bundle.jwt_authorities[0].spki_der()] {
        let mut sharing = bundle.clone();
        sharing.wit_authorities.push(WitAuthority::new("shared", other, None, false).unwrap());
        assert_eq!(sharing.check(), Err(BundleError::SharedKey("shared".into())));
    }
}

#[test]
fn bundles_that_differ_in_a_wit_key_have_other_keys() {
    let bundle = mixed_bundle("td");
    let mut other = bundle.clone();
    other.wit_authorities.push(token_authority("more"));
    assert!(bundle.has_same_keys(&bundle) && !bundle.has_same_keys(&other) && !other.has_same_keys(&bundle));
    other.wit_authorities.clear();
    assert!(!bundle.has_same_keys(&other) && !other.has_same_keys(&bundle));
}

#[test]
fn a_wit_key_without_an_id_is_passed_over() {
    let mut keys = printed_keys(&mixed_bundle("td"));
    let wit = keys.iter_mut().find(|key| key["use"] == "wit-svid").unwrap();
    wit.as_object_mut().unwrap().remove("kid");
    let parsed = parse(trust_domain("td"), json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    assert_eq!(parsed.ignored.iter().map(|key| &key.why).collect::<Vec<_>>(), [&KeyFault::NoKeyId]);
    assert!(parsed.bundle.wit_authorities.is_empty());
}

#[test]
fn wap_72_wap_74_the_keys_of_a_wit_key_set_vouch_for_wit_svids_alone() {
    let bundle = mixed_bundle("td");
    let text = bundle.wit_key_set();
    let set: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(set.as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"]);
    assert_eq!(set["keys"].as_array().unwrap().len(), bundle.wit_authorities.len());
    assert!(set["keys"][0]["use"].is_null() && set["keys"][0]["kid"].is_string());
    let read = Bundle::from_wit_key_set(trust_domain("td"), text.as_bytes()).unwrap();
    assert_eq!(read.wit_authorities, bundle.wit_authorities);
    assert!(read.jwt_authorities.is_empty() && read.x509_authorities.is_empty());
    // A "use" says nothing there, and a key without an ID or with that of another is none.
    let key = set["keys"][0].clone();
    let mut strange = key.clone();
    strange["use"] = "x509-svid".into();
    let mut nameless = key.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    let text = json!({ "keys": [strange, nameless, key] }).to_string();
    let read = Bundle::from_wit_key_set(trust_domain("td"), text.as_bytes()).unwrap();
    assert_eq!(read.wit_authorities, bundle.wit_authorities);
    assert_eq!(Bundle::new(trust_domain("td")).wit_key_set().matches("\"keys\": []").count(), 1);
}
