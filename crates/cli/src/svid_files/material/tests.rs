use spindle_proto::workload::X509svid;
use spindle_testkit::{NOW, TestAuthority};

use super::*;

fn message(change: impl FnOnce(&mut X509svidResponse)) -> X509svidResponse {
    let authority = TestAuthority::new("example.org", NOW);
    let identity = authority.issue("/web", NOW);
    let svid = X509svid {
        spiffe_id: "spiffe://example.org/web".into(),
        x509_svid: identity.svid.to_der().into(),
        x509_svid_key: identity.key.pkcs8_der().to_vec().into(),
        bundle: authority.x509_bundle().to_der().into(),
        hint: String::new(),
    };
    let mut message = X509svidResponse { svids: vec![svid], ..X509svidResponse::default() };
    change(&mut message);
    message
}

#[test]
fn a_key_belongs_to_its_certificate() {
    assert_eq!(X509Material::read(&message(|_| {}), NOW).unwrap().identities.len(), 1);
    let stranger = TestAuthority::new("example.org", NOW).issue("/web", NOW).key.pkcs8_der().to_vec();
    let mixed = message(|message| message.svids[0].x509_svid_key = stranger.into());
    let fault = X509Material::read(&mixed, NOW).err().expect("another key");
    assert!(fault.what().contains("is not that of its certificate"), "{fault}");
}

#[test]
fn wap_18_a_message_that_lacks_something_is_worth_nothing() {
    let lacks: [fn(&mut X509svid); 4] = [
        |svid| svid.spiffe_id.clear(),
        |svid| svid.x509_svid.clear(),
        |svid| svid.x509_svid_key.clear(),
        |svid| svid.bundle.clear(),
    ];
    for lack in lacks {
        assert!(X509Material::read(&message(|message| lack(&mut message.svids[0])), NOW).is_err());
    }
    assert!(X509Material::read(&X509svidResponse::default(), NOW).is_err());
}

#[test]
fn jwt_bundles_are_key_sets_by_trust_domain() {
    let read = |name: &str, keys: &str| {
        let bundles = [(name.to_owned(), keys.to_owned().into())].into();
        JwtBundles::read(&JwtBundlesResponse { bundles }).map_err(|fault| fault.what().to_owned())
    };
    let bundles = read("example.org", "{\"keys\":[]}").unwrap();
    assert_eq!(bundles.0.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    assert!(read("Not A Domain", "{\"keys\":[]}").is_err());
    assert!(read("example.org", "{}").unwrap_err().contains("no key set"));
    assert!(read("example.org", "nonsense").is_err());
    assert!(JwtBundles::read(&JwtBundlesResponse::default()).is_err());
}

#[test]
fn a_tokens_end_is_read_from_it() {
    let token = |claims: &str| {
        let svid = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        Token::read(&Jwtsvid { svid, ..Jwtsvid::default() })
    };
    assert_eq!(token("{\"exp\":1700000000}").unwrap().expires_at, Timestamp::from_unix_secs(1_700_000_000));
    assert!(token("{}").is_err() && token("nonsense").is_err());
    assert!(Token::read(&Jwtsvid::default()).is_err());
}
