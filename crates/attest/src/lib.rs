//! Turns the process at the other end of a Unix socket into selectors.
//!
//! A [`Caller`] pins one process, so that a reused process number is never taken for it; attestors read facts through that
//! handle, and [`attest_all`] makes the [`AttestedCaller`] that the rest of the agent trusts. Everything blocks and belongs
//! on a blocking thread: hashing a program and looking up names can take long. Which identities the selectors earn is
//! decided elsewhere. Start at [`Caller::open`]; how a node proves its certificate to a server is a subject of its own, in
//! [`x509pop`].

pub mod attestor;
pub mod caller;
mod digest;
mod grip;
mod process;
pub mod unix;
pub mod x509pop;

pub use attestor::{AttestError, AttestedCaller, AttestorError, Failure, WorkloadAttestor, attest_all};
pub use caller::{Caller, CallerError, Change, SocketPeer};
pub use grip::PidfdSource;
pub use process::{ExeId, ProcRoot};
pub use unix::{UnixAttestor, UnixConfig};
