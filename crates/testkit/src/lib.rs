//! What tests of several crates share: time and chance under control, an authority that signs, temporary folders.
//!
//! Tests only, so everything panics instead of returning errors. Same seed and same order of calls give the same ids and
//! serials; keys and signatures keep their own randomness. Start at [`TestAuthority`].

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test, with the place that asked for it")]

mod authority;
mod clock;
mod entropy;
mod folder;
mod jwt_authority;
mod left_out;
mod node_pki;
mod upstream;
mod wit_authority;

pub use authority::{TestAuthority, TestIdentity};
pub use clock::{ManualClock, NOW};
pub use entropy::SeededEntropy;
pub use folder::TestFolder;
pub use jwt_authority::TestJwtAuthority;
pub use left_out::left_out;
pub use node_pki::{NodeCertificate, NodeKeyKind, NodePki, NodeRequest};
pub use upstream::UpstreamFiles;
pub use wit_authority::TestWitAuthority;
