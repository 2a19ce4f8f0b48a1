//! The rows of Trust Domain and Bundle, and of X509-SVID 6, that this crate can show; the name starts with the row.

#[path = "support/authority.rs"]
mod authority;

use authority::{Authority, NOW, mixed_bundle, printed_keys, spiffe_bundle, token_authority, trust_domain};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::bundle_document::{
    self, BundleDocumentError, DOCUMENT_BYTES_MAX, KeyFault, ParsedBundle,
};
use spindle_spiffe_core::{Bundle, JwtAuthority, VerifyError, X509Bundles, verify_x509_svid};

fn document(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.to_json()).expect("printed bundles are JSON")
}

fn parse(document: &Value) -> Result<ParsedBundle, BundleDocumentError> {
    bundle_document::parse(trust_domain("td"), document.to_string().as_bytes())
}

/// Parses the document of a good bundle with one more key; tells why that one was passed over.
fn fault_of(key: Value) -> KeyFault {
    let bundle = mixed_bundle("td");
    let mut document = document(&bundle);
    document["keys"].as_array_mut().expect("keys is a list").insert(1, key);
    let parsed = parse(&document).expect("one strange key is no reason to refuse the rest");
    assert_eq!(parsed.bundle, bundle);
    assert_eq!((parsed.ignored.len(), parsed.ignored[0].index), (1, 1));
    parsed.ignored[0].why.clone()
}

/// A good key of the given use, to be spoilt.
fn good_key(usage: &str) -> Value {
    let keys = printed_keys(&mixed_bundle("td"));
    keys.into_iter().find(|key| key["use"] == usage).expect("every use is printed")
}

fn spoilt(usage: &str, spoil: impl FnOnce(&mut serde_json::Map<String, Value>)) -> KeyFault {
    let mut key = good_key(usage);
    spoil(key.as_object_mut().expect("a key is an object"));
    fault_of(key)
}

#[test]
fn x509_42_an_entry_whose_x5c_is_missing_or_empty_is_ignored() {
    for x5c in [Value::Null, json!([])] {
        assert_eq!(
            spoilt("x509-svid", |key| {
                key.insert("x5c".into(), x5c);
            }),
            KeyFault::NoCertificate
        );
    }
    assert_eq!(
        spoilt("x509-svid", |key| {
            key.remove("x5c");
        }),
        KeyFault::NoCertificate
    );
}

#[test]
fn x509_43_only_the_first_x5c_value_is_used() {
    let (one, two) = (Authority::root("td"), Authority::root("td"));
    let bundle = spiffe_bundle("td", &[&one]);
    let mut document = document(&bundle);
    let second = printed_keys(&spiffe_bundle("td", &[&two]))[0]["x5c"][0].clone();
    document["keys"][0]["x5c"].as_array_mut().unwrap().push(second);
    let parsed = parse(&document).unwrap();
    assert_eq!((parsed.bundle, parsed.ignored), (bundle, vec![]));
}

#[test]
fn x509_44_the_authorities_are_the_union_of_all_usable_entries() {
    let (one, two) = (Authority::root("td"), Authority::root("td"));
    let keys: Vec<Value> =
        [&one, &two, &one].iter().flat_map(|root| printed_keys(&spiffe_bundle("td", &[root]))).collect();
    let parsed = parse(&json!({ "keys": keys })).unwrap();
    assert_eq!(parsed.bundle.x509_authorities, [one.authority(), two.authority()]);
    assert_eq!(parsed.ignored, []);
}

#[test]
fn x509_45_a_bundle_with_only_jwt_keys_refuses_every_x509_svid() {
    let root = Authority::root("td");
    let mut bundle = mixed_bundle("td");
    bundle.x509_authorities.clear();
    let bundles: X509Bundles =
        Bundle::from_json(trust_domain("td"), bundle.to_json().as_bytes()).unwrap().x509_bundle().into();
    let error = verify_x509_svid(&[root.leaf("spiffe://td/a")], &bundles, NOW).unwrap_err();
    assert!(matches!(error, VerifyError::NoAuthority { .. }), "{error}");
}

#[test]
fn bnd_01_a_bundle_holds_many_keys_of_many_kinds() {
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut bundle = mixed_bundle("td");
    for (kid, key) in [("384", &p384), ("521", &p521), ("rsa", &rsa)] {
        let authority = JwtAuthority::new(kid, &key.subject_public_key_info(), None, false).unwrap();
        bundle.jwt_authorities.push(authority);
    }
    let error = JwtAuthority::new("ed", &ed25519.subject_public_key_info(), None, false).unwrap_err();
    assert_eq!(error, BundleError::KeyKind("ed".into()));
    for key in [p384, p521, rsa, ed25519] {
        bundle
            .x509_authorities
            .push(Authority::root_of_key(authority::ca_params("td", "root"), key).authority());
    }
    let parsed = parse(&document(&bundle)).unwrap();
    assert_eq!((parsed.bundle, parsed.ignored), (bundle, vec![]));
}

/// Nothing imports the bundle of another trust domain yet, so there is nobody to warn; a shared root gains nothing.
#[test]
fn bnd_02_a_root_speaks_only_for_the_trust_domains_whose_bundles_have_it() {
    let (root, other) = (Authority::root("a"), Authority::root("b"));
    let leaf = [root.leaf("spiffe://b/web")];
    let mut bundles: X509Bundles = [root.bundle("a"), other.bundle("b")].into_iter().collect();
    assert!(matches!(verify_x509_svid(&leaf, &bundles, NOW), Err(VerifyError::Path { .. })));
    bundles.insert(spiffe_bundle("b", &[&other, &root]).x509_bundle());
    verify_x509_svid(&leaf, &bundles, NOW).unwrap();
    bundles.remove(&trust_domain("b"));
    assert!(verify_x509_svid(&leaf, &bundles, NOW).is_err());
}

#[test]
fn bnd_03_every_bundle_carries_the_name_of_its_trust_domain() {
    let bundle = mixed_bundle("td");
    assert_eq!(bundle.trust_domain, trust_domain("td"));
    assert_eq!(bundle.x509_bundle().trust_domain(), &trust_domain("td"));
    let other = Bundle::from_json(trust_domain("other"), bundle.to_json().as_bytes()).unwrap();
    assert_eq!(other.trust_domain, trust_domain("other"));
}

#[test]
fn wap_19_bnd_04_the_bundle_is_chosen_by_the_trust_domain_in_the_svid() {
    let (a, b) = (Authority::root("a"), Authority::root("b"));
    let bundles: X509Bundles = [a.bundle("a"), b.bundle("b")].into_iter().collect();
    for (root, name) in [(&b, "spiffe://a/x"), (&a, "spiffe://b/x")] {
        let error = verify_x509_svid(&[root.leaf(name)], &bundles, NOW).unwrap_err();
        assert!(matches!(error, VerifyError::Path { .. }), "{error}");
    }
}

#[test]
fn bnd_05_an_svid_of_a_key_that_left_the_bundle_is_refused_at_once() {
    let (old, new) = (Authority::root("td"), Authority::root("td"));
    let mut bundle = spiffe_bundle("td", &[&old, &new]);
    let leaf = [old.leaf("spiffe://td/a")];
    let mut bundles: X509Bundles = bundle.x509_bundle().into();
    verify_x509_svid(&leaf, &bundles, NOW).unwrap();
    bundle.x509_authorities.remove(0);
    bundles.insert(bundle.x509_bundle());
    assert!(verify_x509_svid(&leaf, &bundles, NOW).is_err());
}

#[test]
fn bnd_07_nothing_but_the_defined_members_is_printed_at_the_top() {
    let document = document(&mixed_bundle("td"));
    let names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["keys", "spiffe_refresh_hint", "spiffe_sequence"]);
}

#[test]
fn bnd_08_a_document_with_only_keys_and_one_with_strange_members_work() {
    let parsed = parse(&json!({ "keys": [good_key("jwt-svid")] })).unwrap();
    assert_eq!((parsed.bundle.jwt_authorities.len(), parsed.bundle.sequence), (1, 0));
    assert_eq!(parsed.bundle.refresh_hint_secs, None);
    let strange =
        json!({ "keys": [good_key("jwt-svid")], "spiffe_future": { "keys": null }, "x": [1.5, null] });
    assert_eq!(parse(&strange).unwrap().bundle.jwt_authorities.len(), 1);
}

#[test]
fn bnd_09_the_sequence_is_printed_also_when_it_is_zero() {
    assert_eq!(document(&mixed_bundle("td"))["spiffe_sequence"], 7);
    assert_eq!(document(&Bundle::new(trust_domain("td")))["spiffe_sequence"], 0);
}

#[test]
fn bnd_12_the_sequence_keeps_all_64_bits() {
    for sequence in [(1 << 53) + 1, (1 << 63) - 1, u64::MAX] {
        let mut bundle = mixed_bundle("td");
        bundle.sequence = sequence;
        assert_eq!(Bundle::from_json(trust_domain("td"), bundle.to_json().as_bytes()).unwrap(), bundle);
    }
}

#[test]
fn bnd_12_a_sequence_that_is_no_64_bit_integer_is_refused() {
    for sequence in ["-1", "1.0", "\"1\"", "18446744073709551616", "[]"] {
        let text = format!("{{\"keys\":[],\"spiffe_sequence\":{sequence}}}");
        let error = bundle_document::parse(trust_domain("td"), text.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleDocumentError::Json(_)), "{sequence}: {error}");
    }
}

#[test]
fn bnd_14_the_refresh_hint_is_printed_as_an_integer() {
    assert!(mixed_bundle("td").to_json().contains("\"spiffe_refresh_hint\": 300\n"));
    assert!(document(&Bundle::new(trust_domain("td"))).get("spiffe_refresh_hint").is_none());
}

#[test]
fn bnd_15_a_hint_that_is_no_positive_integer_counts_as_missing() {
    for hint in ["0", "-5", "300.0", "\"300\"", "null", "{}", "18446744073709551615"] {
        let text = format!("{{\"keys\":[],\"spiffe_refresh_hint\":{hint}}}");
        let parsed = bundle_document::parse(trust_domain("td"), text.as_bytes()).unwrap();
        assert_eq!(parsed.bundle.refresh_hint_secs, None, "{hint}");
    }
    assert_eq!(
        parse(&json!({ "keys": [], "spiffe_refresh_hint": 60 })).unwrap().bundle.refresh_hint_secs,
        Some(60)
    );
}

#[test]
fn bnd_16_keys_is_printed_also_when_it_is_empty() {
    assert_eq!(document(&Bundle::new(trust_domain("td")))["keys"], json!([]));
}

#[test]
fn bnd_17_and_24_a_key_of_unknown_type_is_ignored_and_the_rest_is_used() {
    use spindle_spiffe_core::public_key::PublicKeyError::{MissingMember, UnknownType};
    for usage in ["x509-svid", "jwt-svid"] {
        let typed = |kty: Value| {
            spoilt(usage, |key| {
                key.insert("kty".into(), kty);
            })
        };
        assert_eq!(typed("AKP".into()), KeyFault::Key(UnknownType));
        assert_eq!(typed("ec".into()), KeyFault::Key(UnknownType));
        assert_eq!(typed(Value::Null), KeyFault::Key(MissingMember("kty")));
        assert_eq!(
            spoilt(usage, |key| {
                key.insert("crv".into(), "secp256k1".into());
            }),
            KeyFault::Key(UnknownType)
        );
    }
}

#[test]
fn bnd_17_and_26_a_key_of_unknown_use_is_ignored_and_the_rest_is_used() {
    for usage in [json!("foo"), json!("sig"), json!("wit"), json!(""), Value::Null] {
        assert_eq!(
            spoilt("jwt-svid", |key| {
                key.insert("use".into(), usage);
            }),
            KeyFault::Use
        );
    }
    assert_eq!(
        spoilt("x509-svid", |key| {
            key.remove("use");
        }),
        KeyFault::Use
    );
}

#[test]
fn bnd_17_elements_that_are_no_jwk_at_all_are_ignored() {
    for element in
        [json!(null), json!(1), json!("EC"), json!({ "use": ["jwt-svid"] }), json!({ "kty": 1 }), json!([])]
    {
        let fault = fault_of(element.clone());
        assert!(matches!(fault, KeyFault::NotAJwk(_)), "{element}: {fault}");
    }
}

#[test]
fn bnd_18_a_document_without_keys_is_refused() {
    for document in [json!({}), json!({ "keys": null }), json!({ "spiffe_sequence": 1 })] {
        assert_eq!(parse(&document), Err(BundleDocumentError::NoKeys), "{document}");
    }
    for document in [json!(null), json!("keys"), json!(3), json!({ "keys": {} }), json!({ "keys": 1 })] {
        assert!(matches!(parse(&document), Err(BundleDocumentError::Json(_))), "{document}");
    }
}

#[test]
fn bnd_19_and_20_an_empty_or_effectively_empty_bundle_revokes_everything() {
    let root = Authority::root("td");
    let leaf = [root.leaf("spiffe://td/a")];
    let mut bundles = root.bundles("td");
    verify_x509_svid(&leaf, &bundles, NOW).unwrap();
    for keys in [json!([]), json!([{ "kty": "AKP", "use": "x509-svid" }, { "kty": "EC", "use": "future" }])] {
        bundles.insert(parse(&json!({ "keys": keys })).unwrap().bundle.x509_bundle());
        let error = verify_x509_svid(&leaf, &bundles, NOW).unwrap_err();
        assert!(matches!(error, VerifyError::NoAuthority { .. }), "{error}");
    }
}

#[test]
fn bnd_21_one_key_for_two_svid_types_is_refused() {
    let root = Authority::root("td");
    let mut bundle = spiffe_bundle("td", &[&root]);
    bundle.jwt_authorities = vec![JwtAuthority::new("k", &root.spki, None, false).unwrap()];
    assert_eq!(bundle.check(), Err(BundleError::SharedKey("k".into())));
}

#[test]
fn bnd_22_23_and_25_printed_keys_have_type_and_use_and_no_strange_members() {
    let known = ["kty", "use", "kid", "x5c", "crv", "x", "y", "n", "e"];
    for key in printed_keys(&mixed_bundle("td")) {
        assert!(key["kty"].is_string() && key["use"].is_string());
        assert!(key.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())), "{key}");
    }
}

#[test]
fn bnd_27_use_is_compared_with_its_case() {
    assert_eq!(
        spoilt("x509-svid", |key| {
            key.insert("use".into(), "X509-SVID".into());
        }),
        KeyFault::Use
    );
    assert_eq!(
        spoilt("jwt-svid", |key| {
            key.insert("use".into(), "Jwt-Svid".into());
        }),
        KeyFault::Use
    );
}

#[test]
fn rfc_23_key_ids_that_differ_in_case_are_two_keys() {
    let mut bundle = mixed_bundle("td");
    bundle.jwt_authorities = vec![token_authority("k"), token_authority("K")];
    bundle.check().unwrap();
    assert_eq!(parse(&document(&bundle)).unwrap().bundle, bundle);
    assert_ne!(bundle.jwt_authority("k"), bundle.jwt_authority("K"));
}

#[test]
fn rfc_24_an_x5c_value_in_another_alphabet_or_with_another_key_is_ignored() {
    let x5c = good_key("x509-svid")["x5c"][0].as_str().unwrap().to_owned();
    let spoils = [format!("{x5c}="), format!("\n{x5c}"), "%%%%".into(), "A".repeat(100_000), "_-_-".into()];
    for text in spoils {
        assert_eq!(
            spoilt("x509-svid", |key| {
                key.insert("x5c".into(), json!([text]));
            }),
            KeyFault::CertificateText
        );
    }
    let other = good_key("x509-svid");
    let fault = spoilt("x509-svid", |key| {
        key.insert("x5c".into(), other["x5c"].clone());
    });
    assert_eq!(fault, KeyFault::OtherKey);
    let fault = spoilt("x509-svid", |key| {
        key.insert("x5c".into(), json!(["MAA="]));
    });
    assert!(matches!(fault, KeyFault::Authority(_)), "{fault}");
}

#[test]
fn rfc_25_keys_with_missing_or_bad_members_are_ignored() {
    use spindle_spiffe_core::public_key::PublicKeyError::{BadMember, MissingMember, Value as NotAKey};
    let with_x = |x: &str| {
        spoilt("jwt-svid", |key| {
            key.insert("x".into(), x.into());
        })
    };
    assert_eq!(
        spoilt("jwt-svid", |key| {
            key.remove("x");
        }),
        KeyFault::Key(MissingMember("x"))
    );
    assert_eq!(
        spoilt("jwt-svid", |key| {
            key.remove("crv");
        }),
        KeyFault::Key(MissingMember("crv"))
    );
    assert_eq!(with_x("AAAA"), KeyFault::Key(BadMember("x")));
    assert_eq!(with_x("not base64"), KeyFault::Key(BadMember("x")));
    assert_eq!(with_x(&"A".repeat(43)), KeyFault::Key(NotAKey));
    assert_eq!(
        spoilt("jwt-svid", |key| {
            key.remove("kid");
        }),
        KeyFault::NoKeyId
    );
    let fault = spoilt("jwt-svid", |key| {
        key.insert("kid".into(), "".into());
    });
    assert_eq!(fault, KeyFault::TokenAuthority(BundleError::KeyIdLength(0)));
}

#[test]
fn of_two_keys_with_one_id_the_first_is_used_and_an_exact_repeat_does_no_harm() {
    let (first, second) = (good_key("jwt-svid"), good_key("jwt-svid"));
    let parsed = parse(&json!({ "keys": [first, second, first] })).unwrap();
    assert_eq!(printed_keys(&parsed.bundle), [first]);
    assert_eq!(parsed.ignored.iter().map(|key| key.index).collect::<Vec<_>>(), [1]);
    assert_eq!(parsed.ignored[0].why, KeyFault::RepeatedKeyId);
}

#[test]
fn rfc_26_unknown_members_of_a_key_are_ignored() {
    let mut key = good_key("jwt-svid");
    key["alg"] = "ES256".into();
    key["future"] = json!({ "use": 1 });
    let parsed = parse(&json!({ "keys": [key] })).unwrap();
    assert_eq!((parsed.bundle.jwt_authorities.len(), parsed.ignored.len()), (1, 0));
}

#[test]
fn a_document_with_a_known_member_twice_is_refused_and_such_a_key_is_ignored() {
    for text in [r#"{"keys":[],"keys":[]}"#, r#"{"keys":[],"spiffe_sequence":1,"spiffe_sequence":2}"#] {
        let error = bundle_document::parse(trust_domain("td"), text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }
    for text in
        [r#"{"keys":[{"use":"jwt-svid","use":"x509-svid"}]}"#, r#"{"keys":[{"kty":"EC","kty":"RSA"}]}"#]
    {
        let parsed = bundle_document::parse(trust_domain("td"), text.as_bytes()).unwrap();
        assert!(matches!(parsed.ignored[0].why, KeyFault::NotAJwk(_)), "{text}");
    }
}

#[test]
fn documents_past_their_bounds_are_refused() {
    let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
    let max = DOCUMENT_BYTES_MAX;
    let error = bundle_document::parse(trust_domain("td"), &long).unwrap_err();
    assert_eq!(error, BundleDocumentError::Length { bytes: max + 1, max });
    let many = json!({ "keys": vec![Value::Null; 1025] });
    assert_eq!(parse(&many), Err(BundleDocumentError::TooManyKeys(1025)));
    assert_eq!(parse(&json!({ "keys": vec![Value::Null; 1024] })).unwrap().ignored.len(), 1024);
    let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
    assert!(bundle_document::parse(trust_domain("td"), deep.as_bytes()).is_err());
}

#[test]
fn a_bundle_that_repeats_itself_is_refused() {
    let bundle = mixed_bundle("td");
    bundle.check().unwrap();
    let mut twice = bundle.clone();
    twice.x509_authorities.push(bundle.x509_authorities[0].clone());
    assert!(matches!(twice.check(), Err(BundleError::RepeatedAuthority(_))));
    let mut twice = bundle.clone();
    twice.jwt_authorities.push(token_authority("key-1"));
    assert_eq!(twice.check(), Err(BundleError::RepeatedKeyId("key-1".into())));
    for hint in [0, u64::MAX] {
        let hinted = Bundle { refresh_hint_secs: Some(hint), ..bundle.clone() };
        assert_eq!(hinted.check(), Err(BundleError::RefreshHint(hint)));
    }
    let large = Bundle { jwt_authorities: vec![token_authority("k"); 1024], ..bundle };
    assert_eq!(large.check(), Err(BundleError::TooMany(1026)));
}

#[test]
fn a_jwt_authority_with_a_bad_id_or_key_is_refused() {
    let spki = KeyPair::generate().unwrap().subject_public_key_info();
    assert_eq!(JwtAuthority::new("", &spki, None, false), Err(BundleError::KeyIdLength(0)));
    let long = "k".repeat(1025);
    assert_eq!(JwtAuthority::new(&long, &spki, None, false), Err(BundleError::KeyIdLength(1025)));
    for bad in [&spki[1..], &spki[..spki.len() - 1], &[&spki[..], &[0]].concat(), &[]] {
        assert!(matches!(JwtAuthority::new("k", bad, None, false), Err(BundleError::Key { .. })));
    }
}
