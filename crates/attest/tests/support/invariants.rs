//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use spindle_attest::x509pop::{
    Challenge, Circumstances, Mode, PathTemplate, Payload, Response, Roots, Settings, Verifier,
};
use spindle_spiffe_core::{Timestamp, TrustDomain, X509Bundle};

/// An accepted message is printed and understood again, and what a stranger shows is not trusted where nobody is.
pub(crate) fn node_payload(input: &[u8]) {
    let trust_domain: TrustDomain = "td".parse().unwrap();
    let own_bundle = &X509Bundle::empty(trust_domain.clone());
    let (trust_domain, now) = (&trust_domain, Timestamp::from_unix_secs(1_800_000_000));
    let circumstances = Circumstances { trust_domain, own_bundle, client_ip: None, now, nonce: [0; 32] };
    for mode in [Mode::ExternalPki(Roots::default()), Mode::Spiffe { prefix: "/".into() }] {
        let fault = Verifier::new(Settings::new(mode)).begin(input, &circumstances).err().unwrap();
        assert!(!fault.to_string().is_empty() && !fault.reason().code().is_empty());
    }
    let Ok(payload) = Payload::parse(input) else { return };
    assert_eq!(Payload::parse(&payload.to_json()).unwrap(), payload);
}

/// Accepted messages are printed and understood again.
pub(crate) fn node_proof(input: &[u8]) {
    if let Ok(challenge) = Challenge::parse(input) {
        assert_eq!(Challenge::parse(&challenge.to_json()).unwrap(), challenge);
    }
    if let Ok(response) = Response::parse(input) {
        assert_eq!(Response::parse(&response.to_json()).unwrap(), response);
    }
}

/// An accepted template begins a path; a refused one is told why.
pub(crate) fn path_template(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match PathTemplate::parse(text) {
        Ok(_) => assert!(text.trim_start_matches(|c: char| c != '/').starts_with('/')),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
