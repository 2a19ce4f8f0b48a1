//! Unix sockets: a listener that knows the process at the other end, and dialers.
//!
//! A listener takes over a path only from a socket that nobody answers on, sets the mode before anyone can connect, and
//! on its end removes its own socket only. What a peer may do is not decided here. Start at [`UnixListener::bind`].

mod arrival;
mod bind;
mod buckets;
pub(crate) mod crowd;
mod dial;
mod held;
mod incoming;
mod pace;
pub(crate) mod stream;

pub use bind::{UnixBindError, UnixClients, UnixListener, UnixSocketConfig};
pub use buckets::{Buckets, Rate};
pub use crowd::{Crowd, CrowdLimits, Crowded, Place, is_ourselves};
pub use dial::{UnixDialError, connect_unix, connect_unix_lazy};
pub use incoming::UnixIncoming;
pub use pace::{Pace, PaceLimits, TooOften};

#[cfg(test)]
mod tests;
