//! Trust domain names, SPIFFE-ID 2.1.
//!
//! Upper case is refused, not folded: 2.1 demands lower case, and one spelling means one identity
//! (docs/adr/0002-strict-spiffe-values.md).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::spiffe_id::{SpiffeId, SpiffeIdError};

/// The longest trust domain name, in bytes (SPIFFE-ID 2.3).
pub const NAME_BYTES_MAX: usize = 255;

/// A lower-case trust domain name of 1 to 255 bytes, such as `prod.example`. Clones share their bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// Why a text is not a trust domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// The name is empty or longer than [`NAME_BYTES_MAX`].
    #[error("a trust domain name has 1 to {NAME_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A byte outside `[a-z0-9.-_]`.
    #[error(
        "a trust domain name is made of a-z, 0-9, dot, dash and underscore; byte {at} (0x{byte:02x}) is not"
    )]
    Byte {
        /// Offset of the first bad byte, counted from the start of the name.
        at: usize,
        /// The bad byte.
        byte: u8,
    },
}

impl TrustDomain {
    /// The bare name, without a scheme.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, `spiffe://name` without a path.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::of_trust_domain(self)
    }

    /// The SPIFFE ID `spiffe://name` + `path`, where `path` starts with a slash (or is empty).
    ///
    /// # Errors
    /// When the path breaks a rule of SPIFFE-ID 2.2 or the ID grows past 2048 bytes.
    pub fn member(&self, path: &str) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::from_parts(self, path)
    }

    /// The SPIFFE ID of this trust domain's server, `/spire/server`.
    pub fn server_id(&self) -> SpiffeId {
        self.member("/spire/server").expect("the fixed path is valid and a name leaves room for it")
    }

    pub(crate) fn from_checked(name: &str) -> Self {
        Self(name.into())
    }

    pub(crate) fn check(name: &[u8]) -> Result<(), TrustDomainError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(TrustDomainError::Length(name.len()));
        }
        match name.iter().position(|&byte| !is_name_byte(byte)) {
            Some(at) => Err(TrustDomainError::Byte { at, byte: name[at] }),
            None => Ok(()),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::check(name.as_bytes())?;
        Ok(Self::from_checked(name))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
