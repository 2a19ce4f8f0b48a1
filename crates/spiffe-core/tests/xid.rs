//! The rows of SPIFFE-ID that this crate can show, one test each; the name starts with the row.

#[path = "support/authority.rs"]
mod authority;

use authority::{Authority, NOW, id, spiffe_bundle, trust_domain};
use rcgen::SanType;
use spindle_spiffe_core::bundle_document::map::{self, RepeatedTrustDomain};
use spindle_spiffe_core::entry::EntryError;
use spindle_spiffe_core::spiffe_id::SpiffeIdError;
use spindle_spiffe_core::trust_domain::TrustDomainError;
use spindle_spiffe_core::{SpiffeId, TrustDomain, VerifyError, X509Bundles, X509Svid, verify_x509_svid};

fn refused(text: &str) -> SpiffeIdError {
    match text.parse::<SpiffeId>() {
        Ok(id) => panic!("{text:?} was taken as {id}"),
        Err(error) => error,
    }
}

fn all_refused(texts: &[&str]) {
    for text in texts {
        refused(text);
    }
}

fn all_taken(texts: &[&str]) {
    for text in texts {
        match text.parse::<SpiffeId>() {
            Ok(id) => assert_eq!(id.as_str(), *text),
            Err(error) => panic!("{text:?} was refused: {error}"),
        }
    }
}

#[test]
fn xid_01_another_scheme_is_refused() {
    for text in
        ["https://td/a", "spiffe:td/a", "spiffe:/td/a", "", "td", "/td/a", "spiffe", "spiffe:", "spiffe:/"]
    {
        assert_eq!(refused(text), SpiffeIdError::Scheme, "{text}");
    }
}

#[test]
fn xid_02_an_empty_trust_domain_is_refused() {
    for text in ["spiffe://", "spiffe:///a"] {
        assert_eq!(refused(text), SpiffeIdError::TrustDomain(TrustDomainError::Length(0)), "{text}");
    }
}

#[test]
fn xid_03_a_query_even_an_empty_one_is_refused() {
    all_refused(&["spiffe://td/a?x=1", "spiffe://td/a?", "spiffe://td?x", "spiffe://td?"]);
}

#[test]
fn xid_04_a_fragment_even_an_empty_one_is_refused() {
    all_refused(&["spiffe://td/a#f", "spiffe://td/a#", "spiffe://td#f", "spiffe://td#"]);
}

#[test]
fn xid_05_user_information_is_refused() {
    all_refused(&["spiffe://u@td/a", "spiffe://u:p@td/a", "spiffe://@td/a"]);
}

#[test]
fn xid_06_a_port_even_an_empty_one_is_refused() {
    all_refused(&["spiffe://td:80/a", "spiffe://td:/a", "spiffe://td:80"]);
}

#[test]
fn xid_07_an_upper_case_trust_domain_is_refused() {
    assert_eq!(
        refused("spiffe://TD/a"),
        SpiffeIdError::TrustDomain(TrustDomainError::Byte { at: 0, byte: b'T' })
    );
    assert!("Td".parse::<TrustDomain>().is_err());
}

#[test]
fn xid_08_of_all_bytes_39_may_stand_in_a_trust_domain() {
    let mut taken = 0;
    for byte in 0..=u8::MAX {
        let bytes = [b"spiffe://t".as_slice(), &[byte], b"d/a"].concat();
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        let is_allowed = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        // A slash ends the name, which makes another valid ID.
        assert_eq!(text.parse::<SpiffeId>().is_ok(), is_allowed || byte == b'/', "byte {byte:#x}");
        taken += usize::from(is_allowed);
    }
    assert_eq!(taken, 39);
    no_high_byte_is_taken("spiffe://t{}d/a");
}

/// No byte of 0x80 to 0xff passes: not as a character of text, and not bare in a certificate, which is where bytes come in
/// that need not be text.
fn no_high_byte_is_taken(pattern: &str) {
    for character in '\u{80}'..='\u{ff}' {
        refused(&pattern.replace("{}", &character.to_string()));
    }
    let good = pattern.replace("{}", "-");
    let leaf = Authority::root("td").leaf(&good).to_vec();
    X509Svid::from_der(&leaf).expect("a good one");
    let at = leaf.windows(good.len()).position(|part| part == good.as_bytes()).expect("the ID is in the SAN");
    let at = at + good.find('-').expect("a dash");
    for byte in 0x80..=u8::MAX {
        let mut changed = leaf.clone();
        changed[at] = byte;
        assert!(X509Svid::from_der(&changed).is_err(), "byte {byte:#x}");
    }
}

#[test]
fn xid_09_percent_encoding_in_the_trust_domain_is_refused() {
    all_refused(&["spiffe://t%64/a", "spiffe://%74d/a"]);
}

#[test]
fn xid_10_names_that_look_like_addresses_or_break_dns_rules_are_plain_names() {
    all_taken(&[
        "spiffe://10.0.0.1/a",
        "spiffe://1.2.3.4.5/a",
        "spiffe://_x-./a",
        "spiffe://a..b/a",
        "spiffe://../a",
    ]);
    all_refused(&["spiffe://[::1]/a", "spiffe://::1/a"]);
}

#[test]
fn xid_11_percent_encoding_in_the_path_is_refused() {
    all_refused(&["spiffe://td/a%2Fb", "spiffe://td/%41", "spiffe://td/%"]);
}

#[test]
fn xid_12_an_empty_segment_is_refused() {
    assert_eq!(refused("spiffe://td//a"), SpiffeIdError::EmptySegment { segment: 1 });
    assert_eq!(refused("spiffe://td/a//b"), SpiffeIdError::EmptySegment { segment: 2 });
}

#[test]
fn xid_13_dot_segments_are_refused_and_longer_dots_are_not() {
    assert_eq!(refused("spiffe://td/./a"), SpiffeIdError::DotSegment { segment: 1 });
    assert_eq!(refused("spiffe://td/a/.."), SpiffeIdError::DotSegment { segment: 2 });
    all_taken(&["spiffe://td/...", "spiffe://td/.a", "spiffe://td/a.", "spiffe://td/..a"]);
}

#[test]
fn xid_14_a_slash_at_the_end_is_refused() {
    assert_eq!(refused("spiffe://td/"), SpiffeIdError::EmptySegment { segment: 1 });
    assert_eq!(refused("spiffe://td/a/"), SpiffeIdError::EmptySegment { segment: 2 });
}

#[test]
fn xid_15_of_all_bytes_65_may_stand_in_a_segment() {
    let mut taken = 0;
    for byte in 0..=u8::MAX {
        let bytes = [b"spiffe://td/a".as_slice(), &[byte], b"b"].concat();
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        let is_allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        // A slash ends the segment, which makes another valid ID.
        assert_eq!(text.parse::<SpiffeId>().is_ok(), is_allowed || byte == b'/', "byte {byte:#x}");
        taken += usize::from(is_allowed);
    }
    assert_eq!(taken, 65);
    no_high_byte_is_taken("spiffe://td/a{}b");
}

#[test]
fn xid_16_a_path_may_have_levels_and_may_be_absent() {
    assert_eq!(id("spiffe://td").path(), "");
    assert_eq!(id("spiffe://td/a/b/c").path(), "/a/b/c");
    assert_eq!(id("spiffe://td/a/b/c").trust_domain(), trust_domain("td"));
}

#[test]
fn xid_17_an_id_of_2048_bytes_is_taken_and_survives_a_certificate() {
    let text = format!("spiffe://td/{}", "a".repeat(2048 - 12));
    assert_eq!(text.len(), 2048);
    let root = Authority::root("td");
    let svid = verify_x509_svid(&[root.leaf(&text)], &root.bundles("td"), NOW).unwrap();
    assert_eq!(svid.spiffe_id().as_str(), text);
}

#[test]
fn xid_18_an_id_of_2049_bytes_is_refused_and_cannot_be_composed() {
    assert_eq!(refused(&format!("spiffe://td/{}", "a".repeat(2049 - 12))), SpiffeIdError::Length(2049));
    let path = format!("/{}", "a".repeat(2049 - 12));
    assert_eq!(trust_domain("td").member(&path), Err(SpiffeIdError::Length(2049)));
}

#[test]
fn xid_19_a_trust_domain_has_at_most_255_bytes() {
    all_taken(&[&format!("spiffe://{}/a", "t".repeat(255))]);
    let long = "t".repeat(256);
    assert_eq!(
        refused(&format!("spiffe://{long}/a")),
        SpiffeIdError::TrustDomain(TrustDomainError::Length(256))
    );
    assert_eq!(long.parse::<TrustDomain>(), Err(TrustDomainError::Length(256)));
}

#[test]
fn xid_20_multibyte_characters_are_refused_everywhere() {
    for strange in ['\u{80}', 'ß', 'é', '\u{200b}', '中', '😀', '\u{ff0e}'] {
        all_refused(&[&format!("spiffe://t{strange}d/a"), &format!("spiffe://td/a{strange}b")]);
    }
}

#[test]
fn xid_21_paths_that_differ_in_case_are_two_identities() {
    assert_ne!(id("spiffe://td/A"), id("spiffe://td/a"));
    let root = Authority::root("td");
    let svid = verify_x509_svid(&[root.leaf("spiffe://td/A")], &root.bundles("td"), NOW).unwrap();
    assert!(svid.require_id(&id("spiffe://td/a")).is_err());
}

#[test]
fn xid_22_upper_case_in_scheme_or_trust_domain_never_makes_a_second_identity() {
    all_refused(&["SPIFFE://td/a", "Spiffe://td/a", "SPIFFE://Td/a", "spiffe://Td/a"]);
}

#[test]
fn xid_27_a_changed_bit_in_the_name_breaks_the_signature() {
    let root = Authority::root("td");
    let mut der = root.leaf("spiffe://td/web").to_vec();
    let at = der.windows(3).position(|window| window == b"web").unwrap();
    der[at] ^= 1;
    let error = verify_x509_svid(&[der.into()], &root.bundles("td"), NOW).unwrap_err();
    let VerifyError::Path { spiffe_id, source } = error else { panic!("{error}") };
    assert_eq!(spiffe_id, id("spiffe://td/veb"));
    assert_eq!(source, webpki::Error::InvalidSignatureForPublicKey);
}

#[test]
fn xid_28_further_names_in_a_certificate_do_no_harm() {
    let root = Authority::root("td");
    let leaf = root.leaf_with("spiffe://td/web", |params| {
        params.subject_alt_names.push(SanType::DnsName("web.example.org".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    });
    verify_x509_svid(&[leaf], &root.bundles("td"), NOW).unwrap();
}

#[test]
fn xid_29_a_signed_request_is_no_svid() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![authority::uri("spiffe://td/web")];
    let request = params.serialize_request(&key).unwrap();
    assert!(X509Svid::from_der(request.der()).is_err());
}

#[test]
fn xid_30_an_authority_of_another_trust_domain_is_no_authority_though_its_bundle_is_known() {
    let (a, b) = (Authority::root("a"), Authority::root("b"));
    let bundles: X509Bundles = [a.bundle("a"), b.bundle("b")].into_iter().collect();
    verify_x509_svid(&[a.leaf("spiffe://a/web")], &bundles, NOW).unwrap();
    let error = verify_x509_svid(&[b.leaf("spiffe://a/web")], &bundles, NOW).unwrap_err();
    assert!(matches!(error, VerifyError::Path { source: webpki::Error::UnknownIssuer, .. }), "{error}");
}

#[test]
fn xid_32_an_entry_for_a_member_of_another_trust_domain_is_refused() {
    let error = spindle_spiffe_core::entry::check_workload_id(&id("spiffe://other/x"), &trust_domain("td"))
        .unwrap_err();
    assert!(matches!(error, EntryError::ForeignId { .. }), "{error}");
}

/// There is no federation relationship yet to refuse. What there is to federate with are bundles, and they have no second
/// place for one name.
#[test]
fn xid_34_two_trust_domains_of_one_name_cannot_be_known_at_once() {
    let (ours, theirs) = (Authority::root("td"), Authority::root("td"));
    let mut bundles: X509Bundles = [ours.bundle("td"), theirs.bundle("td")].into_iter().collect();
    assert_eq!(bundles.len(), 1);
    verify_x509_svid(&[theirs.leaf("spiffe://td/web")], &bundles, NOW).unwrap();
    verify_x509_svid(&[ours.leaf("spiffe://td/web")], &bundles, NOW).unwrap_err();
    bundles.insert(ours.bundle("td"));
    verify_x509_svid(&[theirs.leaf("spiffe://td/web")], &bundles, NOW).unwrap_err();
    let twice = map::to_json([&spiffe_bundle("td", &[&ours]), &spiffe_bundle("td", &[&theirs])]);
    assert_eq!(twice, Err(RepeatedTrustDomain(trust_domain("td"))));
}
