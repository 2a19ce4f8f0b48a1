use spindle_proto::refusal::{item_ok, item_refusal};
use spindle_proto::spire::api::server::bundle::v1::*;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::bundle_document::KeyFault;
use spindle_spiffe_core::{Reason, TrustDomain};
use spindle_testkit::{NOW, TestAuthority};
use tonic::Code;

use super::form::{self, Format};
use super::{delete, list, set};
use crate::args::{Output, Socket};
use crate::output::json::ToJson;
use crate::testing::Screen;

fn bundle(name: &str) -> types::Bundle {
    let bundle = TestAuthority::new(name, NOW).bundle();
    let wire = spindle_proto::convert::bundle_to_proto(&bundle);
    types::Bundle { refresh_hint: 300, sequence_number: 7, ..wire }
}

fn pem(bundle: &types::Bundle) -> String {
    Screen::show(|console| form::print(console, bundle, Format::Pem)).out
}

fn document(bundle: &types::Bundle) -> String {
    Screen::show(|console| form::print(console, bundle, Format::Spiffe)).out
}

fn other() -> TrustDomain {
    "other.example".parse().unwrap()
}

#[test]
fn a_bundle_reads_back_from_both_forms() {
    let bundle = bundle("other.example");
    let read = |text: &str, format| form::read(text, format, &other()).map(|read| read.bundle);
    let bare = types::Bundle { refresh_hint: 0, sequence_number: 0, ..bundle.clone() };
    assert_eq!(read(&pem(&bundle), Format::Pem), Ok(bare), "PEM has certificates alone");
    assert_eq!(read(&document(&bundle), Format::Spiffe), Ok(bundle));
    let empty = read("{\"keys\": []}", Format::Spiffe).unwrap();
    assert_eq!(empty, types::Bundle { trust_domain: "other.example".into(), ..Default::default() });
}

#[test]
fn certificates_are_printed_as_pem_also_when_they_come_back_to_back() {
    let (one, two) = (bundle("other.example"), bundle("other.example"));
    let joined = [&one, &two].map(|bundle| bundle.x509_authorities[0].asn1.to_vec()).concat();
    let asn1 = types::X509Certificate { asn1: joined.into(), tainted: false };
    let both = types::Bundle { x509_authorities: vec![asn1], ..one.clone() };
    assert_eq!(pem(&both), pem(&one) + &pem(&two));
}

#[test]
fn a_malformed_bundle_is_not_printed() {
    let authority = types::X509Certificate { asn1: vec![1, 2, 3].into(), tainted: false };
    let bad = types::Bundle { x509_authorities: vec![authority], ..bundle("other.example") };
    for format in [Format::Pem, Format::Spiffe] {
        let screen = Screen::show(|console| form::print(console, &bad, format));
        assert!(screen.result.expect_err("no certificate").what().contains("malformed bundle"));
        assert_eq!(screen.out, "");
    }
}

#[test]
fn a_document_has_spires_order_and_indent() {
    let text = document(&bundle("other.example"));
    let lines: Vec<&str> = text.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "{",
        "    \"keys\"",
        "        {",
        "            \"use\"",
        "            \"kty\"",
        "            \"crv\"",
        "            \"x\"",
        "            \"y\"",
        "            \"x5c\"",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(
        text.ends_with("    ],\n    \"spiffe_sequence\": 7,\n    \"spiffe_refresh_hint\": 300\n}\n"),
        "{text}"
    );
}

#[test]
fn what_is_no_bundle_is_refused_with_what_to_try() {
    let refused = |text: &str, format, says: &str| {
        let failure = form::read(text, format, &other()).map(|_| ()).expect_err(says);
        assert!(failure.what().contains(says) && !failure.remedies().is_empty(), "{failure:?}");
    };
    refused("", Format::Pem, "unable to parse bundle data: the PEM text has no certificate");
    refused("invalid bundle", Format::Pem, "unable to parse bundle data");
    refused("-----BEGIN CERTIFICATE-----\nx", Format::Pem, "malformed PEM text");
    refused("invalid bundle", Format::Spiffe, "unable to parse to spiffe bundle: malformed JSON");
    refused("{}", Format::Spiffe, "has no \"keys\"");
    let strange = "{\"keys\": [{\"use\": \"strange\"}]}";
    refused(
        strange,
        Format::Spiffe,
        "no key of the bundle document can be used; key 0: its \"use\" is missing",
    );
    assert!("der".parse::<Format>().is_err());
    assert_eq!("SPIFFE".parse(), Ok(Format::Spiffe));
}

#[test]
fn keys_that_are_passed_over_are_named() {
    let mut value: serde_json::Value = serde_json::from_str(&document(&bundle("other.example"))).unwrap();
    value["keys"].as_array_mut().unwrap().push(serde_json::json!({"use": "strange"}));
    let read = form::read(&value.to_string(), Format::Spiffe, &other()).unwrap();
    assert_eq!((read.ignored[0].index, &read.ignored[0].why), (1, &KeyFault::Use));
    let screen = Screen::show(|console| {
        form::warn_of_ignored(&read.ignored, console);
        Ok(())
    });
    assert!(
        screen.err.starts_with("Warning: key 1 of the bundle document is passed over: "),
        "{}",
        screen.err
    );
}

#[test]
fn trust_domains_are_named_by_id_or_name() {
    for text in ["other.example", "spiffe://other.example", "spiffe://other.example/any"] {
        assert_eq!(form::trust_domain("id", text), Ok(other()));
    }
    for text in ["", "Other", "spiffe://", "https://other.example", "other.example/x"] {
        let failure = form::trust_domain("id", text).expect_err(text);
        assert!(failure.what().starts_with(&format!("-id {text:?}: ")), "{failure}");
    }
}

#[test]
fn listed_bundles_stand_below_spires_box() {
    let (a, b) = (bundle("a.example"), bundle("b.example"));
    let box_of = |name: &str| {
        let edge = "*".repeat(40);
        format!("{edge}\n* {name}\n{edge}\n")
    };
    let shown = |bundles: &[types::Bundle], format| {
        Screen::show(|console| list::pretty(console, bundles, format)).out
    };
    assert_eq!(shown(&[], Format::Pem), "");
    let expected = format!("{}{}\n{}{}", box_of("a.example"), pem(&a), box_of("b.example"), pem(&b));
    assert_eq!(shown(&[a.clone(), b], Format::Pem), expected);
    assert_eq!(shown(std::slice::from_ref(&a), Format::Spiffe), box_of("a.example") + &document(&a));
}

#[test]
fn the_json_form_is_spires() {
    let bare = types::Bundle { trust_domain: "other.example".into(), ..Default::default() };
    let inner = concat!(
        r#"{"jwt_authorities":[],"refresh_hint":"0","sequence_number":"0","trust_domain":"other.example","#,
        r#""wit_authorities":[],"x509_authorities":[]}"#
    );
    let list = ListFederatedBundlesResponse { bundles: vec![bare.clone()], ..Default::default() };
    assert_eq!(list.to_json().to_string(), format!(r#"{{"bundles":[{inner}],"next_page_token":""}}"#));
    let result = batch_set_federated_bundle_response::Result { status: Some(item_ok()), bundle: Some(bare) };
    let set = BatchSetFederatedBundleResponse { results: vec![result] };
    let expected = format!(r#"{{"results":[{{"bundle":{inner},"status":{{"code":0,"message":"OK"}}}}]}}"#);
    assert_eq!(set.to_json().to_string(), expected);
    let refused = types::Status { code: 13, message: "some error".into(), reason: String::new() };
    let result = batch_set_federated_bundle_response::Result { status: Some(refused.clone()), bundle: None };
    let set = BatchSetFederatedBundleResponse { results: vec![result] };
    assert_eq!(set.to_json().to_string(), r#"{"results":[{"status":{"code":13,"message":"some error"}}]}"#);
    let result = batch_delete_federated_bundle_response::Result {
        status: Some(refused),
        trust_domain: "domain1.test".into(),
    };
    let delete = BatchDeleteFederatedBundleResponse { results: vec![result] };
    let expected =
        r#"{"results":[{"status":{"code":13,"message":"some error"},"trust_domain":"domain1.test"}]}"#;
    assert_eq!(delete.to_json().to_string(), expected);
}

#[test]
fn what_was_done_is_told_and_what_was_refused_says_why() {
    let set = |status| {
        let result = batch_set_federated_bundle_response::Result { status: Some(status), bundle: None };
        let response = BatchSetFederatedBundleResponse { results: vec![result] };
        Screen::show(|console| set::pretty(console, &response))
    };
    let delete = |status| {
        let trust_domain = "other.example".into();
        let result = batch_delete_federated_bundle_response::Result { status: Some(status), trust_domain };
        let response = BatchDeleteFederatedBundleResponse { results: vec![result] };
        Screen::show(|console| delete::pretty(console, &response))
    };
    assert_eq!(
        (set(item_ok()).out.as_str(), delete(item_ok()).out.as_str()),
        ("bundle set.\n", "bundle deleted.\n")
    );
    let bad = item_refusal(Code::InvalidArgument, Reason::OwnTrustDomain, "not allowed".into());
    let failure = set(bad).result.expect_err("refused");
    let expected = "failed to set federated bundle: InvalidArgument: not allowed (reason: own_trust_domain)";
    assert_eq!(
        (failure.what(), failure.remedies()),
        (expected, &[Reason::OwnTrustDomain.remedy().to_owned()][..])
    );
    let used = item_refusal(Code::FailedPrecondition, Reason::BundleInUse, "federated with 2".into());
    let missing = item_refusal(Code::NotFound, Reason::BundleNotFound, "no bundle of other.example".into());
    let failure = delete(missing).result.expect_err("refused");
    assert!(failure.what().ends_with("no bundle of other.example (reason: bundle_not_found)"), "{failure}");
    assert_eq!(failure.remedies(), ["`bundle list` shows which are there"]);
    let failure = delete(used).result.expect_err("refused");
    let expected = "failed to delete federated bundle \"other.example\": FailedPrecondition: federated with 2 (reason: bundle_in_use)";
    assert_eq!(failure.what(), expected);
    assert!(failure.remedies()[0].contains("-mode dissociate"));
    // An answer without results is nobody's success.
    let none = Screen::show(|console| set::pretty(console, &BatchSetFederatedBundleResponse::default()));
    assert!(none.result.is_err());
    let none =
        Screen::show(|console| delete::pretty(console, &BatchDeleteFederatedBundleResponse::default()));
    assert!(none.result.is_err());
}

#[test]
fn a_bundle_is_read_from_the_file_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.pem");
    std::fs::write(&path, pem(&bundle("other.example"))).unwrap();
    let args = |id: &str, path: &std::path::Path| set::Args {
        socket: Socket::default(),
        id: Some(id.into()),
        file: Some(path.to_str().unwrap().into()),
        format: Format::Pem,
        output: Output::default(),
    };
    let read = |args: set::Args| {
        let mut read = None;
        let screen = Screen::show(|console| {
            read = Some(set::read(&args, console)?);
            Ok(())
        });
        screen.result.map(|()| read.unwrap())
    };
    assert_eq!(read(args("spiffe://other.example", &path)).unwrap().x509_authorities.len(), 1);
    assert_eq!(read(args("", &path)).expect_err("no ID").what(), "id flag is required");
    let missing = read(args("other.example", &dir.path().join("none"))).expect_err("no file");
    assert!(missing.what().starts_with("unable to load bundle data: cannot read "), "{missing}");
    for (text, mode) in [("", 0), ("restrict", 0), ("delete", 1), ("dissociate", 2)] {
        assert_eq!(text.parse::<delete::Mode>().unwrap().0 as i32, mode);
    }
    assert!("all".parse::<delete::Mode>().is_err());
}
