//! Accepts connections and captures who opened them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use spindle_spiffe_core::Reason;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::{debug, warn};

use super::bind::{SocketFile, UnixClients};
use super::buckets::Rate;
use super::crowd::{Crowd, CrowdLimits};
use super::pace::{Pace, PaceLimits};
use super::stream::SharedStream;
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::{LocalPeer, Notes, PeerPidfd};

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How often callers are told that they have too many connections.
const TOLD_PACE: PaceLimits =
    PaceLimits { per_process: Rate { burst: 100, per_sec: 2 }, per_user: Rate { burst: 200, per_sec: 16 } };

/// The connections of a Unix listener. Failures to accept are logged once, waited out, and never end the stream.
#[derive(Debug)]
pub struct UnixIncoming {
    listener: UnixListener,
    clients: UnixClients,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
    /// How often they may come; none when that does not matter.
    pace: Option<Pace>,
    served: Crowd,
    told: Crowd,
    told_pace: Pace,
    overloaded: LogGate,
    // Declared last, so that the listener is closed before the file goes.
    socket_file: SocketFile,
}

impl UnixIncoming {
    pub(super) fn new(
        listener: UnixListener,
        socket_file: SocketFile,
        clients: UnixClients,
        limits: CrowdLimits,
        pace: Option<PaceLimits>,
    ) -> Self {
        Self {
            listener,
            clients,
            resting: None,
            is_failing: false,
            pace: pace.map(Pace::new),
            served: Crowd::new(limits),
            told: Crowd::new(CrowdLimits::TOLD),
            told_pace: Pace::new(TOLD_PACE),
            overloaded: LogGate::new(),
            socket_file,
        }
    }

    fn accepted(&mut self, stream: UnixStream) -> Option<Io> {
        let credentials = stream.peer_cred().inspect_err(log_gone).ok()?;
        let (uid, pid) = (credentials.uid(), credentials.pid().unwrap_or(0));
        let (place, crowded) = match self.served.enter(uid, pid) {
            Ok(place) => (place, None),
            Err(crowded) => {
                self.log(uid, pid, || format!("{} has too many connections open", crowded.who()));
                // A few are told, which takes a connection for a moment; tools find out by its end. All others have cost
                // no more than a look at their number: who connects as fast as he can must hold nobody up.
                let is_told = self.clients == UnixClients::Workloads && self.told_pace.take(uid, pid).is_ok();
                (is_told.then(|| self.told.enter(uid, pid).ok()).flatten()?, Some(crowded))
            }
        };
        let stream = Arc::new(stream);
        let peer = local_peer(&stream, credentials).inspect_err(log_gone).ok()?;
        let stream = SharedStream::new(stream);
        let io = match self.clients {
            UnixClients::Workloads => Io::workload(stream, peer, place),
            UnixClients::Tools => Io::local(stream, peer, place),
        };
        if let Some(crowded) = crowded {
            return Some(io.too_many(crowded));
        }
        // Those that wait have their places, so that there are no more of them than may be open.
        let turn = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.turn(uid, pid));
        if !turn.is_zero() {
            self.log(uid, pid, || format!("connections are opened too often, this one waits {turn:?}"));
        }
        Some(io.wait_for_turn(turn))
    }

    fn log(&mut self, uid: u32, pid: i32, detail: impl FnOnce() -> String) {
        if let Some(left_out) = self.overloaded.pass() {
            let (path, detail) = (self.socket_file.path.display(), detail());
            warn!(path = %path, caller_uid = uid, pid, reason = Reason::Overloaded.code(), detail, left_out,
                "A connection is one too many");
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

fn log_gone(error: &std::io::Error) {
    debug!(%error, "A local caller left before it was accepted, or cannot be held");
}

fn local_peer(stream: &Arc<UnixStream>, credentials: UCred) -> std::io::Result<LocalPeer> {
    Ok(LocalPeer {
        pid: credentials.pid().unwrap_or(0),
        uid: credentials.uid(),
        gid: credentials.gid(),
        pidfd: PeerPidfd::of(stream)?,
        notes: Notes::default(),
    })
}
