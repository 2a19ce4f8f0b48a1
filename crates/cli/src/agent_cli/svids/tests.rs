use spindle_testkit::{NOW, TestAuthority};

use super::*;
use crate::agent_cli::write;
use crate::output::json::ToJson;
use crate::testing::Screen;

fn response(change: impl FnOnce(&mut X509svid)) -> X509svidResponse {
    let authority = TestAuthority::new("example.org", NOW);
    let identity = authority.issue("/web", NOW);
    let mut svid = X509svid {
        spiffe_id: "spiffe://example.org/web".into(),
        x509_svid: identity.svid.to_der().into(),
        x509_svid_key: identity.key.pkcs8_der().to_vec().into(),
        bundle: authority.x509_bundle().to_der().into(),
        hint: "internal".into(),
    };
    change(&mut svid);
    let other = TestAuthority::new("other.org", NOW).x509_bundle().to_der();
    let federated_bundles = [("spiffe://other.org".to_owned(), other.into())].into();
    X509svidResponse { svids: vec![svid], crl: vec![], federated_bundles }
}

fn refused(response: &X509svidResponse, expected: &str) {
    let fault = verify(response, NOW).err().expect(expected);
    assert!(fault.what().contains(expected), "{fault}");
}

#[test]
fn a_good_answer_is_shown_with_spires_labels() {
    let fetched = verify(&response(|_| {}), NOW).expect("good");
    let mut out = Vec::new();
    print(&mut out, &fetched, Duration::from_millis(3), Foreign::Id).unwrap();
    let text = String::from_utf8(out).unwrap();
    let labels: Vec<_> = text.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
    assert_eq!(
        labels,
        [
            "Received 1 svid after 3ms",
            "",
            "SPIFFE ID:",
            "Hint:",
            "SVID Valid After:",
            "SVID Valid Until:",
            "CA #1 Valid After:",
            "CA #1 Valid Until:",
            "[spiffe://other.org] CA #1 Valid After:",
            "[spiffe://other.org] CA #1 Valid Until:",
            "",
        ]
    );
    assert!(text.contains("SVID Valid Until:\t2027-01-15 09:00:00 +0000 UTC\n"), "{text}");
    let mut watched = Vec::new();
    print(&mut watched, &fetched, Duration::ZERO, Foreign::Name).unwrap();
    assert!(String::from_utf8(watched).unwrap().contains("\n[other.org] CA #1 Valid After:\t"));
}

#[test]
fn an_answer_that_does_not_verify_is_refused() {
    refused(&X509svidResponse::default(), "no SVID");
    refused(
        &response(|svid| svid.spiffe_id = "spiffe://example.org/other".into()),
        "spiffe://example.org/other",
    );
    refused(&response(|svid| svid.spiffe_id = "web".into()), "\"web\"");
    refused(&response(|svid| svid.x509_svid = vec![1, 2].into()), "is not valid");
    refused(&response(|svid| svid.x509_svid = vec![].into()), "is not valid");
    refused(&response(|svid| svid.bundle = vec![1].into()), "is not valid");
    let stranger = TestAuthority::new("example.org", NOW).x509_bundle().to_der();
    refused(&response(|svid| svid.bundle = stranger.into()), "is not valid");
    let mut federated = response(|_| {});
    federated.federated_bundles.insert("spiffe://third.org".into(), vec![9].into());
    refused(&federated, "the bundle of spiffe://third.org");
    let fault = verify(&response(|_| {}), NOW + 7200).err().expect("expired");
    assert!(fault.remedies()[0].contains("clock"));
}

#[test]
fn files_get_spires_names_and_the_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let fetched = verify(&response(|_| {}), NOW).expect("good");
    let screen = Screen::show(|console| write::write(console, dir.path(), &fetched));
    screen.result.unwrap();
    assert_eq!(screen.out.lines().count(), 4);
    assert!(screen.out.contains("Writing federated bundle #0 for trust domain spiffe://other.org to file "));
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["bundle.0.pem", "federated_bundle.0.0.pem", "svid.0.key", "svid.0.pem"]);
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("svid.0.key"), mode("svid.0.pem")), (0o600, 0o644));
}

#[test]
fn json_has_the_whole_answer() {
    let value = response(|svid| svid.x509_svid_key = vec![1, 2, 3].into()).to_json();
    assert_eq!(value["svids"][0]["x509_svid_key"], "AQID");
    assert_eq!(value["svids"][0]["hint"], "internal");
    assert!(value["federated_bundles"]["spiffe://other.org"].is_string());
    assert_eq!(value["crl"], serde_json::json!([]));
}
