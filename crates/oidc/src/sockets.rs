//! Listening sockets.

use std::io::{self, ErrorKind};

use tokio::net::TcpListener;

use crate::config::ListenAddress;

/// Listens; an address without a host is every address of the machine, of both IP versions where there are two.
pub(crate) async fn bind(address: &ListenAddress) -> io::Result<TcpListener> {
    if let Some(host) = &address.host {
        return TcpListener::bind((host.as_str(), address.port)).await;
    }
    match TcpListener::bind(("::", address.port)).await {
        Err(error) if !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
            TcpListener::bind(("0.0.0.0", address.port)).await
        }
        bound => bound,
    }
}
