//! An upstream authority in PEM files, as an operator keeps it: a signing certificate, its key and the roots.
//!
//! Keys are EC P-384, as SPIRE's own suites have them. Start at [`UpstreamFiles::self_signed`].

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Timestamp, X509Authority};

use crate::folder::TestFolder;

/// How long a usual root lives, in seconds.
const ROOT_TTL_SECS: i64 = 30 * 24 * 3600;

/// Names of the files in a folder.
const NAMES: [&str; 3] = ["upstream.crt", "upstream.key", "upstream_bundle.crt"];

/// The content of the files.
#[derive(Clone, Debug)]
pub struct UpstreamFiles {
    certificates: Vec<CertificateDer<'static>>,
    key_pem: String,
    root: CertificateDer<'static>,
}

struct Signing {
    params: CertificateParams,
    pair: KeyPair,
    certificate: CertificateDer<'static>,
}

fn params(name: &str, from: Timestamp, until: Timestamp, constraints: BasicConstraints) -> CertificateParams {
    let date = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_secs()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Upstream");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date(from), date(until));
    params
}

impl Signing {
    fn root(params: CertificateParams) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        Self { params, pair, certificate }
    }

    fn below(&self, mut params: CertificateParams) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&self.params, &self.pair);
        let certificate = params.signed_by(&pair, &issuer).unwrap().der().clone();
        Self { params, pair, certificate }
    }

    fn files(self, root: CertificateDer<'static>) -> UpstreamFiles {
        UpstreamFiles { certificates: vec![self.certificate], key_pem: self.pair.serialize_pem(), root }
    }
}

impl UpstreamFiles {
    /// A root that signs itself, valid at `now` and for 30 days after.
    pub fn self_signed(name: &str, now: Timestamp) -> Self {
        Self::ending(name, now, now + ROOT_TTL_SECS)
    }

    /// A root that signs itself, valid from shortly before `now` until `end`.
    pub fn ending(name: &str, now: Timestamp, end: Timestamp) -> Self {
        let root = Signing::root(params(name, now - 100, end, BasicConstraints::Unconstrained));
        let certificate = root.certificate.clone();
        root.files(certificate)
    }

    /// An intermediate that signs, below a root.
    pub fn with_intermediate(name: &str, now: Timestamp) -> Self {
        Self::below_root(name, now, BasicConstraints::Unconstrained)
    }

    /// An intermediate that may sign leaves only.
    pub fn without_room_below(name: &str, now: Timestamp) -> Self {
        Self::below_root(name, now, BasicConstraints::Constrained(0))
    }

    fn below_root(name: &str, now: Timestamp, constraints: BasicConstraints) -> Self {
        let end = now + ROOT_TTL_SECS;
        let root = Signing::root(params(name, now - 100, end, BasicConstraints::Unconstrained));
        let below = root.below(params(&format!("{name} below"), now - 100, end, constraints));
        below.files(root.certificate)
    }

    /// The key identifier of the root in lower-case hex.
    pub fn root_key_id(&self) -> String {
        X509Authority::parse(self.root.clone()).unwrap().subject_key_id().to_owned()
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Writes the files in place of what is there; returns the paths of certificates, key and bundle.
    pub fn write(&self, folder: &TestFolder) -> [std::path::PathBuf; 3] {
        let texts = [
            certificates_to_pem(&self.certificates),
            self.key_pem.clone(),
            certificates_to_pem([&self.root]),
        ];
        let mut texts = texts.iter();
        NAMES.map(|name| folder.file(name, texts.next().unwrap()))
    }
}
