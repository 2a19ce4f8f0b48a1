use spindle_proto::refusal::{item_ok, item_refusal};
use spindle_proto::spire::api::server::trustdomain::v1::*;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use spindle_spiffe_core::Reason;
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_testkit::{NOW, TestAuthority};
use tonic::{Code, Status};

use super::change::{self, Item};
use super::{delete, refresh, show};
use crate::error::Failure;
use crate::output::json::ToJson;
use crate::testing::Screen;

fn web() -> types::FederationRelationship {
    types::FederationRelationship {
        trust_domain: "td-1.org".into(),
        bundle_endpoint_url: "https://td-1.org/bundle".into(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: None,
    }
}

fn spiffe() -> types::FederationRelationship {
    let profile = types::HttpsspiffeProfile { endpoint_spiffe_id: "spiffe://other.org/bundle".into() };
    types::FederationRelationship {
        trust_domain: "td-2.org".into(),
        bundle_endpoint_url: "https://td-2.org/bundle".into(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(profile)),
        trust_domain_bundle: None,
    }
}

const WEB: &str = "\
Trust domain              : td-1.org
Bundle endpoint URL       : https://td-1.org/bundle
Bundle endpoint profile   : https_web
";

const SPIFFE: &str = "\
Trust domain              : td-2.org
Bundle endpoint URL       : https://td-2.org/bundle
Bundle endpoint profile   : https_spiffe
Endpoint SPIFFE ID        : spiffe://other.org/bundle
";

/// The relationships that these flags describe, with what is written on the way.
fn flags(
    change: impl FnOnce(&mut change::Args),
) -> (Result<Vec<types::FederationRelationship>, Failure>, String) {
    let mut args = change::Args::default();
    change(&mut args);
    let mut read = Vec::new();
    let screen = Screen::show(|console| {
        read = args.relationships(console)?;
        Ok(())
    });
    (screen.result.map(|()| read), screen.err)
}

fn data(text: &str) -> Result<Vec<types::FederationRelationship>, Failure> {
    let mut read = Vec::new();
    let screen = Screen::show(|console| {
        read = super::data::parse(text, console)?;
        Ok(())
    });
    screen.result.map(|()| read)
}

#[test]
fn relationships_are_shown_with_spires_labels() {
    let shown = |relationships: &[types::FederationRelationship]| {
        Screen::show(|console| show::pretty_list(console, relationships)).out
    };
    assert_eq!(shown(&[]), "Found 0 federation relationships\n");
    assert_eq!(shown(&[web()]), format!("Found 1 federation relationship\n\n{WEB}"));
    assert_eq!(shown(&[web(), spiffe()]), format!("Found 2 federation relationships\n\n{WEB}\n{SPIFFE}"));
    let one = Screen::show(|console| show::pretty(console, "td-2.org", &spiffe())).out;
    assert_eq!(one, format!("Found a federation relationship with trust domain td-2.org:\n\n{SPIFFE}"));
}

#[test]
fn the_json_form_is_spires() {
    let web_json =
        r#"{"bundle_endpoint_url":"https://td-1.org/bundle","https_web":{},"trust_domain":"td-1.org"}"#;
    let spiffe_json = concat!(
        r#"{"bundle_endpoint_url":"https://td-2.org/bundle","https_spiffe":{"endpoint_spiffe_id":"#,
        r#""spiffe://other.org/bundle"},"trust_domain":"td-2.org","trust_domain_bundle":{"jwt_authorities":[],"#,
        r#""refresh_hint":"0","sequence_number":"0","trust_domain":"td-2.org","wit_authorities":[],"#,
        r#""x509_authorities":[]}}"#
    );
    let bundle = types::Bundle { trust_domain: "td-2.org".into(), ..Default::default() };
    let with_bundle = types::FederationRelationship { trust_domain_bundle: Some(bundle), ..spiffe() };
    let list = ListFederationRelationshipsResponse {
        federation_relationships: vec![web(), with_bundle],
        next_page_token: String::new(),
    };
    let expected =
        format!(r#"{{"federation_relationships":[{web_json},{spiffe_json}],"next_page_token":""}}"#);
    assert_eq!(list.to_json().to_string(), expected);
    let result = batch_create_federation_relationship_response::Result {
        status: Some(item_ok()),
        federation_relationship: Some(web()),
    };
    let created = BatchCreateFederationRelationshipResponse { results: vec![result] };
    let expected = format!(
        r#"{{"results":[{{"federation_relationship":{web_json},"status":{{"code":0,"message":"OK"}}}}]}}"#
    );
    assert_eq!(created.to_json().to_string(), expected);
    let result = batch_delete_federation_relationship_response::Result {
        status: Some(item_ok()),
        trust_domain: "td-1.org".into(),
    };
    let deleted = BatchDeleteFederationRelationshipResponse { results: vec![result] };
    let expected = r#"{"results":[{"status":{"code":0,"message":"OK"},"trust_domain":"td-1.org"}]}"#;
    assert_eq!(deleted.to_json().to_string(), expected);
}

#[test]
fn flags_make_a_relationship() {
    let (read, _) = flags(|args| {
        args.trust_domain = Some("td-1.org".into());
        args.url = Some("https://td-1.org/bundle".into());
        args.profile = Some("https_web".into());
    });
    assert_eq!(read.unwrap(), [web()]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.pem");
    let authority = TestAuthority::new("td-2.org", NOW);
    std::fs::write(&path, certificates_to_pem([authority.ca().certificate()])).unwrap();
    let (read, _) = flags(|args| {
        args.trust_domain = Some("spiffe://td-2.org".into());
        args.url = Some("https://td-2.org/bundle".into());
        args.profile = Some("https_spiffe".into());
        args.endpoint_id = Some("spiffe://other.org/bundle".into());
        args.bundle_path = Some(path.to_str().unwrap().into());
    });
    let read = read.unwrap().remove(0);
    let bundle = read.trust_domain_bundle.clone().unwrap();
    // SPIRE's tool would take it for a bundle of other.org, which no server accepts.
    assert_eq!((bundle.trust_domain.as_str(), bundle.x509_authorities.len()), ("td-2.org", 1));
    assert_eq!(types::FederationRelationship { trust_domain_bundle: None, ..read }, spiffe());
}

#[test]
fn flags_that_say_too_little_or_too_much_are_refused_with_what_to_try() {
    let refused = |says: &str, change: &dyn Fn(&mut change::Args)| {
        let failure = flags(|args| change(args)).0.expect_err(says);
        assert!(failure.what().starts_with(says), "{failure}");
        assert!(!failure.remedies().is_empty(), "{failure}");
    };
    let url = |args: &mut change::Args| {
        args.trust_domain = Some("td.org".into());
        args.url = Some("https://td.org/bundle".into());
    };
    let with_profile = |args: &mut change::Args, profile: &str| {
        url(args);
        args.profile = Some(profile.into());
    };
    refused("trust domain is required", &|_| ());
    refused("bundle endpoint URL is required", &|args| args.trust_domain = Some("td.org".into()));
    refused("unknown bundle endpoint profile type: \"\"", &|args| url(args));
    refused("unknown bundle endpoint profile type: \"bad-type\"", &|args| with_profile(args, "bad-type"));
    refused("endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set", &|args| {
        with_profile(args, "https_spiffe");
    });
    refused("cannot parse bundle endpoint SPIFFE ID: ", &|args| {
        with_profile(args, "https_spiffe");
        args.endpoint_id = Some("invalid-id".into());
    });
    refused("-trustDomain \"Td\": ", &|args| {
        with_profile(args, "https_web");
        args.trust_domain = Some("Td".into());
    });
    refused("cannot read bundle file: cannot read /nonexistent", &|args| {
        with_profile(args, "https_web");
        args.bundle_path = Some("/nonexistent".into());
    });
    refused("cannot parse bundle file: unable to parse bundle data", &|args| {
        with_profile(args, "https_web");
        args.bundle_path = Some("/dev/null".into());
    });
    refused("cannot use other flags", &|args| {
        args.data = Some("-".into());
        args.url = Some("https://td.org".into());
    });
    refused("cannot use other flags", &|args| {
        args.data = Some("-".into());
        args.bundle_format = "spiffe".parse().unwrap();
    });
}

#[test]
fn a_data_file_is_read_with_spires_keys() {
    let authority = TestAuthority::new("td-2.org", NOW);
    let pem = certificates_to_pem([authority.ca().certificate()]);
    let document: serde_json::Value = serde_json::from_str(&authority.bundle().to_json()).unwrap();
    let file = serde_json::json!({"federationRelationships": [
        {"trustDomain": "td-1.org", "bundleEndpointURL": "https://td-1.org/bundle", "bundleEndpointProfile": "https_web"},
        {
            "trustDomain": "td-2.org", "bundleEndpointURL": "https://td-2.org/bundle",
            "bundleEndpointProfile": "https_spiffe", "endpointSpiffeID": "spiffe://other.org/bundle",
            "trustDomainBundle": pem, "trustDomainBundleFormat": "pem",
        },
        {
            "trustDomain": "td-2.org", "bundleEndpointURL": "https://td-2.org/bundle",
            "bundleEndpointProfile": "https_spiffe", "endpointSPIFFEID": "spiffe://other.org/bundle",
            "trustDomainBundle": document, "trustDomainBundleFormat": "spiffe",
        },
    ]});
    let read = data(&file.to_string()).unwrap();
    assert_eq!(read[0], web());
    let der = authority.ca().certificate().to_vec();
    for read in &read[1..] {
        let bundle = read.trust_domain_bundle.clone().unwrap();
        assert_eq!(
            (&bundle.x509_authorities[0].asn1[..], bundle.trust_domain.as_str()),
            (&der[..], "td-2.org")
        );
        assert_eq!(types::FederationRelationship { trust_domain_bundle: None, ..read.clone() }, spiffe());
    }
}

#[test]
fn a_data_file_that_is_wrong_says_where() {
    let refused = |text: &str, says: &str| {
        let failure = data(text).expect_err(says);
        assert!(failure.what().contains(says) && !failure.remedies().is_empty(), "{failure:?}");
    };
    let item = |more: &str| format!(r#"{{"federationRelationships": [{{{more}}}]}}"#);
    let good = r#""trustDomain": "td.org", "bundleEndpointURL": "https://td.org", "bundleEndpointProfile": "https_web""#;
    assert_eq!(data(&item(good)).unwrap().len(), 1);
    refused("-----BEGIN", "failed to parse JSON");
    refused("{}", "missing field `federationRelationships`");
    refused(&item(&format!("{good}, \"trustDomin\": 1")), "unknown field `trustDomin`");
    refused(&item(""), "could not parse item 0: trust domain is required");
    refused(&item(r#""trustDomain": "td.org""#), "could not parse item 0: bundle endpoint URL is required");
    refused(&item(&format!("{good}, \"trustDomainBundle\": {{}}")), "trustDomainBundle is no text");
    refused(&item(&format!("{good}, \"trustDomainBundle\": \"x\"")), "unable to parse bundle data");
    let der = format!("{good}, \"trustDomainBundle\": \"x\", \"trustDomainBundleFormat\": \"der\"");
    refused(&item(&der), "bundle format \"der\" is unsupported");
    let empty = format!("{good}, \"trustDomainBundle\": {{}}, \"trustDomainBundleFormat\": \"spiffe\"");
    refused(&item(&empty), "has no \"keys\"");
}

#[test]
fn what_was_done_stands_first_and_what_was_refused_after_it() {
    let (ok, asked) = (item_ok(), [web(), spiffe(), web()]);
    let refused = item_refusal(Code::AlreadyExists, Reason::RelationshipExists, "the message".into());
    let (done, lost): (Item<'_>, Item<'_>) = ((Some(&ok), Some(&asked[1])), (Some(&refused), None));
    let screen = Screen::show(|console| change::pretty(console, "create", &[lost, done, lost], &asked));
    assert_eq!(screen.out, format!("\n{SPIFFE}\n\n"), "an empty line before each, as SPIRE's tool prints");
    let told = format!(
        "Failed to create the following federation relationship (code: AlreadyExists, msg: \"the message\"):\n{WEB}\
         reason: relationship_exists\n"
    );
    assert_eq!(screen.err, format!("{told}{told}"));
    let failure = screen.result.expect_err("two were refused");
    assert_eq!(failure.what(), "failed to create one or more federation relationships");
    assert_eq!(failure.remedies(), [Reason::RelationshipExists.remedy()], "said once");
    let screen = Screen::show(|console| change::pretty(console, "update", &[done], &asked[1..2]));
    assert_eq!((screen.out, screen.err, screen.result), (format!("\n{SPIFFE}"), String::new(), Ok(())));
}

#[test]
fn deletions_and_refreshes_are_told_in_spires_words() {
    let delete = |status| {
        let result = batch_delete_federation_relationship_response::Result {
            status: Some(status),
            trust_domain: "example.org".into(),
        };
        let response = BatchDeleteFederationRelationshipResponse { results: vec![result] };
        Screen::show(|console| delete::pretty(console, &response))
    };
    assert_eq!(delete(item_ok()).out, "federation relationship deleted.\n");
    let oh_no = types::Status { code: 13, message: "oh! no".into(), reason: String::new() };
    let failure = delete(oh_no).result.expect_err("refused");
    assert!(
        failure
            .what()
            .starts_with("failed to delete federation relationship \"example.org\": Internal: oh! no")
    );
    let missing = item_refusal(Code::NotFound, Reason::RelationshipNotFound, "no relationship".into());
    let failure = delete(missing).result.expect_err("refused");
    assert_eq!(failure.remedies(), ["`federation list` shows which are there"]);
    let nothing = BatchDeleteFederationRelationshipResponse::default();
    assert!(Screen::show(|console| delete::pretty(console, &nothing)).result.is_err());
    let none = refresh::failure("spiffe://example.org", &Status::not_found("x"));
    assert_eq!(none.what(), "there is no federation relationship with trust domain \"spiffe://example.org\"");
    let other = refresh::failure("spiffe://example.org", &Status::internal("oh! no"));
    assert_eq!(other.what(), "failed to refresh bundle: Internal: oh! no");
}
