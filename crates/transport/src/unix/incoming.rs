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
use super::crowd::{Crowd, CrowdLimits, Crowded};
use super::pace::{Pace, PaceLimits, TooOften};
use super::stream::SharedStream;
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::{LocalPeer, Notes, PeerPidfd};

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How often those that come too often are told so; the others are closed without a word.
const TOLD_PACE: PaceLimits =
    PaceLimits { per_process: Rate { burst: 8, per_sec: 2 }, per_user: Rate { burst: 64, per_sec: 16 } };

/// Why a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// So many are open.
    AtATime(Crowded),
    /// So many were opened in a short time.
    OfLate(TooOften),
}

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtATime(crowded) => write!(f, "{} has too many connections open", crowded.who()),
            Self::OfLate(too_often) => write!(f, "{} opens connections too often", too_often.who.who()),
        }
    }
}

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
    too_many: LogGate,
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
            too_many: LogGate::new(),
            socket_file,
        }
    }

    fn accepted(&mut self, stream: UnixStream) -> Option<Io> {
        let credentials = stream.peer_cred().inspect_err(log_gone).ok()?;
        let (uid, pid) = (credentials.uid(), credentials.pid().unwrap_or(0));
        let too_often = self.pace.as_ref().and_then(|pace| pace.take(uid, pid).err());
        // Whoever opens connections as fast as he can costs a look at his number, and nothing else.
        if too_often.is_some() && self.told_pace.take(uid, pid).is_err() {
            return None;
        }
        let stream = Arc::new(stream);
        let peer = local_peer(&stream, credentials).inspect_err(log_gone).ok()?;
        let stream = SharedStream::new(stream);
        let entered = match too_often {
            Some(too_often) => Err(TooMany::OfLate(too_often)),
            None => self.served.enter(uid, pid).map_err(TooMany::AtATime),
        };
        let too_many = match (entered, self.clients) {
            (Ok(place), UnixClients::Workloads) => return Some(Io::workload(stream, peer, place)),
            (Ok(place), UnixClients::Tools) => return Some(Io::local(stream, peer, place)),
            (Err(too_many), _) => too_many,
        };
        self.log_too_many(&peer, too_many);
        // A few are told, which takes a connection for a moment; tools find out by its end.
        let place = self.told.enter(uid, pid).ok();
        let place = place.filter(|_| self.clients == UnixClients::Workloads)?;
        Some(Io::workload(stream, peer, place).too_many(too_many))
    }

    fn log_too_many(&mut self, peer: &LocalPeer, why: TooMany) {
        if let Some(left_out) = self.too_many.pass() {
            let path = self.socket_file.path.display();
            let detail = why.to_string();
            warn!(path = %path, caller_uid = peer.uid, pid = peer.pid, reason = Reason::Overloaded.code(),
                detail, left_out, "A connection was refused");
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
