//! X509-SVIDs: a certificate chain whose leaf obeys every rule of X509-SVID 2 to 5.
//!
//! [`X509Svid::parse`] promises a well-formed identity, not a trusted one: signatures, dates and issuers are the
//! business of [`crate::verify`]. Stricter than the standard's reader rules in two points, both issuer rules that a
//! peer relies on: the leaf has a key usage with digitalSignature, and an extended key usage, if there is one, names
//! both serverAuth and clientAuth, since one SVID serves both sides of a connection.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::certificate::{CERTIFICATE_BYTES_MAX, CertificateError, CertificateFacts, concat_der};
use crate::spiffe_id::{SpiffeId, SpiffeIdError};
use crate::time::{Timestamp, Validity};

pub use crate::certificate::split_der_certificates;

/// The most certificates in one chain, leaf included; the bound that rust-spiffe has as well.
pub const CHAIN_LEN_MAX: usize = 16;

/// A well-formed X509-SVID: leaf first, then its intermediates. Clones share their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct X509Svid(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    spiffe_id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
    serial: Serial,
    spki: Box<[u8]>,
    subject_key_id: Option<Box<[u8]>>,
    authority_key_id: Option<Box<[u8]>>,
}

/// Why a certificate chain is not an X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509SvidError {
    /// No certificate at all.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// More certificates than [`CHAIN_LEN_MAX`].
    #[error("a certificate chain has at most {CHAIN_LEN_MAX} certificates, this one has {0}")]
    ChainLength(usize),
    /// A certificate above the size bound.
    #[error("certificate {index} of the chain has {bytes} bytes, more than {CERTIFICATE_BYTES_MAX}")]
    CertificateSize {
        /// Place in the chain; the leaf is 0.
        index: usize,
        /// Its size.
        bytes: usize,
    },
    /// The leaf cannot be read.
    #[error("the leaf certificate cannot be read")]
    Leaf(#[from] CertificateError),
    /// Not exactly one URI name (X509-SVID 2).
    #[error("an SVID has exactly one URI name, this leaf certificate has {0}")]
    UriNames(usize),
    /// The URI name is not text.
    #[error("the URI name of the leaf certificate is not text")]
    UriText,
    /// The URI name is not a SPIFFE ID.
    #[error("the URI name of the leaf certificate is not a SPIFFE ID")]
    Id(#[source] SpiffeIdError),
    /// The ID has no path, so it names a trust domain and no workload (X509-SVID 5.2).
    #[error("the SPIFFE ID {0} of the leaf certificate needs a path")]
    IdWithoutPath(SpiffeId),
    /// A signing certificate where a leaf belongs (X509-SVID 5.2).
    #[error("the certificate of {0} is a signing certificate and identifies nobody")]
    IsCa(SpiffeId),
    /// No key usage (X509-SVID 4.3).
    #[error("the leaf certificate of {0} has no key usage")]
    NoKeyUsage(SpiffeId),
    /// The key usage has keyCertSign or cRLSign (X509-SVID 5.2).
    #[error("the leaf certificate of {0} may sign certificates or revocation lists")]
    SigningKeyUsage(SpiffeId),
    /// The key usage lacks digitalSignature (X509-SVID 4.3).
    #[error("the leaf certificate of {0} lacks the key usage digitalSignature")]
    NoDigitalSignature(SpiffeId),
    /// An extended key usage without serverAuth or without clientAuth (X509-SVID 4.4).
    #[error("the extended key usage of {0} lacks serverAuth or clientAuth")]
    ExtendedKeyUsage(SpiffeId),
}

impl X509Svid {
    /// Checks all rules for the leaf, and sizes for the rest of the chain.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn parse(chain: Vec<CertificateDer<'static>>) -> Result<Self, X509SvidError> {
        check_sizes(&chain)?;
        let leaf = CertificateFacts::parse(&chain[0])?;
        let spiffe_id = leaf_id(&leaf)?;
        check_usages(&leaf, &spiffe_id)?;
        let (validity, serial, spki) = (leaf.validity, Serial::new(leaf.serial), leaf.spki.into());
        let subject_key_id = leaf.subject_key_id.map(Into::into);
        let authority_key_id = leaf.authority_key_id.map(Into::into);
        let parsed = Parsed { spiffe_id, chain, validity, serial, spki, subject_key_id, authority_key_id };
        Ok(Self(Arc::new(parsed)))
    }

    /// Parses certificates back to back, leaf first, as the Workload API carries them.
    ///
    /// # Errors
    /// As [`X509Svid::parse`], and when the bytes cannot be cut.
    pub fn from_der(bytes: &[u8]) -> Result<Self, X509SvidError> {
        Self::parse(split_der_certificates(bytes)?)
    }

    /// The identity.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.spiffe_id
    }

    /// The whole chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The leaf certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.0.chain[0]
    }

    /// The certificates after the leaf.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.0.chain[1..]
    }

    /// The chain as certificates back to back.
    pub fn to_der(&self) -> Vec<u8> {
        concat_der(&self.0.chain)
    }

    /// When the leaf is valid.
    pub fn validity(&self) -> Validity {
        self.0.validity
    }

    /// The last second at which the leaf is valid, its NotAfter.
    pub fn expires_at(&self) -> Timestamp {
        self.0.validity.not_after
    }

    /// The leaf's serial number; prints as SPIRE does.
    pub fn serial(&self) -> &Serial {
        &self.0.serial
    }

    /// The serial number in decimal.
    pub fn serial_decimal(&self) -> String {
        self.0.serial.to_string()
    }

    /// The leaf's public key as SubjectPublicKeyInfo in DER, to hold against a private key.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// The leaf's subject key identifier.
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.0.subject_key_id.as_deref()
    }

    /// The key identifier of the certificate that signed the leaf.
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.0.authority_key_id.as_deref()
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Svid({}, serial {}, until {})", self.spiffe_id(), self.serial(), self.expires_at())
    }
}

fn check_sizes(chain: &[CertificateDer<'_>]) -> Result<(), X509SvidError> {
    if chain.is_empty() {
        return Err(X509SvidError::EmptyChain);
    }
    if chain.len() > CHAIN_LEN_MAX {
        return Err(X509SvidError::ChainLength(chain.len()));
    }
    match chain
        .iter()
        .map(|certificate| certificate.len())
        .enumerate()
        .find(|one| one.1 > CERTIFICATE_BYTES_MAX)
    {
        Some((index, bytes)) => Err(X509SvidError::CertificateSize { index, bytes }),
        None => Ok(()),
    }
}

fn leaf_id(facts: &CertificateFacts<'_>) -> Result<SpiffeId, X509SvidError> {
    let [uri] = facts.uris[..] else { return Err(X509SvidError::UriNames(facts.uris.len())) };
    let spiffe_id: SpiffeId = uri.ok_or(X509SvidError::UriText)?.parse().map_err(X509SvidError::Id)?;
    if spiffe_id.path().is_empty() { Err(X509SvidError::IdWithoutPath(spiffe_id)) } else { Ok(spiffe_id) }
}

fn check_usages(facts: &CertificateFacts<'_>, spiffe_id: &SpiffeId) -> Result<(), X509SvidError> {
    if facts.is_ca {
        return Err(X509SvidError::IsCa(spiffe_id.clone()));
    }
    let usage = facts.key_usage.ok_or_else(|| X509SvidError::NoKeyUsage(spiffe_id.clone()))?;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(X509SvidError::SigningKeyUsage(spiffe_id.clone()));
    }
    if !usage.digital_signature() {
        return Err(X509SvidError::NoDigitalSignature(spiffe_id.clone()));
    }
    match facts.extended_key_usage {
        Some(purposes) if !(purposes.server_auth && purposes.client_auth) => {
            Err(X509SvidError::ExtendedKeyUsage(spiffe_id.clone()))
        }
        _ => Ok(()),
    }
}

/// A certificate's serial number: non-negative, big-endian without leading zeros. Prints in decimal as SPIRE does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// The number whose big-endian bytes are given; leading zeros do not count.
    pub fn new(big_endian: &[u8]) -> Self {
        let zeros = big_endian.iter().take_while(|&&byte| byte == 0).count();
        Self(big_endian[zeros..].into())
    }

    /// The big-endian bytes without leading zeros; none for zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    /// Long division by ten: 20 bytes make at most 49 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0.to_vec();
        let mut digits = Vec::new();
        while number.iter().any(|&byte| byte != 0) || digits.is_empty() {
            let mut remainder = 0_u16;
            for byte in &mut number {
                let dividend = remainder << 8 | u16::from(*byte);
                // Both fit: the remainder is below 10, so the quotient is below 256.
                *byte = (dividend / 10) as u8;
                remainder = dividend % 10;
            }
            digits.push(b'0' + remainder as u8);
        }
        digits.iter().rev().try_for_each(|&digit| write!(f, "{}", char::from(digit)))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
