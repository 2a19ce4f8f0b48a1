//! Authority slots, CSR rules, certificate profile and signing.
//!
//! Promises that nothing is signed which the profile does not allow, and that no SVID outlives its authority. Pure but
//! for the signature itself: callers pass `now`, validity and serial. It leaves out who may ask (`spindle-server`) and
//! where keys and journal are kept (`spindle-keys`, `spindle-store`). Start at [`CheckedCsr`], [`X509Ca`], [`UpstreamCa`],
//! [`JwtSigner`], [`WitSigner`] and [`AuthoritySlots`].

pub mod csr;
pub mod downstream;
pub mod journal;
pub mod jwt;
pub mod profile;
pub mod public_key;
pub mod slots;
pub mod subject;
pub mod token;
pub mod upstream_ca;
pub mod wit;
pub mod x509_ca;

pub use csr::{CSR_BYTES_MAX, CheckedCsr, CsrError};
pub use downstream::SignedAuthority;
pub use journal::{
    AuthorityStatus, AuthorityTrust, CaCertificate, JournalEntry, Restored, SkipReason, TokenPublicKey,
    prunable, restore, restore_tokens,
};
pub use jwt::{JwtSigner, JwtSvidRequest};
pub use profile::ProfileError;
pub use public_key::{PublicKeyError, SubjectKey};
pub use slots::{AuthoritySlots, Family, Slot, SlotError, SlotStep, guaranteed_svid_ttl_secs};
pub use subject::{CaSubject, SubjectError, SvidSubject};
pub use token::{Jwt, SignedToken, TokenFamily, TokenSignError, TokenSigner, Wit};
pub use upstream_ca::{UpstreamCa, UpstreamCaError, UpstreamSignError, authority_request};
pub use wit::{ConfirmationKeyError, WitSigner, WitSvidRequest, confirmation_key};
pub use x509_ca::{AuthorityError, SignError, SignedSvid, SvidRequest, X509Ca};
