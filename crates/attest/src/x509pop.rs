//! SPIRE's node attestor `x509pop`: a node proves that it holds the private key of an X.509 certificate it was given elsewhere.
//!
//! The node shows its chain ([`Payload`]), the server answers with a nonce ([`Challenge`]), the node signs it together with
//! a nonce of its own ([`Response`]). Messages, signatures and rules of both sides are here; clock, randomness and I/O are
//! the callers'. A server starts at [`Verifier::begin`], a node at [`NodeKey::answer`].

mod certificate;
mod message;
mod path_template;
mod proof;
mod roots;
mod verifier;

pub use message::{Challenge, MESSAGE_BYTES_MAX, MessageError, Payload, Response};
pub use path_template::{PathTemplate, PathTemplateError};
pub use proof::{NONCE_BYTES, NodeKey, NodeKeyError, Nonce, ProofError};
pub use roots::{Roots, RootsError};
pub use verifier::{AttestedNode, Circumstances, Mode, NodeFault, Pending, Place, Settings, Verifier};

/// The plugin name, which is also the type of its selectors.
pub const NAME: &str = "x509pop";

/// SPIRE's bound on certificates between leaf and root.
pub const MAX_INTERMEDIATES: usize = 4;

/// SPIRE's bound on RSA keys in bits, which is also the most that can be verified here.
pub const MAX_RSA_BITS: usize = 8192;
