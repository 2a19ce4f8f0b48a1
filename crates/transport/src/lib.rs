//! Listeners and dialers over Unix sockets and mutual TLS, with peers named by SPIFFE ID.
//!
//! Promises: identities and bundles are replaced while connections run, a verified peer cannot be made up, and one slow or
//! hostile peer holds nobody else up. Who may call what, and when an open connection has to end, is decided above. Start at
//! [`UnixListener`] and [`TlsListener`] for servers, [`connect_unix`] and [`TlsDialer`] for clients, [`peer_of`] in handlers.

pub mod grpc;
pub mod headers;
mod io;
mod log_gate;
pub mod peer;
mod serve;
pub mod tls;
pub mod unix;

pub use grpc::grpc_server;
pub use headers::HeaderShim;
pub use io::Io;
pub use log_gate::LogGate;
pub use peer::{LocalPeer, Notes, Peer, PeerPidfd, VerifiedPeer, peer_of};
pub use serve::serve;
pub use tls::{
    DialError, ExpectedServer, HandshakeError, IdentityError, KeyExchange, LiveBundles, LiveIdentity,
    ServerTls, TlsDialer, TlsIncoming, TlsListener, Trust,
};
pub use unix::{
    Buckets, Crowd, CrowdLimits, Crowded, Pace, PaceLimits, Place, Rate, TooOften, UnixBindError,
    UnixClients, UnixDialError, UnixIncoming, UnixListener, UnixSocketConfig, connect_unix,
    connect_unix_lazy, is_ourselves,
};
