//! What can be wrong with a message: a fault, and the field it was found in.

use std::error::Error;
use std::fmt;

use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::certificate::CertificateError;
use spindle_spiffe_core::entry::EntryError;
use spindle_spiffe_core::federation::UrlError;
use spindle_spiffe_core::selector::SelectorError;
use spindle_spiffe_core::spiffe_id::SpiffeIdError;
use spindle_spiffe_core::trust_domain::TrustDomainError;
use spindle_spiffe_core::x509_bundle::X509BundleError;
use spindle_spiffe_core::{ErrorChain, TrustDomain};

/// A field of an entry, a bundle or a federation relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the field of the same name")]
pub enum Field {
    Id,
    SpiffeId,
    ParentId,
    Selectors,
    X509SvidTtl,
    JwtSvidTtl,
    FederatesWith,
    ExpiresAt,
    DnsNames,
    Hint,
    TrustDomain,
    X509Authorities,
    JwtAuthorities,
    WitAuthorities,
    RefreshHint,
    EndpointUrl,
    EndpointProfile,
    EndpointSpiffeId,
    TrustDomainBundle,
    /// No one field: a rule over the whole message.
    Whole,
}

impl fmt::Display for Field {
    /// The field in words for people, close to those that SPIRE's users know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Id => "entry ID",
            Field::SpiffeId => "spiffe ID",
            Field::ParentId => "parent ID",
            Field::Selectors => "selectors",
            Field::X509SvidTtl => "X509-SVID TTL",
            Field::JwtSvidTtl => "JWT-SVID TTL",
            Field::FederatesWith => "federated trust domain",
            Field::ExpiresAt => "expiry",
            Field::DnsNames => "DNS name",
            Field::Hint => "hint",
            Field::TrustDomain => "trust domain",
            Field::X509Authorities => "X.509 authority",
            Field::JwtAuthorities => "JWT authority",
            Field::WitAuthorities => "WIT authority",
            Field::RefreshHint => "refresh hint",
            Field::EndpointUrl => "bundle endpoint URL",
            Field::EndpointProfile => "bundle endpoint profile",
            Field::EndpointSpiffeId => "endpoint SPIFFE ID",
            Field::TrustDomainBundle => "trust domain bundle",
            Field::Whole => "bundle",
        })
    }
}

/// What is wrong with a value. Its text is complete: causes are part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A required field is absent or empty.
    Missing,
    /// A negative number where only others make sense.
    Negative(i64),
    /// A list longer than `max`.
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Not a SPIFFE ID.
    SpiffeId(SpiffeIdError),
    /// Not a trust domain name.
    TrustDomain(TrustDomainError),
    /// Not a selector, or not a set of them.
    Selector(SelectorError),
    /// Not a part of an entry.
    Entry(EntryError),
    /// Not certificates back to back.
    Certificate(CertificateError),
    /// Not a signing certificate.
    Authority(X509BundleError),
    /// Not a JWT authority, or keys that make no bundle together.
    Bundle(BundleError),
    /// Not the address of a bundle endpoint.
    Url(UrlError),
    /// A number that stands for nothing here.
    Unknown(i32),
    /// The bundle of another trust domain than the relationship is with.
    OtherTrustDomain {
        /// Whose bundle it is.
        bundle: TrustDomain,
        /// Whose it should be.
        wanted: TrustDomain,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("it is missing"),
            Fault::Negative(number) => write!(f, "{number} is negative"),
            Fault::TooMany { count, max } => write!(f, "at most {max} are allowed, got {count}"),
            Fault::SpiffeId(error) => ErrorChain(error).fmt(f),
            Fault::TrustDomain(error) => ErrorChain(error).fmt(f),
            Fault::Selector(error) => ErrorChain(error).fmt(f),
            Fault::Entry(error) => ErrorChain(error).fmt(f),
            Fault::Certificate(error) => ErrorChain(error).fmt(f),
            Fault::Authority(error) => ErrorChain(error).fmt(f),
            Fault::Bundle(error) => ErrorChain(error).fmt(f),
            Fault::Url(error) => ErrorChain(error).fmt(f),
            Fault::Unknown(number) => write!(f, "{number} is no value of it"),
            Fault::OtherTrustDomain { bundle, wanted } => {
                write!(f, "it is that of {bundle}, the federation relationship is with {wanted}")
            }
        }
    }
}

impl Error for Fault {}

macro_rules! fault_from {
    ($($error:ty => $variant:ident,)+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Fault::$variant(error)
            }
        })+
    };
}

fault_from! {
    SpiffeIdError => SpiffeId,
    TrustDomainError => TrustDomain,
    SelectorError => Selector,
    EntryError => Entry,
    CertificateError => Certificate,
    X509BundleError => Authority,
    BundleError => Bundle,
    UrlError => Url,
}

/// Why a message is not the value it stands for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {fault}")]
pub struct ConvertError {
    /// The first bad field.
    pub field: Field,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Puts a field's name to a fault found in it.
pub(super) trait InField<T> {
    fn field(self, field: Field) -> Result<T, ConvertError>;
}

impl<T, E: Into<Fault>> InField<T> for Result<T, E> {
    fn field(self, field: Field) -> Result<T, ConvertError> {
        self.map_err(|fault| ConvertError { field, fault: fault.into() })
    }
}

/// Refuses a list that is too long before any of it is looked at.
pub(super) fn at_most<T>(list: &[T], max: usize) -> Result<&[T], Fault> {
    if list.len() > max { Err(Fault::TooMany { count: list.len(), max }) } else { Ok(list) }
}
