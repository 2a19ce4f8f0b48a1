//! A signing authority and the SVIDs it signs.
//!
//! Everything that stays the same from one SVID to the next is prepared once per authority. Promises: an SVID names a
//! member of the authority's trust domain with a path, ends no later than the authority, and carries only what the
//! request says. Start at [`X509Ca::sign_x509_svid`].

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::CertificateDer;
use spindle_keys::{Key, key_identifier};
use spindle_spiffe_core::certificate::CERTIFICATE_BYTES_MAX;
use spindle_spiffe_core::{DnsName, Reason, Serial, SpiffeId, Timestamp, TrustDomain, Validity, VerifyError};

use crate::profile::{self, ProfileError};
use crate::public_key::{KeyKind, PublicKeyError, SubjectKey};
use crate::subject::{CaSubject, SubjectError, SvidSubject};

/// The most certificates between an authority and its root: webpki follows no longer path.
pub const UPSTREAM_CHAIN_MAX: usize = 6;

/// A signing authority of one trust domain. Clones share it.
#[derive(Clone)]
pub struct X509Ca(Arc<Authority>);

struct Authority {
    trust_domain: TrustDomain,
    certificate: CertificateDer<'static>,
    upstream_chain: Vec<CertificateDer<'static>>,
    validity: Validity,
    authority_id: String,
    issuer: Issuer<'static, Key>,
    /// What all SVIDs have in common; cloning it is cheaper than building it.
    template: CertificateParams,
}

/// What goes into one SVID. Nothing else does.
#[derive(Clone, Debug)]
pub struct SvidRequest<'a> {
    /// The identity; a member of the authority's trust domain with a path.
    pub spiffe_id: SpiffeId,
    /// The public key as a DER `SubjectPublicKeyInfo`.
    pub spki_der: &'a [u8],
    /// The subject; the first DNS name becomes its common name.
    pub subject: SvidSubject,
    /// DNS names of the subject alternative name, after the SPIFFE ID.
    pub dns_names: &'a [DnsName],
    /// The validity wanted; its end is cut to the authority's.
    pub validity: Validity,
    /// A random positive number, big-endian, top bit clear: see `Entropy::serial`.
    pub serial: [u8; 16],
}

/// A signed SVID.
#[derive(Clone, Debug)]
pub struct SignedSvid {
    /// Leaf first, then what leads to the root, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The validity signed, after the cut to the authority's end.
    pub validity: Validity,
    /// The serial number; prints in decimal as SPIRE does.
    pub serial: Serial,
}

/// Why an SVID is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The identity belongs to another trust domain.
    #[error(
        "{spiffe_id} is not a member of trust domain {trust_domain:?}, the only one this authority speaks for"
    )]
    ForeignId {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// The authority's trust domain.
        trust_domain: TrustDomain,
    },
    /// The identity has no path, which X509-SVID 3.1 demands of a leaf.
    #[error("{0} has no path; only an authority is named by its trust domain alone")]
    IdWithoutPath(SpiffeId),
    /// The key is of a kind or size that is not certified.
    #[error("the public key for {spiffe_id} is refused")]
    Key {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// Which rule the key breaks.
        source: PublicKeyError,
    },
    /// The authority ends before the SVID would begin.
    #[error("authority {authority_id} ended at {ended_at}")]
    AuthorityOver {
        /// The authority.
        authority_id: String,
        /// Its last valid second.
        ended_at: Timestamp,
    },
    /// A validity whose end comes before its begin, or outside the years that X.509 can write.
    #[error("an SVID cannot be valid from {} to {}", .0.not_before, .0.not_after)]
    Validity(Validity),
    /// A serial number that is zero or has its top bit set (RFC 5280 4.1.2.2).
    #[error("the serial number is not positive")]
    Serial,
    /// A certificate that nobody takes.
    #[error(
        "an SVID for {spiffe_id} would have {bytes} bytes, more than {CERTIFICATE_BYTES_MAX}: use fewer DNS names"
    )]
    TooLarge {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// Its size.
        bytes: usize,
    },
    /// The encoder or the key refused.
    #[error("cannot sign for {spiffe_id}: {why}")]
    Failed {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// What the library said.
        why: String,
    },
}

/// Why a signing authority cannot be made or reloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The subject from the configuration is refused.
    #[error("the subject of the authority is refused")]
    Subject(#[from] SubjectError),
    /// The certificate may not sign SVIDs of this trust domain.
    #[error("the authority's certificate is refused")]
    Profile(#[from] ProfileError),
    /// Certificate and key do not belong together.
    #[error("the certificate of authority {0} holds another public key than the key given")]
    OtherKey(String),
    /// A validity that is reversed or cannot be written.
    #[error("an authority cannot be valid from {} to {}", .0.not_before, .0.not_after)]
    Validity(Validity),
    /// A serial number that is zero or has its top bit set.
    #[error("the serial number is not positive")]
    Serial,
    /// The chain above the authority is too long.
    #[error("there are {0} certificates above the authority, more than {UPSTREAM_CHAIN_MAX}")]
    ChainLength(usize),
    /// What the authority signs does not lead to the roots above it.
    #[error("what the authority signs is not trusted by its upstream roots")]
    NotTrusted(#[from] VerifyError),
    /// The encoder or the key refused, or what the authority signs would not chain to it.
    #[error("the authority cannot sign: {0}")]
    Failed(String),
}

impl SignError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ForeignId { .. } => Reason::WrongTrustDomain,
            Self::Key { .. } => Reason::BadKey,
            Self::AuthorityOver { .. } => Reason::ServerStarting,
            Self::TooLarge { .. } => Reason::MessageTooLarge,
            Self::IdWithoutPath(_) | Self::Validity(_) | Self::Serial | Self::Failed { .. } => {
                Reason::BadRequest
            }
        }
    }
}

impl X509Ca {
    /// Makes a self-signed authority, which is itself an SVID: its one URI name is the trust domain's ID.
    ///
    /// # Errors
    /// When subject, validity or serial number are refused, or the key does not sign.
    pub fn self_signed(
        trust_domain: &TrustDomain,
        key: Key,
        subject: &CaSubject,
        validity: Validity,
        serial: [u8; 16],
    ) -> Result<Self, AuthorityError> {
        let number = positive(serial).ok_or(AuthorityError::Serial)?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, validity).ok_or(AuthorityError::Validity(validity))?;
        params.serial_number = Some(serial.to_vec().into());
        params.distinguished_name = subject.to_name(number)?;
        params.subject_alt_names = vec![uri_name(&trust_domain.id()).map_err(failed)?];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key.subject_key_id().to_vec());
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::from_parts(trust_domain, certificate.der().clone(), key, Vec::new())
    }

    /// An authority from its certificate and key, as a journal keeps them. `upstream_chain` follows every leaf: this
    /// certificate and those above it without the root, or nothing when this certificate is the root.
    ///
    /// Signs one throw-away SVID, so that an authority that could not be chained to shows here and not at its first use.
    ///
    /// # Errors
    /// When the certificate may not sign for the trust domain, the key is another one, or the trial fails.
    pub fn from_parts(
        trust_domain: &TrustDomain,
        certificate: CertificateDer<'static>,
        key: Key,
        upstream_chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, AuthorityError> {
        if upstream_chain.len() > UPSTREAM_CHAIN_MAX {
            return Err(AuthorityError::ChainLength(upstream_chain.len()));
        }
        let facts = profile::check_authority(&certificate, trust_domain)?;
        let authority_id = lower_hex(&facts.subject_key_id);
        if facts.spki_der != key.spki_der() {
            return Err(AuthorityError::OtherKey(authority_id));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?;
        let ca = Self(Arc::new(Authority {
            trust_domain: trust_domain.clone(),
            certificate,
            upstream_chain,
            validity: facts.validity,
            authority_id,
            issuer,
            template: svid_template(),
        }));
        ca.try_out(&facts.subject_der)?;
        Ok(ca)
    }

    /// The trust domain it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Its own certificate, which belongs into the bundle when it is self-signed.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// What follows every leaf it signs.
    pub fn upstream_chain(&self) -> &[CertificateDer<'static>] {
        &self.0.upstream_chain
    }

    /// The key it signs with.
    pub fn key(&self) -> &Key {
        self.0.issuer.key()
    }

    /// Its subject key identifier in lower-case hex, which names it in commands and logs.
    pub fn authority_id(&self) -> &str {
        &self.0.authority_id
    }

    /// When its certificate is valid.
    pub fn validity(&self) -> Validity {
        self.0.validity
    }

    /// Signs one SVID. Takes CPU time only (a remote key would wait); run batches on blocking threads.
    ///
    /// # Errors
    /// When the identity is foreign or has no path, the key is not certified, nothing is left of the authority's own
    /// lifetime, or the signature fails.
    pub fn sign_x509_svid(&self, request: &SvidRequest<'_>) -> Result<SignedSvid, SignError> {
        let spiffe_id = &request.spiffe_id;
        self.check_id(spiffe_id)?;
        let key = SubjectKey::parse(request.spki_der)
            .map_err(|source| SignError::Key { spiffe_id: spiffe_id.clone(), source })?;
        positive(request.serial).ok_or(SignError::Serial)?;
        let validity = self.cut(request.validity)?;

        let params = self.params(request, key, validity)?;
        let leaf = params.signed_by(&key, &self.0.issuer).map_err(|error| refused(spiffe_id, error))?;
        let mut chain = Vec::with_capacity(1 + self.0.upstream_chain.len());
        chain.push(leaf.into());
        chain.extend_from_slice(&self.0.upstream_chain);
        if chain[0].len() > CERTIFICATE_BYTES_MAX {
            return Err(SignError::TooLarge { spiffe_id: spiffe_id.clone(), bytes: chain[0].len() });
        }
        debug_assert_eq!(profile::check_svid(&chain[..1], spiffe_id, self.0.validity), Ok(()));
        Ok(SignedSvid { chain, spiffe_id: spiffe_id.clone(), validity, serial: Serial::new(&request.serial) })
    }

    fn check_id(&self, spiffe_id: &SpiffeId) -> Result<(), SignError> {
        let trust_domain = &self.0.trust_domain;
        if !spiffe_id.is_member_of(trust_domain) {
            return Err(SignError::ForeignId {
                spiffe_id: spiffe_id.clone(),
                trust_domain: trust_domain.clone(),
            });
        }
        if spiffe_id.path().is_empty() {
            return Err(SignError::IdWithoutPath(spiffe_id.clone()));
        }
        Ok(())
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, Key> {
        &self.0.issuer
    }

    /// The wanted validity, no longer than the authority's own.
    pub(crate) fn cut(&self, wanted: Validity) -> Result<Validity, SignError> {
        if wanted.not_after < wanted.not_before {
            return Err(SignError::Validity(wanted));
        }
        let ended_at = self.0.validity.not_after;
        if wanted.not_before > ended_at {
            return Err(SignError::AuthorityOver { authority_id: self.0.authority_id.clone(), ended_at });
        }
        Ok(Validity { not_before: wanted.not_before, not_after: wanted.not_after.min(ended_at) })
    }

    fn params(
        &self,
        request: &SvidRequest<'_>,
        key: SubjectKey<'_>,
        validity: Validity,
    ) -> Result<CertificateParams, SignError> {
        let spiffe_id = &request.spiffe_id;
        let mut params = self.0.template.clone();
        set_validity(&mut params, validity).ok_or(SignError::Validity(validity))?;
        params.serial_number = Some(request.serial.to_vec().into());
        params.distinguished_name = request.subject.to_name(request.dns_names);
        params.subject_alt_names.reserve_exact(1 + request.dns_names.len());
        params.subject_alt_names.push(uri_name(spiffe_id).map_err(|error| refused(spiffe_id, error))?);
        for name in request.dns_names {
            let name = name.as_str().try_into().map_err(|error| refused(spiffe_id, error))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        // RFC 8813 3 leaves an EC key for signing no other bit; RSA key transport is what old TLS peers look for.
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        if key.kind() == KeyKind::Rsa {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_identifier(key.bits()).to_vec());
        Ok(params)
    }

    /// Signs for our own key and looks whether the leaf chains: same name byte for byte, same key identifier.
    fn try_out(&self, subject_der: &[u8]) -> Result<(), AuthorityError> {
        let server_id = self.0.trust_domain.server_id();
        let request = SvidRequest {
            spiffe_id: server_id.clone(),
            spki_der: self.key().spki_der(),
            subject: SvidSubject::default(),
            dns_names: &[],
            validity: self.0.validity,
            serial: [1; 16],
        };
        let trial = self.sign_x509_svid(&request).map_err(failed)?;
        profile::check_svid(&trial.chain, &server_id, self.0.validity)?;
        let leaf = profile::parse(&trial.chain[0])?;
        if leaf.issuer().as_raw() != subject_der {
            return Err(AuthorityError::Failed(
                "its subject cannot be written as an issuer, byte for byte".into(),
            ));
        }
        let ca = profile::parse(&self.0.certificate)?;
        leaf.verify_signature(Some(ca.public_key())).map_err(failed)
    }
}

impl fmt::Debug for X509Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Ca({} of {})", self.0.authority_id, self.0.trust_domain)
    }
}

/// The part of the profile that is the same for every SVID; each `push` in `params` adds to an empty list here.
fn svid_template() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Writes both ends; `None` when they are reversed or outside what X.509 dates can say (RFC 5280 4.1.2.5).
pub(crate) fn set_validity(params: &mut CertificateParams, validity: Validity) -> Option<()> {
    let date = |at: Timestamp| {
        let date = time::OffsetDateTime::from_unix_timestamp(at.unix_secs()).ok()?;
        (1950..=9999).contains(&date.year()).then_some(date)
    };
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    (validity.not_before <= validity.not_after).then_some(())
}

/// The number, if RFC 5280 4.1.2.2 lets it be a serial number.
pub(crate) fn positive(serial: [u8; 16]) -> Option<u128> {
    let number = u128::from_be_bytes(serial);
    (number != 0 && number >> 127 == 0).then_some(number)
}

pub(crate) fn uri_name(spiffe_id: &SpiffeId) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(spiffe_id.as_str().try_into()?))
}

pub(crate) fn failed(error: impl fmt::Display) -> AuthorityError {
    AuthorityError::Failed(error.to_string())
}

pub(crate) fn refused(spiffe_id: &SpiffeId, error: impl fmt::Display) -> SignError {
    SignError::Failed { spiffe_id: spiffe_id.clone(), why: error.to_string() }
}

/// Lower-case hex, the form in which SPIRE prints key identifiers.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
