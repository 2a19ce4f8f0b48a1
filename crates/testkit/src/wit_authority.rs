//! A WIT authority that signs tokens at once.

use spindle_ca::{SignedToken, WitSigner, WitSvidRequest, confirmation_key};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{SpiffeId, Timestamp, TrustDomain, Validity, WitAuthority};

/// A key that signs WIT-SVIDs of one trust domain.
pub struct TestWitAuthority(WitSigner);

impl TestWitAuthority {
    /// A new EC key with this ID, good for a day around `now`.
    pub fn new(trust_domain: &str, kid: &str, now: Timestamp) -> Self {
        let validity = Validity { not_before: now - 43_200, not_after: now + 43_200 };
        Self::with_validity(trust_domain, kid, validity)
    }

    /// A new EC key with this ID and lifetime.
    pub fn with_validity(trust_domain: &str, kid: &str, validity: Validity) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().expect("a name for a test");
        let key = Key::generate(KeyType::EcP256).expect("the library makes keys");
        Self(WitSigner::new(&trust_domain, key, kid, validity).expect("a key ID for a test"))
    }

    /// What belongs into the bundle.
    pub fn authority(&self) -> WitAuthority {
        self.0.authority().clone()
    }

    /// A token that is bound to a public key, as `SubjectPublicKeyInfo` in DER, with `number` in its `jti`.
    pub fn sign(
        &self,
        spiffe_id: &SpiffeId,
        public_key: &[u8],
        algorithm: &str,
        validity: Validity,
        number: u128,
    ) -> SignedToken {
        let signed = self.0.sign_wit_svid(&WitSvidRequest {
            spiffe_id,
            confirmation: &confirmation_key(public_key, algorithm).expect("a key for a test"),
            issued_at: validity.not_before,
            expires_at: validity.not_after,
            issuer: None,
            token_id: number.to_be_bytes(),
        });
        signed.expect("the request is good")
    }
}
