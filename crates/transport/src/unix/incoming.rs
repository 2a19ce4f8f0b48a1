//! Accepts connections and captures who opened them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use spindle_spiffe_core::Reason;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::{debug, warn};

use super::bind::{SocketFile, UnixClients};
use super::crowd::{Crowd, CrowdLimits, Crowded};
use super::stream::SharedStream;
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::{LocalPeer, Notes, PeerPidfd};

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The connections of a Unix listener. Failures to accept are logged once, waited out, and never end the stream.
#[derive(Debug)]
pub struct UnixIncoming {
    listener: UnixListener,
    clients: UnixClients,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
    served: Crowd,
    told: Crowd,
    crowded: LogGate,
    // Declared last, so that the listener is closed before the file goes.
    socket_file: SocketFile,
}

impl UnixIncoming {
    pub(super) fn new(
        listener: UnixListener,
        socket_file: SocketFile,
        clients: UnixClients,
        limits: CrowdLimits,
    ) -> Self {
        let (served, told, crowded) = (Crowd::new(limits), Crowd::new(CrowdLimits::TOLD), LogGate::new());
        Self { listener, clients, resting: None, is_failing: false, served, told, crowded, socket_file }
    }

    fn accepted(&mut self, stream: UnixStream) -> Option<Io> {
        let stream = Arc::new(stream);
        let peer = match local_peer(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%error, "A local caller left before it was accepted, or cannot be held");
                return None;
            }
        };
        let stream = SharedStream::new(stream);
        let crowded = match (self.served.enter(peer.uid, peer.pid), self.clients) {
            (Ok(place), UnixClients::Workloads) => return Some(Io::workload(stream, peer, place)),
            (Ok(place), UnixClients::Tools) => return Some(Io::local(stream, peer, place)),
            (Err(crowded), _) => crowded,
        };
        self.log_crowd(&peer, crowded);
        // A few are told, which takes a connection for a moment; tools find out by its end.
        let place = self.told.enter(peer.uid, peer.pid).ok();
        let place = place.filter(|_| self.clients == UnixClients::Workloads)?;
        Some(Io::workload(stream, peer, place).too_many(crowded))
    }

    fn log_crowd(&mut self, peer: &LocalPeer, crowded: Crowded) {
        if let Some(left_out) = self.crowded.pass() {
            let path = self.socket_file.path.display();
            warn!(path = %path, caller_uid = peer.uid, pid = peer.pid, reason = Reason::Overloaded.code(),
                who = crowded.who(), left_out, "Too many connections are open, a further one is refused");
        }
    }

    fn rest(&mut self, error: &std::io::Error) {
        if !self.is_failing {
            let path = self.socket_file.path.display();
            warn!(path = %path, %error, "Cannot accept connections, will keep trying");
        }
        self.is_failing = true;
        self.resting = Some(Box::pin(sleep(BACK_OFF)));
    }
}

impl Stream for UnixIncoming {
    type Item = Result<Io, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(resting) = &mut this.resting {
                ready!(resting.as_mut().poll(cx));
                this.resting = None;
            }
            match ready!(this.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    this.is_failing = false;
                    if let Some(io) = this.accepted(stream) {
                        return Poll::Ready(Some(Ok(io)));
                    }
                }
                Err(error) => this.rest(&error),
            }
        }
    }
}

fn local_peer(stream: &Arc<UnixStream>) -> std::io::Result<LocalPeer> {
    let credentials = stream.peer_cred()?;
    Ok(LocalPeer {
        pid: credentials.pid().unwrap_or(0),
        uid: credentials.uid(),
        gid: credentials.gid(),
        pidfd: PeerPidfd::of(stream)?,
        notes: Notes::default(),
    })
}
