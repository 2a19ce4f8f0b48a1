//! Why a TLS connection did not come about, seen from either side.

use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use spindle_spiffe_core::{Reason, VerifyError};

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// We refuse the peer's certificate.
    #[error("the peer is refused")]
    Refused(#[from] VerifyError),
    /// The peer refuses us. TLS tells no more than the alert.
    #[error("the peer refuses us with TLS alert {0:?}")]
    RefusedByPeer(AlertDescription),
    /// The peer presented no certificate although it had to, or the check did not run.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// TLS does not work out: other protocol versions, no TLS at all, or a forged message.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
    /// The peer was too slow.
    #[error("the TLS handshake took longer than {} s", .0.as_secs())]
    Timeout(Duration),
}

impl HandshakeError {
    /// The code to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(error) => error.reason(),
            Self::RefusedByPeer(alert) => alert_reason(*alert),
            // A valid chain whose key the peer could not prove to have, too.
            Self::NoCertificate | Self::Tls(rustls::Error::InvalidCertificate(_)) => Reason::PeerNotTrusted,
            Self::Tls(_) | Self::Io(_) | Self::Timeout(_) => Reason::Unreachable,
        }
    }

    /// Whether nothing was said that a log should keep: port scans and health probes open and close.
    pub(super) fn is_silent_end(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// As [`HandshakeError::from_io`], at a point where no alert can be about certificates.
    pub(super) fn before_certificates(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error),
        }
    }

    /// What tokio-rustls reports: the TLS error is wrapped in an I/O error.
    pub(super) fn from_io(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::AlertReceived(alert)) => Self::RefusedByPeer(*alert),
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error),
        }
    }
}

/// The TLS error inside an I/O error.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Alerts about certificates concern ours, as the peer sees it; every other alert means that TLS does not work out.
fn alert_reason(alert: AlertDescription) -> Reason {
    match alert {
        AlertDescription::CertificateExpired => Reason::PeerExpired,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => Reason::PeerNotTrusted,
        _ => Reason::Unreachable,
    }
}

/// Why a server could not be dialed, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The network: no such name, nobody listens, no route, too slow.
    #[error("cannot connect to {target}")]
    Connect {
        /// Host and port.
        target: String,
        /// What the network says.
        source: io::Error,
    },
    /// TLS: one side refuses the other, or does not speak it.
    #[error("no TLS connection to {target}")]
    Handshake {
        /// Host and port.
        target: String,
        /// What went wrong.
        source: HandshakeError,
    },
    /// The address cannot be dialed at all.
    #[error("{target:?} is not an address to dial")]
    Address {
        /// Host and port.
        target: String,
    },
    /// HTTP/2 does not come about.
    #[error("no gRPC server answers at {target}")]
    Protocol {
        /// Host and port.
        target: String,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// A connection to an unverified server was lost; it is never made twice.
    #[error("the unverified connection to {target} was lost and is not made again")]
    OnceOnly {
        /// Host and port.
        target: String,
    },
}

impl DialError {
    /// Whether the other side refuses our certificate, as far as a TLS alert can tell.
    pub fn is_refusal_by_peer(&self) -> bool {
        let Self::Handshake { source: HandshakeError::RefusedByPeer(alert), .. } = self else { return false };
        alert_reason(*alert) != Reason::Unreachable
    }

    /// Whether the other side's certificate is well formed and no authority that is trusted vouches for it.
    pub fn is_unknown_authority(&self) -> bool {
        matches!(
            self,
            Self::Handshake { source: HandshakeError::Refused(error), .. } if error.is_unknown_authority()
        )
    }

    /// The code to show: not trusted, wrong identity and expired are told apart from not reachable.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Handshake { source, .. } => source.reason(),
            Self::Address { .. } => Reason::BadRequest,
            Self::Connect { .. } | Self::Protocol { .. } | Self::OnceOnly { .. } => Reason::Unreachable,
        }
    }
}
