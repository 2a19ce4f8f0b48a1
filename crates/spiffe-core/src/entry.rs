//! Registration entries: which workloads get which identity, and with what properties.
//!
//! The parts are checked values; [`RegistrationEntry::check`] adds the rules that span fields and the trust domain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::selector::Selectors;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;
use crate::trust_domain::TrustDomain;

/// The longest entry id, in bytes.
pub const ENTRY_ID_BYTES_MAX: usize = 255;

/// The longest hint, in bytes, not characters (Workload API 8).
pub const HINT_BYTES_MAX: usize = 1024;

/// The most DNS names one entry may carry.
pub const DNS_NAMES_MAX: usize = 256;

/// The most bytes the DNS names of one entry have together: half of the 64 KiB that TLS peers take for a whole chain.
pub const DNS_NAMES_BYTES_MAX: usize = 32 * 1024;

/// The name of an entry: 1 to 255 bytes of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(Arc<str>);

/// A text for workloads that have several identities and choose among them, at most 1024 bytes, often empty.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Hint(Option<Arc<str>>);

/// A DNS name for a certificate: strict ASCII labels, at most one `*` as the whole first label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// Why an entry, or a part of one, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The entry id is empty or too long.
    #[error("an entry ID has 1 to {ENTRY_ID_BYTES_MAX} bytes, this one has {0}")]
    IdLength(usize),
    /// The entry id has a byte outside its alphabet.
    #[error("an entry ID is made of letters, digits, dot, dash and underscore; {0:?} is not")]
    IdByte(String),
    /// The hint is too long.
    #[error("a hint has at most {HINT_BYTES_MAX} bytes, this one has {0}")]
    HintLength(usize),
    /// A malformed DNS name.
    #[error("{name:?} is not a DNS name: {why}")]
    DnsName {
        /// The name as given, cut to a bounded length.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Too many DNS names.
    #[error("an entry has at most {DNS_NAMES_MAX} DNS names, this one has {0}")]
    TooManyDnsNames(usize),
    /// The DNS names are too long together.
    #[error("the DNS names of an entry have at most {DNS_NAMES_BYTES_MAX} bytes together, these have {0}")]
    DnsNamesTooLong(usize),
    /// The parent lies in another trust domain.
    #[error("parent ID {parent} is not a member of trust domain {trust_domain:?}")]
    ForeignParent {
        /// The parent ID as given.
        parent: SpiffeId,
        /// The server's trust domain.
        trust_domain: TrustDomain,
    },
    /// The parent has no path.
    #[error("parent ID {0} needs a path")]
    ParentWithoutPath(SpiffeId),
    /// The SPIFFE ID lies in another trust domain.
    #[error("SPIFFE ID {spiffe_id} is not a member of trust domain {trust_domain:?}")]
    ForeignId {
        /// The SPIFFE ID as given.
        spiffe_id: SpiffeId,
        /// The server's trust domain.
        trust_domain: TrustDomain,
    },
    /// The SPIFFE ID has no path, which X509-SVID 3.1 demands of a leaf.
    #[error("SPIFFE ID {0} needs a path")]
    IdWithoutPath(SpiffeId),
    /// The SPIFFE ID lies below `/spire`.
    #[error("SPIFFE ID {0} is reserved: paths at and below /spire belong to servers and agents")]
    ReservedId(SpiffeId),
    /// No selector.
    #[error("selector list is empty")]
    NoSelectors,
    /// Stored SVIDs go to one store, which the selector type names.
    #[error("store_svid is set: all selectors must have the same type")]
    MixedStoreSelectors,
    /// Prefetch makes no sense for a stored SVID.
    #[error("x509_svid_prefetch cannot be disabled together with store_svid")]
    PrefetchOfStored,
}

impl EntryId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntryId {
    type Err = EntryError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        if !(1..=ENTRY_ID_BYTES_MAX).contains(&id.len()) {
            return Err(EntryError::IdLength(id.len()));
        }
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
            return Err(EntryError::IdByte(id.into()));
        }
        Ok(Self(id.into()))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Hint {
    /// The hint as text; empty when there is none.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// Whether there is no hint.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl FromStr for Hint {
    type Err = EntryError;

    fn from_str(hint: &str) -> Result<Self, Self::Err> {
        match hint.len() {
            0 => Ok(Self(None)),
            1..=HINT_BYTES_MAX => Ok(Self(Some(hint.into()))),
            bytes => Err(EntryError::HintLength(bytes)),
        }
    }
}

impl DnsName {
    /// The name as text, in the case it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a wildcard that covers `name`: `*.example.org` covers `web.example.org` only one level down.
    pub fn covers(&self, name: &DnsName) -> bool {
        match (self.0.strip_prefix("*."), name.0.split_once('.')) {
            (Some(parent), Some((first, rest))) => first != "*" && rest.eq_ignore_ascii_case(parent),
            _ => false,
        }
    }
}

impl FromStr for DnsName {
    type Err = EntryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let refuse = |why| EntryError::DnsName { name: name.chars().take(80).collect(), why };
        let labels = name.strip_prefix("*.").unwrap_or(name);
        if labels.is_empty() {
            return Err(refuse("it is empty"));
        }
        if name.len() > 253 {
            return Err(refuse("it is longer than 253 bytes"));
        }
        for label in labels.split('.') {
            check_label(label).map_err(refuse)?;
        }
        Ok(Self(name.into()))
    }
}

/// The strict letter-digit-hyphen rule of IDNA for one label.
fn check_label(label: &str) -> Result<(), &'static str> {
    let bytes = label.as_bytes();
    match bytes {
        [] => return Err("a label is empty"),
        [b'-', ..] | [.., b'-'] => return Err("a label starts or ends with a dash"),
        [a, b, b'-', b'-', ..] if !(a.eq_ignore_ascii_case(&b'x') && b.eq_ignore_ascii_case(&b'n')) => {
            return Err("a label has dashes in its third and fourth place");
        }
        _ if bytes.len() > 63 => return Err("a label is longer than 63 bytes"),
        _ => {}
    }
    if bytes.contains(&b'*') {
        return Err("a star may only be the whole first label");
    }
    if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-')) {
        return Err("a label has a byte that is no letter, digit or dash");
    }
    Ok(())
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One registration: workloads that show `selectors` on a node below `parent_id` get `spiffe_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationEntry {
    /// Name of the entry, unique in the trust domain.
    pub id: EntryId,
    /// Identity given to matching workloads.
    pub spiffe_id: SpiffeId,
    /// Who may fetch it: an agent, another entry's identity, or the server for a node alias.
    pub parent_id: SpiffeId,
    /// What a workload must show, all of it.
    pub selectors: Selectors,
    /// Lifetime of its X509-SVIDs in seconds; 0 means the server's default.
    pub x509_svid_ttl_secs: u32,
    /// Lifetime of its JWT-SVIDs in seconds; 0 means the server's default.
    pub jwt_svid_ttl_secs: u32,
    /// Foreign trust domains whose bundles its workloads get.
    pub federates_with: Vec<TrustDomain>,
    /// Whether the identity may call admin methods of the server.
    pub admin: bool,
    /// Whether the identity is a server below this one.
    pub downstream: bool,
    /// When the entry ends; none means never.
    pub expires_at: Option<Timestamp>,
    /// DNS names put into its X509-SVIDs; the first one also becomes the common name.
    pub dns_names: Vec<DnsName>,
    /// Counts updates of this entry, from 0.
    pub revision_number: i64,
    /// Whether the agent pushes the SVID to a store instead of serving it.
    pub store_svid: bool,
    /// Lets a workload tell its identities apart.
    pub hint: Hint,
    /// When the entry was made.
    pub created_at: Timestamp,
    /// Whether agents wait for a workload before they fetch the SVID.
    pub disable_x509_svid_prefetch: bool,
    /// Whether its JWT-SVIDs carry a `jti`.
    pub jwt_svid_include_jti: bool,
}

impl RegistrationEntry {
    /// Checks the rules that span fields, for a server of `trust_domain`.
    ///
    /// # Errors
    /// The first rule broken, in the order of the fields.
    pub fn check(&self, trust_domain: &TrustDomain) -> Result<(), EntryError> {
        check_parent(&self.parent_id, trust_domain)?;
        check_workload_id(&self.spiffe_id, trust_domain)?;
        if self.selectors.is_empty() {
            return Err(EntryError::NoSelectors);
        }
        if self.store_svid && !self.selectors.iter().all(|s| Some(s.kind()) == self.first_kind()) {
            return Err(EntryError::MixedStoreSelectors);
        }
        if self.store_svid && self.disable_x509_svid_prefetch {
            return Err(EntryError::PrefetchOfStored);
        }
        if self.dns_names.len() > DNS_NAMES_MAX {
            return Err(EntryError::TooManyDnsNames(self.dns_names.len()));
        }
        let bytes = self.dns_names.iter().map(|name| name.as_str().len()).sum();
        if bytes > DNS_NAMES_BYTES_MAX {
            return Err(EntryError::DnsNamesTooLong(bytes));
        }
        Ok(())
    }

    fn first_kind(&self) -> Option<&str> {
        self.selectors.iter().next().map(crate::Selector::kind)
    }

    /// Whether the entry has ended at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A parent is any member of the trust domain with a path; reserved paths are allowed.
///
/// # Errors
/// When it is a stranger or has no path.
pub fn check_parent(parent: &SpiffeId, trust_domain: &TrustDomain) -> Result<(), EntryError> {
    if !parent.is_member_of(trust_domain) {
        return Err(EntryError::ForeignParent { parent: parent.clone(), trust_domain: trust_domain.clone() });
    }
    if parent.path().is_empty() {
        return Err(EntryError::ParentWithoutPath(parent.clone()));
    }
    Ok(())
}

/// A workload's ID is a member of the trust domain with a path outside `/spire`.
///
/// # Errors
/// When it is a stranger, has no path, or is reserved.
pub fn check_workload_id(spiffe_id: &SpiffeId, trust_domain: &TrustDomain) -> Result<(), EntryError> {
    if !spiffe_id.is_member_of(trust_domain) {
        return Err(EntryError::ForeignId {
            spiffe_id: spiffe_id.clone(),
            trust_domain: trust_domain.clone(),
        });
    }
    if spiffe_id.path().is_empty() {
        return Err(EntryError::IdWithoutPath(spiffe_id.clone()));
    }
    if spiffe_id.is_reserved() {
        return Err(EntryError::ReservedId(spiffe_id.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
