//! An authority of a trust domain that signs whatever a test needs, by the same code as the server.
//!
//! Times are given by the test; nothing here looks at a clock. Start at [`TestAuthority::new`] and
//! [`TestAuthority::issue`].

use spindle_ca::{CaSubject, SvidRequest, SvidSubject, X509Ca};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{
    Bundle, DnsName, Entropy, SpiffeId, Timestamp, TrustDomain, Validity, X509Authority, X509Bundle, X509Svid,
};

use crate::entropy::SeededEntropy;

/// How long before "now" what is issued begins, in seconds: as much as the server's.
const BACKDATE_SECS: i64 = 10;

/// Lifetime of an authority, in seconds.
const AUTHORITY_TTL_SECS: i64 = 30 * 24 * 3600;

/// Lifetime of an SVID, in seconds.
const SVID_TTL_SECS: i64 = 3600;

/// A self-signed authority of one trust domain.
pub struct TestAuthority {
    ca: X509Ca,
    serials: SeededEntropy,
}

/// An SVID with its key.
#[derive(Clone)]
pub struct TestIdentity {
    /// The SVID.
    pub svid: X509Svid,
    /// Its private key.
    pub key: Key,
}

impl TestAuthority {
    /// An authority that is valid at `now` and for 30 days after.
    pub fn new(trust_domain: &str, now: Timestamp) -> Self {
        let validity = Validity { not_before: now - BACKDATE_SECS, not_after: now + AUTHORITY_TTL_SECS };
        Self::with_validity(trust_domain, validity)
    }

    /// An authority with exactly that validity.
    pub fn with_validity(trust_domain: &str, validity: Validity) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let key = Key::generate(KeyType::EcP256).unwrap();
        // Seeded by the key, so that two authorities of one trust domain give different serials.
        let seed =
            key.subject_key_id().iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
        let serials = SeededEntropy::new(seed);
        let ca = X509Ca::self_signed(&trust_domain, key, &CaSubject::default(), validity, serials.serial())
            .unwrap();
        Self { ca, serials }
    }

    /// The authority as the server knows it.
    pub fn ca(&self) -> &X509Ca {
        &self.ca
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.ca.trust_domain()
    }

    /// The ID of `path` in the trust domain; the path starts with a slash.
    pub fn id(&self, path: &str) -> SpiffeId {
        self.trust_domain().member(path).unwrap()
    }

    /// The authority as others trust it.
    pub fn x509_authority(&self) -> X509Authority {
        X509Authority::parse(self.ca.certificate().clone()).unwrap()
    }

    /// The X.509 bundle with this one authority.
    pub fn x509_bundle(&self) -> X509Bundle {
        X509Bundle::new(self.trust_domain().clone(), [self.x509_authority()]).unwrap()
    }

    /// The SPIFFE bundle with this one authority, at sequence number 1.
    pub fn bundle(&self) -> Bundle {
        let x509_authorities = vec![self.x509_authority()];
        Bundle { x509_authorities, sequence: 1, ..Bundle::new(self.trust_domain().clone()) }
    }

    /// A new identity for `path`, valid at `now` and for an hour after.
    pub fn issue(&self, path: &str, now: Timestamp) -> TestIdentity {
        let validity = Validity { not_before: now - BACKDATE_SECS, not_after: now + SVID_TTL_SECS };
        self.issue_with(&self.id(path), Key::generate(KeyType::EcP256).unwrap(), validity)
    }

    /// An identity with exactly that ID and key; the validity is cut to the authority's.
    pub fn issue_with(&self, spiffe_id: &SpiffeId, key: Key, validity: Validity) -> TestIdentity {
        let svid = self.sign(spiffe_id, key.spki_der(), &[], validity);
        TestIdentity { svid, key }
    }

    /// Signs a public key, given as SubjectPublicKeyInfo in DER.
    pub fn sign(
        &self,
        spiffe_id: &SpiffeId,
        spki_der: &[u8],
        dns_names: &[DnsName],
        validity: Validity,
    ) -> X509Svid {
        let request = SvidRequest {
            spiffe_id: spiffe_id.clone(),
            spki_der,
            subject: SvidSubject::default(),
            dns_names,
            validity,
            serial: self.serials.serial(),
        };
        X509Svid::parse(self.ca.sign_x509_svid(&request).unwrap().chain).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use spindle_spiffe_core::verify_x509_svid;

    use super::*;
    use crate::clock::NOW;

    fn trusted(identity: &TestIdentity, by: &TestAuthority, now: Timestamp) -> bool {
        verify_x509_svid(identity.svid.chain(), &by.x509_bundle().into(), now).is_ok()
    }

    #[test]
    fn what_is_issued_verifies_against_the_bundle() {
        let authority = TestAuthority::new("prod.example", NOW);
        let identity = authority.issue("/web", NOW);
        assert!(trusted(&identity, &authority, NOW));
        assert_eq!(identity.svid.spiffe_id(), &authority.id("/web"));
        assert_eq!(identity.svid.spki_der(), identity.key.spki_der());
        assert_eq!(authority.bundle().x509_bundle(), authority.x509_bundle());
    }

    #[test]
    fn another_authority_of_the_same_name_is_not_trusted() {
        let (one, other) = (TestAuthority::new("prod.example", NOW), TestAuthority::new("prod.example", NOW));
        assert!(!trusted(&one.issue("/web", NOW), &other, NOW));
    }

    #[test]
    fn serials_do_not_repeat() {
        let authority = TestAuthority::new("prod.example", NOW);
        let (one, other) = (authority.issue("/web", NOW), authority.issue("/web", NOW));
        assert_ne!(one.svid.serial(), other.svid.serial());
    }

    #[test]
    fn an_identity_ends_when_it_was_told_to() {
        let authority = TestAuthority::new("prod.example", NOW);
        let validity = Validity { not_before: NOW, not_after: NOW + 60 };
        let key = Key::generate(KeyType::EcP384).unwrap();
        let identity = authority.issue_with(&authority.id("/web"), key, validity);
        assert_eq!(identity.svid.validity(), validity);
        let trusted_at = [-1, 0, 60, 61].map(|secs| trusted(&identity, &authority, NOW + secs));
        assert_eq!(trusted_at, [false, true, true, false]);
    }

    #[test]
    fn an_authority_may_be_over_before_the_test_begins() {
        let validity = Validity { not_before: NOW - 100, not_after: NOW - 50 };
        let authority = TestAuthority::with_validity("prod.example", validity);
        let identity = authority.issue("/web", NOW - 60);
        assert!(trusted(&identity, &authority, NOW - 60));
        assert!(!trusted(&identity, &authority, NOW));
    }
}
