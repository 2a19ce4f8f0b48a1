//! What holds for every SVID an authority signs, over random requests.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;

use std::sync::LazyLock;

use authority::*;
use proptest::prelude::*;
use spindle_ca::{SignError, SvidRequest, X509Ca};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{DnsName, X509Svid};

static CA: LazyLock<X509Ca> = LazyLock::new(|| authority(KeyType::EcP256));
static KEY: LazyLock<Key> = LazyLock::new(|| key(KeyType::EcP256));

proptest! {
    #[test]
    fn no_svid_outlives_its_authority(begin in -100_000i64..100_000, ttl in -10i64..400_000_000) {
        let wanted = span(NOW + begin, NOW + begin + ttl);
        let end = CA.validity().not_after;
        match sign(&CA, &SvidRequest { validity: wanted, ..request(KEY.spki_der()) }) {
            Ok(signed) => {
                let svid = X509Svid::parse(signed.chain).unwrap();
                prop_assert_eq!(svid.validity(), signed.validity);
                prop_assert_eq!(svid.validity().not_before, wanted.not_before);
                prop_assert_eq!(svid.validity().not_after, wanted.not_after.min(end));
            }
            Err(SignError::AuthorityOver { .. }) => prop_assert!(wanted.not_before > end),
            Err(SignError::Validity(_)) => prop_assert!(ttl < 0),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn an_svid_says_what_was_asked_and_nothing_else(
        path in "(/[a-zA-Z0-9._-]{1,20}[a-z]){1,6}",
        names in prop::collection::vec("[a-z]{1,20}\\.[a-z]{1,20}", 0..5),
        serial: [u8; 16],
    ) {
        let dns_names: Vec<DnsName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut serial = serial;
        serial[0] &= 0x7f;
        serial[15] |= 1;
        let spiffe_id = trust_domain().member(&path).unwrap();
        let request = SvidRequest { spiffe_id: spiffe_id.clone(), dns_names: &dns_names, serial, ..request(KEY.spki_der()) };
        let signed = sign(&CA, &request).unwrap();
        let svid = X509Svid::parse(signed.chain).unwrap();
        prop_assert_eq!(svid.spiffe_id(), &spiffe_id);
        prop_assert_eq!(svid.serial_decimal(), u128::from_be_bytes(serial).to_string());
        prop_assert_eq!(svid.serial(), &signed.serial);
        prop_assert_eq!(svid.spki_der(), KEY.spki_der());
        let certificate = parse(svid.leaf());
        let san = certificate.subject_alternative_name().unwrap().unwrap();
        prop_assert_eq!(san.value.general_names.len(), 1 + names.len());
        prop_assert_eq!(certificate.extensions().len(), 6);
    }
}
