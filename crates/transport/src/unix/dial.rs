//! gRPC channels to a Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use spindle_spiffe_core::Reason;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A full accept queue holds a connect up; a healthy server empties it at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a local server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum UnixDialError {
    /// The socket is missing, refused, or not ours to use.
    #[error("cannot connect to {}: {source}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// What answers does not speak HTTP/2.
    #[error("no gRPC server answers on {}", .path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
}

impl UnixDialError {
    /// The code to show.
    pub fn reason(&self) -> Reason {
        Reason::Unreachable
    }
}

/// Connects to the server on `path`, and again by itself when the connection is lost.
///
/// # Errors
/// When nobody answers there now.
pub async fn connect_unix(path: impl AsRef<Path>) -> Result<Channel, UnixDialError> {
    let path = path.as_ref().to_owned();
    // Tried on its own first: the channel's error would hide what the kernel said.
    connect(&path).await.map_err(|source| UnixDialError::Connect { path: path.clone(), source })?;
    let (endpoint, dialed) = (endpoint(), path.clone());
    endpoint
        .connect_with_connector(service_fn(move |_| {
            let path = dialed.clone();
            async move { connect(&path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|source| UnixDialError::Protocol { path, source })
}

/// A channel to the server on `path` that connects at the first call, and again when the connection is lost.
pub fn connect_unix_lazy(path: impl AsRef<Path>) -> Channel {
    let path = path.as_ref().to_owned();
    endpoint().connect_with_connector_lazy(service_fn(move |_| {
        let path = path.clone();
        async move { connect(&path).await.map(TokioIo::new) }
    }))
}

/// `localhost` is what the gRPC libraries agree on as the authority of a Unix socket.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not accept connections")),
    }
}
