//! What must hold for any input of each parser. Shared by the random tests here and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use std::str::from_utf8;

use spindle_spiffe_core::bundle_document::{self, map};
use spindle_spiffe_core::certificate::split_der_certificates;
use spindle_spiffe_core::public_key::PublicKey;
use spindle_spiffe_core::{
    Audience, Bundle, BundleEndpointUrl, DnsName, EntryId, Hint, JwtValidation, ProofTarget, ProofValidation,
    ReplayCache, Selector, SpiffeId, Timestamp, TrustDomain, WitValidation, X509Bundle, X509Bundles,
    X509Svid, pem, validate_jwt_svid, validate_wit_svid, verify_x509_svid,
};

fn td() -> TrustDomain {
    "td".parse().unwrap()
}

/// An accepted ID is its own text, made of its parts, within its bounds.
pub(crate) fn spiffe_id(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    assert_eq!(id.as_str(), text);
    assert!(text.len() <= 2048 && text.is_ascii());
    assert_eq!(format!("spiffe://{}{}", id.trust_domain_name(), id.path()), text);
    assert_eq!(id.trust_domain().member(id.path()).unwrap(), id);
    assert_eq!(id.trust_domain_name().parse::<TrustDomain>().unwrap(), id.trust_domain());
}

/// An accepted selector is its own text, and its parts make it again.
pub(crate) fn selector(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let Ok(selector) = text.parse::<Selector>() else { return };
    assert_eq!(selector.to_string(), text);
    assert!(!selector.kind().contains(':') && !selector.kind().is_empty() && !selector.value().is_empty());
    assert_eq!(Selector::new(selector.kind(), selector.value()).unwrap(), selector);
}

/// An accepted DNS name is its own text and within the bounds of RFC 1035.
pub(crate) fn dns_name(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let Ok(name) = text.parse::<DnsName>() else { return };
    assert_eq!(name.as_str(), text);
    assert!(text.is_ascii() && text.len() <= 253);
    assert!(text.split('.').all(|label| (1..=63).contains(&label.len())));
    assert!(text.bytes().skip(1).all(|byte| byte != b'*'));
}

/// An accepted audience, of the lines of the input, is what was given without what is empty, and within its bounds.
pub(crate) fn audience(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let given: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let Ok(audience) = Audience::new(given.clone()) else { return };
    let kept: Vec<String> = given.into_iter().filter(|value| !value.is_empty()).collect();
    assert_eq!(audience.values(), kept);
    assert!((1..=100).contains(&kept.len()) && kept.iter().map(String::len).sum::<usize>() <= 16 * 1024);
    assert!(audience.to_string().chars().count() <= 257);
}

/// The small texts of an entry.
pub(crate) fn entry_texts(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    if let Ok(id) = text.parse::<EntryId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(hint) = text.parse::<Hint>() {
        assert_eq!(hint.as_str(), text);
    }
}

/// Cutting and joining agree.
pub(crate) fn split_der(input: &[u8]) {
    let Ok(certificates) = split_der_certificates(input) else { return };
    assert_eq!(certificates.iter().flat_map(|one| one.to_vec()).collect::<Vec<_>>(), input);
}

/// An accepted SVID has a path, keeps its bytes, and is trusted by nobody who knows no authority.
pub(crate) fn x509_svid(input: &[u8]) {
    let Ok(svid) = X509Svid::from_der(input) else { return };
    assert!(!svid.spiffe_id().path().is_empty());
    assert_eq!(svid.to_der(), input);
    assert_eq!(X509Svid::parse(svid.chain().to_vec()).unwrap(), svid);
    assert!(svid.serial_decimal().bytes().all(|byte| byte.is_ascii_digit()));
    assert!(verify_x509_svid(svid.chain(), &X509Bundles::new(), Timestamp::default()).is_err());
}

/// The SVID in a chain whose last certificate is the one trusted root, if it is valid at its beginning.
pub(crate) fn verified(input: &[u8]) -> Option<X509Svid> {
    let mut chain = split_der_certificates(input).ok()?;
    let root = X509Bundle::from_der(td(), &chain.pop()?).ok()?;
    let now = X509Svid::parse(chain.clone()).ok()?.validity().not_before;
    verify_x509_svid(&chain, &root.into(), now).ok()
}

/// What was verified is a member of the trust domain of the root, and is not trusted under any other name or root.
pub(crate) fn verified_chain(input: &[u8]) {
    let Some(svid) = verified(input) else { return };
    assert_eq!(svid.spiffe_id().trust_domain(), td());
    let root = split_der_certificates(input).unwrap().pop().unwrap();
    let now = svid.validity().not_before;
    let other = X509Bundle::from_der("other".parse().unwrap(), &root).unwrap();
    assert!(verify_x509_svid(svid.chain(), &other.into(), now).is_err());
    let itself = X509Bundle::from_der(td(), svid.leaf());
    assert!(itself.is_err() || verify_x509_svid(svid.chain(), &itself.unwrap().into(), now).is_err());
}

/// An accepted bundle survives both of its forms.
pub(crate) fn x509_bundle(input: &[u8]) {
    let Ok(bundle) = X509Bundle::from_der(td(), input) else { return };
    assert_eq!(X509Bundle::from_der(td(), &bundle.to_der()).unwrap(), bundle);
    if !bundle.is_empty() {
        assert_eq!(X509Bundle::from_pem(td(), bundle.to_pem().as_bytes()).unwrap(), bundle);
    }
}

/// Accepted PEM text prints to text with the same certificates.
pub(crate) fn pem_text(input: &[u8]) {
    let Ok(certificates) = pem::certificates_from_pem(input) else { return };
    let text = pem::certificates_to_pem(&certificates);
    assert_eq!(pem::certificates_from_pem(text.as_bytes()).unwrap(), certificates);
}

/// What was understood of a document is printed and understood again, with nothing passed over.
pub(crate) fn bundle_document(input: &[u8]) {
    let Ok(parsed) = bundle_document::parse(td(), input) else { return };
    let again = bundle_document::parse(td(), parsed.bundle.to_json().as_bytes()).unwrap();
    assert_eq!(again.bundle, parsed.bundle);
    assert_eq!(again.ignored, []);
}

/// As for documents.
pub(crate) fn bundle_map(input: &[u8]) {
    let Ok(parsed) = map::parse(input) else { return };
    assert_eq!(map::parse(map::to_json(parsed.values()).unwrap().as_bytes()).unwrap(), parsed);
}

/// An accepted key has one DER form and survives JWK.
pub(crate) fn public_key(input: &[u8]) {
    let Ok(key) = PublicKey::from_spki_der(input) else { return };
    assert_eq!(key.to_spki_der(), input);
    assert_eq!(PublicKey::from_jwk(&key.to_jwk()).unwrap(), key);
}

/// An accepted address is its own text, over https, and names nobody.
pub(crate) fn bundle_endpoint_url(input: &[u8]) {
    let Ok(text) = from_utf8(input) else { return };
    let Ok(url) = text.parse::<BundleEndpointUrl>() else { return };
    assert_eq!(url.as_str(), text);
    assert!(text.len() <= 2048 && text[..8].eq_ignore_ascii_case("https://") && text.len() > 8);
    let authority = text[8..].split(['/', '?', '#']).next().unwrap();
    assert!(!authority.is_empty() && !authority.contains('@'), "{text}");
}

/// A bundle document in the first line, the rest behind it.
fn bundle_and_rest(input: &[u8]) -> Option<(Bundle, &str)> {
    let (document, rest) = from_utf8(input).ok()?.split_once('\n')?;
    Some((Bundle::from_json(td(), document.as_bytes()).ok()?, rest))
}

/// When tokens are shown.
const SHOWN_AT: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

/// Whether the token in the second line is a JWT-SVID for `db` by the bundle in the first. An accepted one is a member's,
/// is for nobody else, ends, is trusted under no other bundle, and can be told when it is shown again.
pub(crate) fn accepted_jwt_svid(input: &[u8]) -> bool {
    let Some((bundle, token)) = bundle_and_rest(input) else { return false };
    let shown = |bundle: &Bundle, audience, now| {
        validate_jwt_svid(token, bundle, &JwtValidation::new([audience], now).unwrap())
    };
    let Ok(svid) = shown(&bundle, "db", SHOWN_AT) else { return false };
    assert!(svid.spiffe_id().is_member_of(&td()) && svid.audience().iter().any(|one| one == "db"));
    assert!(svid.audience().iter().any(|one| one == "other") || shown(&bundle, "other", SHOWN_AT).is_err());
    assert!(shown(&bundle, "db", svid.expires_at() + 60).is_err());
    assert!(shown(&Bundle::new(td()), "db", SHOWN_AT).is_err());
    let mut cache = ReplayCache::new(2);
    cache.admit(svid.sighting("db"), SHOWN_AT).unwrap();
    assert!(cache.admit(svid.sighting("db"), SHOWN_AT).is_err());
    true
}

/// As [`accepted_jwt_svid`], for targets without its answer.
pub(crate) fn jwt_svid(input: &[u8]) {
    accepted_jwt_svid(input);
}

/// Whether the token in the second line is a WIT-SVID by the bundle in the first, and the third line a proof for it. An
/// accepted one is a member's, and the proof is good for one target only.
pub(crate) fn accepted_wit_svid(input: &[u8]) -> bool {
    let Some((bundle, rest)) = bundle_and_rest(input) else { return false };
    let Some((token, proof)) = rest.split_once('\n') else { return false };
    let target = |uri: &str| ProofTarget::from_uri(&uri.parse().unwrap()).unwrap();
    let shown = |uri| {
        let wit = validate_wit_svid(token, &bundle, &WitValidation::new(SHOWN_AT)).ok()?;
        wit.prove(proof, &ProofValidation::new(&target(uri), SHOWN_AT)).ok()
    };
    let Some(proven) = shown("https://db/") else { return false };
    assert!(proven.spiffe_id().is_member_of(&td()) && !proven.claims().contains_key("aud"));
    assert!(shown("https://other/").is_none());
    true
}

/// As [`accepted_wit_svid`], for targets without its answer.
pub(crate) fn wit_svid(input: &[u8]) {
    accepted_wit_svid(input);
}
