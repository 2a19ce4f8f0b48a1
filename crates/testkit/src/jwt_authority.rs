//! A JWT authority that signs tokens at once.

use spindle_ca::{JwtSigner, JwtSvidRequest, SignedToken};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{Audience, JwtAuthority, SpiffeId, Timestamp, TrustDomain, Validity};

/// A key that signs JWT-SVIDs of one trust domain.
pub struct TestJwtAuthority(JwtSigner);

impl TestJwtAuthority {
    /// A new EC key with this ID, good for a day around `now`.
    pub fn new(trust_domain: &str, kid: &str, now: Timestamp) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().expect("a name for a test");
        let key = Key::generate(KeyType::EcP256).expect("the library makes keys");
        let validity = Validity { not_before: now - 43_200, not_after: now + 43_200 };
        Self(JwtSigner::new(&trust_domain, key, kid, validity).expect("a key ID for a test"))
    }

    /// What belongs into the bundle.
    pub fn authority(&self) -> JwtAuthority {
        self.0.authority().clone()
    }

    /// A token. With a `number`, that is in its `jti`.
    pub fn sign(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[String],
        validity: Validity,
        number: Option<u128>,
    ) -> SignedToken {
        let audience = Audience::new(audience.iter().cloned()).expect("an audience for a test");
        let signed = self.0.sign_jwt_svid(&JwtSvidRequest {
            spiffe_id,
            audience: &audience,
            issued_at: validity.not_before,
            expires_at: validity.not_after,
            issuer: None,
            token_id: number.map(u128::to_be_bytes),
        });
        signed.expect("the request is good")
    }
}
