//! Whether the endpoint can be reached: the agent shakes hands with itself on each of its sockets, as a broker would.
//!
//! No call is made, for the agent is no broker. What a handshake shows is that connections are accepted and that the SVID which
//! brokers are shown is still good.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spindle_spiffe_core::{Clock, ErrorChain};
use spindle_transport::{DialError, ExpectedServer, LiveBundles, LiveIdentity, TlsDialer, Trust};

/// Shakes hands with the endpoint.
#[derive(Clone)]
pub(crate) struct Reachable {
    /// Its Unix socket.
    pub(crate) socket: Option<PathBuf>,
    /// Its port.
    pub(crate) address: Option<SocketAddr>,
    /// What brokers are shown.
    pub(crate) identity: LiveIdentity,
    /// The authorities of the own trust domain.
    pub(crate) bundles: LiveBundles,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Reachable {
    /// Confirms that each socket answers.
    ///
    /// # Errors
    /// In words, which one does not.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let svid = self.identity.svid().ok_or("the broker endpoint has no SVID to show")?;
        let dialer = |host: String, port| {
            let trust = Trust::Bundles(self.bundles.clone());
            let expected = ExpectedServer::Id(svid.spiffe_id().clone());
            TlsDialer::new(host, port, trust, expected, self.clock.clone())
                .with_identity(self.identity.clone())
        };
        let failed = |error: DialError| format!("cannot reach the broker endpoint: {}", ErrorChain(&error));
        if let Some(path) = &self.socket {
            dialer("localhost".into(), 0).connect_unix(path).await.map_err(failed)?;
        }
        if let Some(address) = self.address {
            dialer(address.ip().to_string(), address.port()).connect().await.map_err(failed)?;
        }
        Ok(())
    }
}
