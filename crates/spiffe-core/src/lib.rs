//! The nouns of the SPIFFE standards as values that cannot be wrong.
//!
//! Everything here is parsed once at the door, keeps its result private and is never checked twice. Nothing reads a
//! clock, a random source or a file: callers pass `now`. It leaves out how values travel (`spindle-proto`), where they
//! are kept (`spindle-store`) and who may have them (`spindle-server`). Start at [`SpiffeId`] and [`RegistrationEntry`].

pub mod audience;
pub mod bundle;
pub mod bundle_document;
pub mod certificate;
mod der;
pub mod entropy;
pub mod entry;
pub mod error_chain;
pub mod federation;
pub mod jws;
pub mod jwt_svid;
pub mod pem;
pub mod public_key;
pub mod reason;
pub mod replay;
pub mod selector;
pub mod spiffe_id;
pub mod time;
pub mod trust_domain;
pub mod verify;
pub mod wit_proof;
pub mod wit_svid;
pub mod x509_bundle;
pub mod x509_svid;

pub use audience::Audience;
pub use bundle::{Bundle, JwtAuthority, TokenAuthority, WitAuthority};
pub use bundle_document::BundleMap;
pub use certificate::{CertificateSummary, certificate_summary};
pub use entropy::Entropy;
pub use entry::{DnsName, EntryId, Hint, RegistrationEntry};
pub use error_chain::ErrorChain;
pub use federation::{BundleEndpointUrl, EndpointProfile, FederationRelationship};
pub use jws::{Bundles, Leeway, SignatureAlgorithm, TokenError};
pub use jwt_svid::{JwtSvidError, JwtValidation, ValidatedJwtSvid, validate_jwt_svid};
pub use public_key::PublicKey;
pub use reason::Reason;
pub use replay::{ReplayCache, ReplayError, Sighting};
pub use selector::{Selector, Selectors};
pub use spiffe_id::SpiffeId;
pub use time::{Clock, Timestamp, Validity};
pub use trust_domain::TrustDomain;
pub use verify::{VerifyError, verify_x509_svid};
pub use wit_proof::{OtherTokens, Presentation, ProofRequest, ProofTarget, ProofValidation};
pub use wit_svid::{ProvenWit, UnprovenWit, WitSvidError, WitValidation, validate_wit_svid};
pub use x509_bundle::{X509Authority, X509Bundle, X509Bundles};
pub use x509_svid::{Serial, X509Svid};
