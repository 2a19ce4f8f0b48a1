//! An authority of an operator's own, which knows nothing of SPIFFE and gives nodes their certificates.
//!
//! Start at [`NodePki::root`] and [`NodePki::node`].

use std::net::IpAddr;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    RsaKeySize, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Timestamp, Validity};

use crate::TestFolder;

const DAY: i64 = 24 * 3600;

/// A certificate that signs others, with its key.
pub struct NodePki {
    name: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    now: Timestamp,
}

/// Kinds of key that nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKeyKind {
    /// EC on P-256.
    P256,
    /// EC on P-384.
    P384,
    /// EC on P-521.
    P521,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// Ed25519, which cannot prove itself to SPIRE.
    Ed25519,
}

/// What is to stand in a node's certificate.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// The subject; none leaves it empty.
    pub common_name: Option<String>,
    /// URI names.
    pub uris: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// When it is valid.
    pub validity: Validity,
    /// Its key.
    pub key: NodeKeyKind,
    /// Whether its key usage has digitalSignature, or keyAgreement instead.
    pub may_sign: bool,
}

/// A node's certificate with its key.
pub struct NodeCertificate {
    /// The certificate.
    pub der: CertificateDer<'static>,
    key: KeyPair,
}

impl NodeRequest {
    /// A proper certificate for a node of that name, valid for a day.
    pub fn new(common_name: &str, now: Timestamp) -> Self {
        Self {
            common_name: Some(common_name.into()),
            uris: Vec::new(),
            addresses: Vec::new(),
            validity: Validity { not_before: now - 10, not_after: now + DAY },
            key: NodeKeyKind::P256,
            may_sign: true,
        }
    }
}

impl NodePki {
    /// A root that is valid for 30 days.
    pub fn root(name: &str, now: Timestamp) -> Self {
        Self::root_with(name, Validity { not_before: now - 10, not_after: now + 30 * DAY }, now)
    }

    /// A root with that validity, for nodes that live at `now`.
    pub fn root_with(name: &str, validity: Validity, now: Timestamp) -> Self {
        let (params, key) = (authority(name, validity), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { name: name.into(), certificate, issuer: Issuer::new(params, key), now }
    }

    /// An authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, NodeKeyKind::P256)
    }

    /// An authority below this one with that kind of key.
    pub fn intermediate_with(&self, name: &str, kind: NodeKeyKind) -> Self {
        let validity = Validity { not_before: self.now - 10, not_after: self.now + 30 * DAY };
        let (params, key) = (authority(name, validity), kind.generate());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { name: name.into(), certificate, issuer: Issuer::new(params, key), now: self.now }
    }

    /// The certificate of `other`'s name and key, signed by this authority: a second way up.
    pub fn cross_sign(&self, other: &Self) -> CertificateDer<'static> {
        let validity = Validity { not_before: self.now - 10, not_after: self.now + 30 * DAY };
        authority(&other.name, validity).signed_by(other.issuer.key(), &self.issuer).unwrap().der().clone()
    }

    /// This authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// This authority's certificate as PEM.
    pub fn pem(&self) -> String {
        certificates_to_pem([&self.certificate])
    }

    /// A proper certificate for a node of that name.
    pub fn node(&self, common_name: &str) -> NodeCertificate {
        self.sign(&NodeRequest::new(common_name, self.now))
    }

    /// A certificate as a test wants it.
    pub fn node_with(&self, change: impl FnOnce(&mut NodeRequest)) -> NodeCertificate {
        let mut request = NodeRequest::new("node", self.now);
        change(&mut request);
        self.sign(&request)
    }

    fn sign(&self, request: &NodeRequest) -> NodeCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &request.common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let uris = request.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        params.subject_alt_names =
            uris.chain(request.addresses.iter().map(|ip| SanType::IpAddress(*ip))).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![match request.may_sign {
            true => KeyUsagePurpose::DigitalSignature,
            false => KeyUsagePurpose::KeyAgreement,
        }];
        set_validity(&mut params, request.validity);
        let key = request.key.generate();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        NodeCertificate { der, key }
    }
}

impl NodeKeyKind {
    fn generate(self) -> KeyPair {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let made = match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        made.unwrap()
    }
}

impl NodeCertificate {
    /// The private key in PKCS#8.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// The private key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate as PEM, with those that vouch for it.
    pub fn pem(&self, above: &[&NodePki]) -> String {
        certificates_to_pem([&self.der].into_iter().chain(above.iter().map(|pki| &pki.certificate)))
    }

    /// Writes `NAME.crt` and `NAME.key` into a folder.
    pub fn write(&self, folder: &TestFolder, name: &str, above: &[&NodePki]) -> (PathBuf, PathBuf) {
        let certificate = folder.file(&format!("{name}.crt"), self.pem(above));
        (certificate, folder.file(&format!("{name}.key"), self.key_pem()))
    }
}

fn authority(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, validity);
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at = |time: Timestamp| time::OffsetDateTime::from_unix_timestamp(time.unix_secs()).unwrap();
    (params.not_before, params.not_after) = (at(validity.not_before), at(validity.not_after));
}
