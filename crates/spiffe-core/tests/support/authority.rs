//! A throw-away authority for tests: makes good certificates, and bad ones where a test changes the parameters.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper that fails ends the test that called it")]

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{
    Bundle, SpiffeId, Timestamp, TokenAuthority, TrustDomain, X509Authority, X509Bundle, X509Bundles,
};
use time::OffsetDateTime;

/// When all tests take place.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

const HOUR: i64 = 3600;

/// A signing certificate with its key.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) spki: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn trust_domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let at = |time: Timestamp| OffsetDateTime::from_unix_timestamp(time.unix_secs()).unwrap();
    (params.not_before, params.not_after) = (at(not_before), at(not_after));
}

/// An extension by its OID below 2.5.29, with ready-made content.
pub(crate) fn extension(arc: u64, critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, arc], content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// Parameters of a proper leaf of that name.
pub(crate) fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "test");
    params.subject_alt_names = vec![uri(name)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, NOW - HOUR, NOW + HOUR);
    params
}

/// Parameters of a proper signing certificate of that trust domain.
pub(crate) fn ca_params(trust_domain: &str, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, NOW - 24 * HOUR, NOW + 24 * HOUR);
    params
}

impl Authority {
    /// A root of that trust domain.
    pub(crate) fn root(trust_domain: &str) -> Self {
        Self::root_from(ca_params(trust_domain, &format!("root of {trust_domain}")))
    }

    /// A root with other parameters.
    pub(crate) fn root_from(params: CertificateParams) -> Self {
        Self::root_of_key(params, KeyPair::generate().unwrap())
    }

    /// A root with a given key.
    pub(crate) fn root_of_key(params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            spki: rcgen::PublicKeyData::subject_public_key_info(&key),
            issuer: Issuer::new(params, key),
        }
    }

    /// A signing certificate below this one.
    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self {
            certificate,
            spki: rcgen::PublicKeyData::subject_public_key_info(&key),
            issuer: Issuer::new(params, key),
        }
    }

    /// A proper leaf.
    pub(crate) fn leaf(&self, name: &str) -> CertificateDer<'static> {
        self.sign(&leaf_params(name))
    }

    /// A leaf whose parameters a test has changed.
    pub(crate) fn leaf_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = leaf_params(name);
        change(&mut params);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn authority(&self) -> X509Authority {
        X509Authority::parse(self.certificate.clone()).unwrap()
    }

    /// The bundle of one trust domain with this root alone.
    pub(crate) fn bundle(&self, name: &str) -> X509Bundle {
        X509Bundle::new(trust_domain(name), [self.authority()]).unwrap()
    }

    pub(crate) fn bundles(&self, name: &str) -> X509Bundles {
        self.bundle(name).into()
    }
}

/// The `keys` of a bundle's document.
pub(crate) fn printed_keys(bundle: &Bundle) -> Vec<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_str(&bundle.to_json()).unwrap();
    document["keys"].as_array().unwrap().clone()
}

/// A bundle of these roots without JWT keys.
pub(crate) fn spiffe_bundle(name: &str, roots: &[&Authority]) -> Bundle {
    let mut bundle = Bundle::new(trust_domain(name));
    bundle.x509_authorities = roots.iter().map(|root| root.authority()).collect();
    bundle
}

/// A bundle with one X.509 root, an EC key for JWT-SVIDs and one for WIT-SVIDs, sequence and hint.
pub(crate) fn mixed_bundle(name: &str) -> Bundle {
    let mut bundle = spiffe_bundle(name, &[&Authority::root(name)]);
    bundle.jwt_authorities = vec![token_authority("key-1")];
    bundle.wit_authorities = vec![token_authority("key-2")];
    (bundle.sequence, bundle.refresh_hint_secs) = (7, Some(300));
    bundle
}

/// A JWT or WIT authority with a fresh key.
pub(crate) fn token_authority(kid: &str) -> TokenAuthority {
    let spki = rcgen::PublicKeyData::subject_public_key_info(&KeyPair::generate().unwrap());
    TokenAuthority::new(kid, &spki, None, false).unwrap()
}
