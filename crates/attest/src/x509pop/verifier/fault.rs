//! Why a node is not attested, with SPIRE's words where it has some.

use std::net::IpAddr;

use spindle_spiffe_core::public_key::PublicKeyError;
use spindle_spiffe_core::x509_svid::X509SvidError;
use spindle_spiffe_core::{Reason, SpiffeId};

use crate::x509pop::message::MessageError;
use crate::x509pop::proof::ProofError;

/// Why a node is not attested. The texts begin as SPIRE's do.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// The first message is malformed.
    #[error("failed to unmarshal data: {0}")]
    Payload(#[source] MessageError),
    /// It has no certificate.
    #[error("no certificate to attest")]
    NoCertificate,
    /// It has too many.
    #[error("too many intermediate certificates: at most {max} are taken, there are {found}")]
    TooMany {
        /// How many there may be.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A certificate cannot be read.
    #[error("unable to parse {0}")]
    Unreadable(Place),
    /// An RSA key is too large.
    #[error("{place} key size too large: at most {max} bits are taken, there are {found}")]
    KeyTooLarge {
        /// Which certificate.
        place: Place,
        /// How large it may be.
        max: usize,
        /// How large it is.
        found: usize,
    },
    /// The leaf's key is not usable.
    #[error("the leaf certificate's key cannot be used: {0}")]
    Key(#[source] PublicKeyError),
    /// The leaf's key is of a kind that has no challenge.
    #[error("unable to generate challenge: only RSA and EC keys can prove themselves")]
    KeyKind,
    /// The leaf is for something else.
    #[error("unable to generate challenge: certificate not intended for digital signature use")]
    NotForSignatures,
    /// Nobody vouches for the leaf.
    #[error("certificate verification failed: {}", in_words(.0))]
    NotTrusted(#[source] webpki::Error),
    /// The leaf is no SVID, where one is needed.
    #[error("valid SVID x509 cert not found: {0}")]
    NotSvid(#[source] X509SvidError),
    /// The SVID is of another trust domain.
    #[error("certificate verification failed: {0} is of another trust domain")]
    ForeignSvid(SpiffeId),
    /// The SVID is not one that can be exchanged.
    #[error("x509 cert doesnt match SVID prefix: {id} does not begin with {prefix}")]
    Prefix {
        /// Whose it is.
        id: SpiffeId,
        /// What its path must begin with.
        prefix: String,
    },
    /// The node's address is not known, and must be.
    #[error("client IP not available for verification")]
    AddressUnknown,
    /// The leaf is for other addresses.
    #[error("client IP {0} does not match any certificate IP SAN")]
    Address(IpAddr),
    /// The answer is malformed.
    #[error("unable to unmarshal challenge response: {0}")]
    Response(#[source] MessageError),
    /// The answer proves nothing.
    #[error("challenge response verification failed: {0}")]
    Proof(#[source] ProofError),
    /// The template makes no ID from this certificate.
    #[error("failed to make spiffe id: {0}")]
    Name(String),
    /// The certificate says something that does not fit a selector.
    #[error("failed to make selectors: {0}")]
    Selectors(#[from] spindle_spiffe_core::selector::SelectorError),
}

/// The path checker's words are names of its own, so the usual ones are said in plain words.
fn in_words(error: &webpki::Error) -> String {
    use webpki::Error::{CaUsedAsEndEntity, CertExpired, CertNotValidYet, UnknownIssuer};
    match error {
        UnknownIssuer => "certificate signed by unknown authority".into(),
        CertExpired { .. } => "a certificate has expired".into(),
        CertNotValidYet { .. } => "a certificate is not valid yet".into(),
        CaUsedAsEndEntity => "the leaf is a certificate of an authority".into(),
        other => other.to_string(),
    }
}

impl NodeFault {
    /// The code to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Payload(_) | Self::Response(_) | Self::NoCertificate => Reason::BadRequest,
            Self::TooMany { .. }
            | Self::Unreadable(_)
            | Self::KeyTooLarge { .. }
            | Self::Key(_)
            | Self::KeyKind
            | Self::NotForSignatures
            | Self::Selectors(_) => Reason::NodeCertificateUnusable,
            Self::NotTrusted(_) | Self::NotSvid(_) | Self::ForeignSvid(_) | Self::Prefix { .. } => {
                Reason::NodeNotTrusted
            }
            Self::AddressUnknown | Self::Address(_) => Reason::NodeAddressMismatch,
            Self::Proof(_) => Reason::NodeProofFailed,
            Self::Name(_) => Reason::NodeNotNamed,
        }
    }
}

/// Which certificate of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The node's own.
    Leaf,
    /// One that vouches for it, counted from 0.
    Intermediate(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leaf => f.write_str("leaf certificate"),
            Self::Intermediate(index) => write!(f, "intermediate certificate {index}"),
        }
    }
}

impl From<usize> for Place {
    fn from(index: usize) -> Self {
        index.checked_sub(1).map_or(Self::Leaf, Self::Intermediate)
    }
}
