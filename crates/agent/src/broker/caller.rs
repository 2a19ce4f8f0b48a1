//! The broker behind a call: named by the certificate of its connection, and looked at again before each answer.

use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Reason, SpiffeId, verify_x509_svid};
use spindle_transport::{Peer, VerifiedPeer};
use tonic::{Code, Status};

use super::Parts;
use super::access::{Allowed, Denied, Way};

/// A caller that is on the list.
#[derive(Clone)]
pub(super) struct Broker {
    certificate: VerifiedPeer,
    way: Way,
    allowed: Allowed,
}

impl Broker {
    /// The broker at the other end of a connection.
    ///
    /// # Errors
    /// UNAUTHENTICATED when it cannot be told who that is (any more), PERMISSION_DENIED when it is no broker (Broker
    /// Endpoint 6).
    pub(super) fn identify(parts: &Parts, peer: Option<&Peer>) -> Result<Self, Status> {
        let (certificate, way) = match peer {
            Some(Peer::Tls { identity: Some(peer), .. }) => (peer, Way::Tcp),
            Some(Peer::LocalTls { identity: Some(peer), .. }) => (peer, Way::Local),
            _ => {
                let text = "the caller has shown no X509-SVID";
                return Err(refusal(Code::Unauthenticated, Reason::PeerNotTrusted, text));
            }
        };
        still_trusted(parts, certificate)?;
        let Some(allowed) = parts.brokers.find(certificate.spiffe_id()) else {
            let text = format!("{} is not a broker", certificate.spiffe_id());
            return Err(refusal(Code::PermissionDenied, Reason::NotABroker, &text));
        };
        Ok(Self { certificate: certificate.clone(), way, allowed: allowed.clone() })
    }

    /// Its identity.
    pub(super) fn id(&self) -> &SpiffeId {
        self.certificate.spiffe_id()
    }

    /// Whether it may name workloads by `type_url` on this connection.
    pub(super) fn may_use(&self, type_url: &str) -> Result<(), Denied> {
        self.allowed.check(type_url, self.way)
    }

    /// Confirms that its certificate still holds. A stream can outlive it.
    ///
    /// # Errors
    /// UNAUTHENTICATED, upon which the broker comes back with a new one.
    pub(super) fn check_again(&self, parts: &Parts) -> Result<(), Status> {
        still_trusted(parts, &self.certificate)
    }
}

/// The connection can be older than the end of the certificate, and than the end of the trust in who signed it.
fn still_trusted(parts: &Parts, certificate: &VerifiedPeer) -> Result<(), Status> {
    match verify_x509_svid(certificate.chain(), &parts.bundles.load(), parts.clock.now()) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = "the caller's X509-SVID is no longer accepted; connect with a new one";
            Err(refusal(Code::Unauthenticated, error.reason(), text))
        }
    }
}
