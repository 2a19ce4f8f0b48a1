//! The bounds that every gRPC server of ours runs under.

use std::time::Duration;

use tonic::transport::Server;

/// The largest HTTP/2 frame taken, in bytes: the protocol's default, and what the authority filter is built for.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// The largest decoded header list, in bytes; ours have a few hundred.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Calls at a time on one connection; a Workload API client has a handful, a proxy in front of many agents more.
pub(crate) const STREAMS_MAX: u32 = 1024;

/// A silent connection is asked for a sign of life this often, and given up when none comes: a dead node holds no stream.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);

/// How long the sign of life may take.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A server builder with bounds set, to which the caller adds services and one of this crate's listeners.
pub fn grpc_server() -> Server {
    Server::builder()
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}
