//! Accepts connections and captures who opened them.

use std::convert::Infallible;
use std::io;
use std::os::unix::net;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use spindle_spiffe_core::Reason;
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::{debug, warn};

use super::arrival::{Arrivals, into_tokio};
use super::bind::{SocketFile, UnixClients};
use super::buckets::Rate;
use super::crowd::{Crowd, CrowdLimits, Place};
use super::held::Held;
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

/// How many are refused before other tasks have their turn, which takes some tenth of a millisecond.
const REFUSED_IN_A_ROW: u32 = 16;

/// The connections of a Unix listener. Failures to accept are logged once, waited out, and never end the stream.
#[derive(Debug)]
pub struct UnixIncoming {
    arrivals: Arrivals,
    clients: UnixClients,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
    /// How often they may come; none when that does not matter.
    pace: Option<Pace>,
    served: Crowd,
    told: Crowd,
    told_pace: Pace,
    held: Held,
    /// Since other tasks had their turn.
    refused_in_a_row: u32,
    overloaded: LogGate,
    // Declared last, so that the listener is closed before the file goes.
    socket_file: SocketFile,
}

impl UnixIncoming {
    pub(super) fn new(
        arrivals: Arrivals,
        socket_file: SocketFile,
        clients: UnixClients,
        limits: CrowdLimits,
        pace: Option<PaceLimits>,
    ) -> Self {
        Self {
            arrivals,
            clients,
            resting: None,
            is_failing: false,
            pace: pace.map(Pace::new),
            served: Crowd::new(limits),
            told: Crowd::new(CrowdLimits::TOLD),
            told_pace: Pace::new(TOLD_PACE),
            held: Held::new(CrowdLimits::held()),
            refused_in_a_row: 0,
            overloaded: LogGate::new(),
            socket_file,
        }
    }

    /// The next connection that is to be served.
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        loop {
            if let Some(resting) = &mut self.resting {
                ready!(resting.as_mut().poll(cx));
                self.resting = None;
            }
            if self.refused_in_a_row >= REFUSED_IN_A_ROW {
                self.refused_in_a_row = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.arrivals.poll_next(cx)) {
                Ok(stream) => {
                    self.is_failing = false;
                    if let Some(io) = self.accepted(stream) {
                        if self.refused_in_a_row > 0 {
                            // Its task, which runs on this thread as a rule, does not wait for more of those.
                            self.refused_in_a_row = REFUSED_IN_A_ROW;
                        }
                        return Poll::Ready(io);
                    }
                    self.refused_in_a_row += 1;
                }
                Err(error) => self.rest(&error),
            }
        }
    }

    /// The connection as it is to be served; none when it is not.
    fn accepted(&mut self, stream: net::UnixStream) -> Option<Io> {
        let credentials = getsockopt(&stream, sockopt::PeerCredentials).map_err(io::Error::from);
        let credentials = credentials.inspect_err(log_gone).ok()?;
        let (uid, pid) = (credentials.uid(), credentials.pid());
        let (place, crowded) = match self.served.enter(uid, pid) {
            Ok(place) => (place, None),
            Err(crowded) => {
                self.log(uid, pid, || format!("{} has too many connections open", crowded.who()));
                match self.place_to_be_told(uid, pid) {
                    Some(place) => (place, Some(crowded)),
                    None => {
                        self.refuse(stream, uid, pid);
                        return None;
                    }
                }
            }
        };
        let stream = Arc::new(into_tokio(stream).inspect_err(log_gone).ok()?);
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

    /// A few are told that they are too many, which takes a connection for a moment; tools find out by its end.
    fn place_to_be_told(&self, uid: u32, pid: i32) -> Option<Place> {
        let is_told = self.clients == UnixClients::Workloads && self.told_pace.take(uid, pid).is_ok();
        is_told.then(|| self.told.enter(uid, pid).ok()).flatten()
    }

    /// All that a refused connection has cost is a look at its number: who connects as fast as he can must hold nobody up.
    fn refuse(&mut self, stream: net::UnixStream, uid: u32, pid: i32) {
        match self.clients {
            UnixClients::Workloads => self.held.hold(stream, uid, pid),
            UnixClients::Tools => drop(stream),
        }
    }

    fn log(&mut self, uid: u32, pid: i32, detail: impl FnOnce() -> String) {
        if let Some(left_out) = self.overloaded.pass() {
            let (path, detail) = (self.socket_file.path.display(), detail());
            warn!(path = %path, caller_uid = uid, pid, reason = Reason::Overloaded.code(), detail, left_out,
                "A connection is one too many");
        }
    }

    fn rest(&mut self, error: &io::Error) {
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
        let next = this.poll_served(cx);
        if next.is_pending() {
            // At the end: who was refused just now is held, too.
            this.held.poll_close(cx);
        }
        next.map(|io| Some(Ok(io)))
    }
}

fn log_gone(error: &io::Error) {
    debug!(%error, "A local caller left before it was accepted, or cannot be held");
}

fn local_peer(stream: &Arc<UnixStream>, credentials: UnixCredentials) -> io::Result<LocalPeer> {
    Ok(LocalPeer {
        pid: credentials.pid(),
        uid: credentials.uid(),
        gid: credentials.gid(),
        pidfd: PeerPidfd::of(stream)?,
        notes: Notes::default(),
    })
}
