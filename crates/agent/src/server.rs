//! The agent's link to its server: one connection with the agent's identity, reopened when that identity is renewed.
//!
//! The server looks at the certificate of the connection on each call, so after a renewal new calls go over a new
//! connection. What the server says about the agent's standing is passed on, unless it was said to an identity that has
//! been replaced since. Start at [`ServerLink::open`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::server::svid::v1 as svid;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_transport::{DialError, TlsDialer};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::call_error::CallError;
use crate::identities::{Signer, SigningAnswer, SigningRequest};

/// How long one call may take, SPIRE's bound.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer taken: 500 chains with intermediates, or 500 large entries.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The shared link. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServerLink(Arc<Shared>);

struct Shared {
    dialer: TlsDialer,
    current: Mutex<Current>,
    /// Held while dialing, so that many callers make one connection.
    dialing: tokio::sync::Mutex<()>,
    /// Which identity of the agent it is. Changed only while `current` is locked.
    generation: watch::Sender<u64>,
    heard: mpsc::Sender<Heard>,
    seen: watch::Sender<Seen>,
}

/// What the last attempt to connect showed of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing yet.
    #[default]
    Nothing,
    /// It is the right one.
    Trusted,
    /// No trusted authority vouches for it.
    Untrusted,
}

/// What the server says of the agent's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// In answer to a call.
    Standing(Standing),
    /// In the TLS handshake: it does not trust the certificate, which is all that TLS can tell.
    CertificateRefused,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Connections made so far.
    made: u64,
}

/// A connection under one identity of the agent.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    generation: u64,
    /// Unlike any other connection's.
    number: u64,
}

impl ServerLink {
    /// A link that is not connected yet, and where to hear what the server says of the agent.
    pub(crate) fn new(dialer: TlsDialer) -> (Self, mpsc::Receiver<Heard>) {
        let (heard, receiver) = mpsc::channel(1);
        let shared = Shared {
            dialer,
            current: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            generation: watch::Sender::new(0),
            heard,
            seen: watch::Sender::default(),
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// The connection of the moment, made when there is none.
    pub(crate) async fn open(&self) -> Result<Connection, CallError> {
        let _dialing = self.0.dialing.lock().await;
        loop {
            if let Some(connection) = self.lock().connection.clone() {
                return Ok(connection);
            }
            let generation = self.generation();
            let dialed = self.0.dialer.connect().await;
            let channel = dialed.inspect_err(|error| self.look_at(error))?;
            self.0.seen.send_replace(Seen::Trusted);
            if let Some(connection) = self.keep(channel, generation) {
                return Ok(connection);
            }
        }
    }

    /// Makes `channel` the connection of the moment; none when the identity it was dialed under has been replaced.
    fn keep(&self, channel: Channel, generation: u64) -> Option<Connection> {
        let mut current = self.lock();
        if generation != self.generation() {
            return None;
        }
        current.made += 1;
        let connection = Connection { channel, generation, number: current.made };
        current.connection = Some(connection.clone());
        Some(connection)
    }

    /// Gives the connection up, for the agent has a new identity. Calls under way may still end well.
    pub(crate) fn reopen(&self) {
        let mut current = self.lock();
        self.0.generation.send_modify(|generation| *generation += 1);
        current.connection.take();
    }

    /// Told of each [`ServerLink::reopen`].
    pub(crate) fn reopened(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Told of each attempt to connect that shows something of the server.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.0.seen.subscribe()
    }

    fn look_at(&self, fault: &DialError) {
        if fault.is_unknown_authority() {
            self.0.seen.send_replace(Seen::Untrusted);
        }
    }

    /// Host and port, for logs.
    pub(crate) fn target(&self) -> String {
        self.0.dialer.target()
    }

    /// What `status` means. The agent's standing is passed on, and a broken connection is given up and explained.
    pub(crate) fn failed(&self, connection: &Connection, status: Status) -> CallError {
        let error = CallError::from(status);
        if let Some(standing) = error.standing() {
            if connection.generation != self.generation() {
                return Status::unavailable("the server refused an identity that has been replaced since")
                    .into();
            }
            self.say(Heard::Standing(standing));
            return error;
        }
        match error.code() {
            Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) => {
                self.give_up(connection);
                let Some(fault) = self.0.dialer.last_fault() else { return error };
                self.look_at(&fault);
                if fault.is_refusal_by_peer() && connection.generation == self.generation() {
                    self.say(Heard::CertificateRefused);
                }
                CallError::Dial(fault)
            }
            _ => error,
        }
    }

    /// Makes a unary call within [`CALL_TIMEOUT`].
    pub(crate) async fn call<T, F>(&self, call: impl FnOnce(Channel) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let connection = self.open().await?;
        let answer = timeout(CALL_TIMEOUT, call(connection.channel.clone()))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server did not answer in time")));
        answer.map(tonic::Response::into_inner).map_err(|status| self.failed(&connection, status))
    }

    /// One is enough: while it waits to be heard, the next says the same.
    fn say(&self, what: Heard) {
        let _ = self.0.heard.try_send(what);
    }

    fn give_up(&self, connection: &Connection) {
        let mut current = self.lock();
        if current.connection.as_ref().is_some_and(|one| one.number == connection.number) {
            current.connection.take();
        }
    }

    fn generation(&self) -> u64 {
        *self.0.generation.borrow()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signer for ServerLink {
    fn sign(
        &self,
        requests: Vec<SigningRequest>,
    ) -> BoxFuture<'static, Result<Vec<SigningAnswer>, CallError>> {
        let link = self.clone();
        Box::pin(async move {
            let params = requests
                .into_iter()
                .map(|one| svid::NewX509svidParams {
                    entry_id: one.entry_id.as_str().into(),
                    csr: one.csr.into(),
                })
                .collect();
            let request = svid::BatchNewX509svidRequest { params };
            let answer = link
                .call(|channel| async move {
                    SvidClient::new(channel)
                        .max_decoding_message_size(ANSWER_BYTES_MAX)
                        .batch_new_x509svid(request)
                        .await
                })
                .await?;
            Ok(answer.results.into_iter().map(signing_answer).collect())
        })
    }
}

fn signing_answer(result: svid::batch_new_x509svid_response::Result) -> SigningAnswer {
    let status = result.status.unwrap_or_default();
    match result.svid {
        Some(svid) if status.code == 0 => Ok(svid.cert_chain),
        _ if status.code == 0 => Err("the server answered without a certificate".into()),
        // A server of SPIRE sends no reason.
        _ => Err(match Refusal::of_item(&status) {
            Some(refusal) => format!("{} (reason: {})", status.message, refusal.code),
            None => status.message,
        }),
    }
}

#[cfg(test)]
mod tests {
    use spindle_proto::refusal::agent_refusal;
    use spindle_proto::spire::api::types;
    use spindle_spiffe_core::{Reason, X509Bundles};
    use spindle_transport::{ExpectedServer, LiveBundles, Trust};
    use tonic::transport::Endpoint;

    use super::*;
    use crate::fixtures::{ManualClock, trust_domain};

    #[test]
    fn a_refused_item_tells_its_reason_when_the_server_sends_one() {
        let answer = |reason: &str| {
            let (code, message) = (Code::NotFound as i32, "entry not found".into());
            let status = Some(types::Status { code, message, reason: reason.into() });
            signing_answer(svid::batch_new_x509svid_response::Result { status, svid: None })
        };
        assert_eq!(
            answer("entry_not_authorized"),
            Err("entry not found (reason: entry_not_authorized)".into())
        );
        assert_eq!(answer(""), Err("entry not found".into()));
    }

    fn link() -> (ServerLink, mpsc::Receiver<Heard>) {
        let trust = Trust::Bundles(LiveBundles::new(X509Bundles::default()));
        let expected = ExpectedServer::Id(trust_domain().server_id());
        ServerLink::new(TlsDialer::new("127.0.0.1", 1, trust, expected, ManualClock::default().shared()))
    }

    fn channel() -> Channel {
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    }

    #[tokio::test]
    async fn a_connection_dialed_under_an_identity_that_was_replaced_meanwhile_is_not_kept() {
        let (link, _standing) = link();
        let dialed_under = link.generation();
        link.reopen();
        assert!(link.keep(channel(), dialed_under).is_none());
        assert!(link.lock().connection.is_none());
        let kept = link.keep(channel(), link.generation()).expect("it is the newest identity's");
        assert_eq!(link.open().await.unwrap().number, kept.number);
    }

    #[tokio::test]
    async fn a_failure_gives_up_the_connection_it_happened_on_and_no_other() {
        let (link, _standing) = link();
        let old = link.keep(channel(), 0).unwrap();
        let new = link.keep(channel(), 0).unwrap();
        link.failed(&old, Status::unavailable("broken"));
        assert_eq!(link.lock().connection.as_ref().map(|one| one.number), Some(new.number));
        link.failed(&new, Status::unavailable("broken"));
        assert!(link.lock().connection.is_none());
    }

    #[tokio::test]
    async fn what_is_said_to_a_replaced_identity_is_no_standing() {
        let (link, mut heard) = link();
        let old = link.keep(channel(), 0).unwrap();
        let refused = || agent_refusal("RenewAgent", Reason::AgentNotActive);
        assert_eq!(link.failed(&old, refused()).standing(), Some(Standing::AgentNotActive));
        assert_eq!(heard.try_recv(), Ok(Heard::Standing(Standing::AgentNotActive)));
        link.reopen();
        assert_eq!(link.failed(&old, refused()).standing(), None);
        assert!(heard.try_recv().is_err());
    }
}
