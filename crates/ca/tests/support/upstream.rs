//! Upstream authorities of all kinds, as an operator keeps them in files.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::authority::NOW;

/// A certificate that may sign others, and its key.
pub(crate) struct Signing {
    pub(crate) certificate: CertificateDer<'static>,
    params: CertificateParams,
    pair: KeyPair,
}

/// How a signing certificate differs from the usual one.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) is_ca: IsCa,
    pub(crate) not_after: i64,
    pub(crate) usage: KeyUsagePurpose,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            is_ca: IsCa::Ca(BasicConstraints::Unconstrained),
            not_after: NOW + 30 * 86_400,
            usage: KeyUsagePurpose::KeyCertSign,
        }
    }
}

fn params(name: &str, shape: Shape) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = shape.is_ca;
    params.key_usages = vec![shape.usage];
    let date = |secs| time::OffsetDateTime::from_unix_timestamp(secs).expect("fixed by the test");
    (params.not_before, params.not_after) = (date(NOW - 100), date(shape.not_after));
    params
}

impl Signing {
    pub(crate) fn root(kind: &'static SignatureAlgorithm) -> Self {
        Self::root_with("root", kind, Shape::default())
    }

    pub(crate) fn root_with(name: &str, kind: &'static SignatureAlgorithm, shape: Shape) -> Self {
        let pair = match kind {
            kind if kind == &rcgen::PKCS_RSA_SHA256 => {
                KeyPair::generate_rsa_for(kind, rcgen::RsaKeySize::_3072)
            }
            kind => KeyPair::generate_for(kind),
        };
        let (pair, params) = (pair.expect("a key"), params(name, shape));
        let certificate = params.self_signed(&pair).expect("a root").der().clone();
        Self { certificate, params, pair }
    }

    /// Another one, signed by this one.
    pub(crate) fn below(&self, name: &str, kind: &'static SignatureAlgorithm, shape: Shape) -> Self {
        let (pair, mut params) = (KeyPair::generate_for(kind).expect("a key"), params(name, shape));
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&self.params, &self.pair);
        let certificate = params.signed_by(&pair, &issuer).expect("an intermediate").der().clone();
        Self { certificate, params, pair }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.pair.serialized_der()).into()
    }
}
