//! Connections that are one too many, kept open and unread before they are closed one after the other.
//!
//! Whoever finds its connection closed opens the next one at once, the queue of the listener fills with those, and everybody
//! else waits behind them. So they are closed as slowly as there is room to hold them. Start at [`Held::hold`].

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::crowd::{Crowd, CrowdLimits, Place};

/// How long each is held at least.
const HELD_FOR: Duration = Duration::from_secs(1);

/// Between one and the next, for they may have come all at once.
const CLOSED_EVERY: Duration = Duration::from_millis(1);

/// Those that are held, the oldest first.
#[derive(Debug)]
pub(super) struct Held {
    crowd: Crowd,
    streams: VecDeque<HeldStream>,
    /// Set while there are any, for the oldest.
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct HeldStream {
    until: Instant,
    _stream: UnixStream,
    _place: Place,
}

impl Held {
    /// None yet, and room for so many.
    pub(super) fn new(limits: CrowdLimits) -> Self {
        Self { crowd: Crowd::new(limits), streams: VecDeque::new(), alarm: None }
    }

    /// Holds `stream` of process `pid` of user `uid`; closes it at once when there is no room for it.
    pub(super) fn hold(&mut self, stream: UnixStream, uid: u32, pid: i32) {
        if let Ok(place) = self.crowd.enter(uid, pid) {
            let earliest = Instant::now() + HELD_FOR;
            let until = self.streams.back().map_or(earliest, |last| earliest.max(last.until + CLOSED_EVERY));
            self.streams.push_back(HeldStream { until, _stream: stream, _place: place });
        }
    }

    /// Closes those whose time has come, and has the task woken for the next one.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) {
        while let Some(oldest) = self.streams.front() {
            let until = oldest.until;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if alarm.deadline() != until {
                alarm.as_mut().reset(until);
            }
            match alarm.as_mut().poll(cx) {
                Poll::Ready(()) => drop(self.streams.pop_front()),
                Poll::Pending => return,
            }
        }
        self.alarm = None;
        self.streams.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};

    use super::*;

    const LIMITS: CrowdLimits = CrowdLimits { total: 10, per_user: 6, per_process: 3 };

    /// A held connection as its process sees it.
    fn hold(held: &mut Held, uid: u32, pid: i32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        held.hold(ours, uid, pid);
        theirs
    }

    fn is_closed(mut theirs: &UnixStream) -> bool {
        match theirs.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    async fn closed(held: &mut Held, all: &[UnixStream]) -> Vec<bool> {
        let close = std::future::poll_fn(|cx| {
            held.poll_close(cx);
            Poll::Ready(())
        });
        close.await;
        all.iter().map(is_closed).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_closed_a_moment_later_and_one_after_the_other() {
        let mut held = Held::new(LIMITS);
        let all: Vec<UnixStream> = (0..3).map(|_| hold(&mut held, 1, 11)).collect();
        assert_eq!(closed(&mut held, &all).await, [false; 3]);
        tokio::time::advance(HELD_FOR).await;
        assert_eq!(closed(&mut held, &all).await, [true, false, false]);
        tokio::time::advance(CLOSED_EVERY).await;
        assert_eq!(closed(&mut held, &all).await, [true, true, false]);
        tokio::time::advance(CLOSED_EVERY).await;
        assert_eq!(closed(&mut held, &all).await, [true; 3]);
        assert!(held.alarm.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_for_which_there_is_no_room_are_closed_at_once_and_room_comes_back() {
        let mut held = Held::new(LIMITS);
        let mut all: Vec<UnixStream> = (0..4).map(|_| hold(&mut held, 1, 11)).collect();
        all.push(hold(&mut held, 2, 21));
        assert_eq!(closed(&mut held, &all).await, [false, false, false, true, false]);
        tokio::time::advance(HELD_FOR).await;
        let first = closed(&mut held, &all).await[0];
        all.push(hold(&mut held, 1, 11));
        assert_eq!((first, is_closed(all.last().unwrap())), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_is_woken_when_the_next_one_is_due() {
        let mut held = Held::new(LIMITS);
        let theirs = hold(&mut held, 1, 11);
        // Ends only if somebody wakes it.
        std::future::poll_fn(|cx| {
            held.poll_close(cx);
            if is_closed(&theirs) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
