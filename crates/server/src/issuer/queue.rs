//! The line in front of signing: bounded, and honest to those it has no room for.
//!
//! A call is let in with all its CSRs or turned away with all of them, and told when there will be room, by what signing
//! took lately. Those let in share the processors part by part; an agent's own SVID goes before those of workloads, and
//! finds room when they do not, because without it the whole node is lost. Start at [`SigningQueue::enter`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// What signing one CSR is taken for until it was measured.
const CSR_TIME_GUESS: Duration = Duration::from_millis(1);

/// The share of the old measure in the new one, in parts of the whole: slow enough to forget a stall.
const MEASURE_KEEPS: u32 = 7;

/// Nobody is told to come back sooner or later than this.
const COME_BACK: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(30);

/// Which part of the whole room is kept for agents' own SVIDs, on top of it: one in so many.
const URGENT_SHARE: usize = 8;

/// Who is signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// An agent, a server below, or an administrator who waits at a terminal.
    First,
    /// Workloads.
    Usual,
}

/// The line of one server.
#[derive(Clone)]
pub(super) struct SigningQueue(Arc<Shared>);

struct Shared {
    csrs_max: usize,
    workers: usize,
    state: Mutex<State>,
}

struct State {
    /// CSRs let in and not signed yet.
    csrs: usize,
    idle_workers: usize,
    first: VecDeque<oneshot::Sender<Turn>>,
    usual: VecDeque<oneshot::Sender<Turn>>,
    csr_time: Duration,
    /// When all those who were turned away will have had their turn, if they come back when they were told to.
    promised_until: Option<Instant>,
}

/// Room in the line for the CSRs of one call; given back as they are signed, and on drop.
pub(super) struct Place {
    queue: SigningQueue,
    csrs: usize,
}

/// The right to keep one processor busy; passes to the next in line on drop.
pub(super) struct Turn {
    queue: Option<SigningQueue>,
}

impl SigningQueue {
    pub(super) fn new(csrs_max: usize, workers: usize) -> Self {
        let state = State {
            csrs: 0,
            idle_workers: workers,
            first: VecDeque::new(),
            usual: VecDeque::new(),
            csr_time: CSR_TIME_GUESS,
            promised_until: None,
        };
        Self(Arc::new(Shared { csrs_max, workers, state: Mutex::new(state) }))
    }

    /// Room for `csrs` requests, or how long it will take until there is room. One call is always let into an empty line.
    pub(super) fn enter(&self, csrs: usize, urgency: Urgency) -> Result<Place, Duration> {
        let room = match urgency {
            Urgency::First => self.0.csrs_max + self.0.csrs_max.div_ceil(URGENT_SHARE),
            Urgency::Usual => self.0.csrs_max,
        };
        let mut state = self.state();
        let with_these = state.csrs.saturating_add(csrs);
        if state.csrs > 0 && with_these > room {
            // A call larger than the room has to wait until nobody else is there.
            let too_many = (with_these - room).min(state.csrs);
            return Err(state.come_back(too_many, csrs, self.0.workers));
        }
        state.csrs = with_these;
        drop(state);
        Ok(Place { queue: self.clone(), csrs })
    }

    /// Waits for a processor. Those that are urgent go first, else in order.
    pub(super) async fn turn(&self, urgency: Urgency) -> Turn {
        let waiting = {
            let mut state = self.state();
            if state.idle_workers > 0 {
                state.idle_workers -= 1;
                return Turn { queue: Some(self.clone()) };
            }
            let (turn, waiting) = oneshot::channel();
            match urgency {
                Urgency::First => state.first.push_back(turn),
                Urgency::Usual => state.usual.push_back(turn),
            }
            waiting
        };
        // The sender stands in a list that this handle keeps alive, and leaves it only with a turn.
        waiting.await.unwrap_or(Turn { queue: None })
    }

    fn pass_on(&self) {
        loop {
            let next = {
                let mut state = self.state();
                match state.first.pop_front().or_else(|| state.usual.pop_front()) {
                    Some(next) => next,
                    None => {
                        state.idle_workers += 1;
                        return;
                    }
                }
            };
            match next.send(Turn { queue: Some(self.clone()) }) {
                Ok(()) => return,
                // That caller has gone: the turn comes back and is not to pass itself on.
                Err(mut turn) => turn.queue = None,
            }
        }
    }

    /// Our lock guards numbers and lists that are valid at every step, so a panic elsewhere does not spoil them.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When to come back with `csrs` requests, of which `too_many` have no room. Those who were turned away before come
    /// first, so that they do not all meet again at the same moment.
    fn come_back(&mut self, too_many: usize, csrs: usize, workers: usize) -> Duration {
        let work = |csrs: usize| {
            self.csr_time.saturating_mul(u32::try_from(csrs.div_ceil(workers)).unwrap_or(u32::MAX))
        };
        let now = Instant::now();
        let promised =
            self.promised_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let after = work(too_many).max(promised).clamp(*COME_BACK.start(), *COME_BACK.end());
        let mine = work(csrs).min(*COME_BACK.end());
        self.promised_until = Some(now + (after + mine).min(*COME_BACK.end()));
        after
    }
}

impl Place {
    /// `csrs` of the call were worked through in `took`, on one processor.
    pub(super) fn done(&mut self, csrs: usize, took: Duration) {
        let csrs = csrs.min(self.csrs);
        let Ok(count @ 1..) = u32::try_from(csrs) else { return };
        self.csrs -= csrs;
        let mut state = self.queue.state();
        state.csrs -= csrs;
        state.csr_time = (state.csr_time * MEASURE_KEEPS + took / count) / (MEASURE_KEEPS + 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.state().csrs -= self.csrs;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_call_gets_room_for_all_its_requests_or_for_none() {
        let queue = SigningQueue::new(100, 2);
        let first = queue.enter(60, Urgency::Usual).expect("room");
        assert!(queue.enter(41, Urgency::Usual).is_err());
        let second = queue.enter(40, Urgency::Usual).expect("the refused one took nothing");
        assert!(queue.enter(1, Urgency::Usual).is_err());
        drop(first);
        assert!(queue.enter(60, Urgency::Usual).is_ok());
        drop(second);
        assert_eq!(queue.state().csrs, 0);
    }

    #[test]
    fn a_call_larger_than_the_room_is_let_in_alone() {
        let queue = SigningQueue::new(10, 2);
        let large = queue.enter(1000, Urgency::Usual).expect("an empty line");
        assert!(queue.enter(1, Urgency::Usual).is_err());
        drop(large);
        let small = queue.enter(1, Urgency::Usual).expect("room");
        assert!(queue.enter(1000, Urgency::Usual).is_err());
        drop(small);
    }

    #[test]
    fn agents_find_room_when_workloads_do_not_but_not_without_end() {
        let queue = SigningQueue::new(80, 2);
        let _full = queue.enter(80, Urgency::Usual).expect("room");
        assert!(queue.enter(1, Urgency::Usual).is_err());
        let agents: Vec<_> = (0..10).map(|_| queue.enter(1, Urgency::First)).collect();
        assert!(agents.iter().all(Result::is_ok));
        assert!(queue.enter(1, Urgency::First).is_err());
    }

    #[test]
    fn who_is_turned_away_is_told_how_long_the_excess_takes_by_what_was_measured() {
        let queue = SigningQueue::new(1000, 2);
        let mut place = queue.enter(1000, Urgency::Usual).expect("room");
        let after = |queue: &SigningQueue| queue.enter(400, Urgency::Usual).err();
        assert_eq!(
            after(&queue),
            Some(Duration::from_millis(200)),
            "400 of a millisecond each on two processors"
        );
        for _ in 0..100 {
            place.done(1, Duration::from_millis(20));
        }
        let slow = after(&queue).expect("no room");
        assert!(slow > secs(2) && slow <= secs(3), "{slow:?}: 300 are too many, of 20 ms each");
        place.done(1, secs(3600));
        assert_eq!(after(&queue), Some(secs(30)), "nobody is sent away for longer");
        assert_eq!(SigningQueue::new(1, 64).enter(1, Urgency::Usual).map(drop), Ok(()));
        let small = SigningQueue::new(1, 64);
        let _one = small.enter(1, Urgency::Usual).expect("room");
        assert_eq!(small.enter(1, Urgency::Usual).err(), Some(Duration::from_millis(50)));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_turned_away_are_told_to_come_back_one_after_the_other() {
        let queue = SigningQueue::new(1000, 2);
        let _full = queue.enter(1000, Urgency::Usual).expect("room");
        let after = || queue.enter(500, Urgency::Usual).err().map(|after| after.as_millis());
        assert_eq!([after(), after(), after()], [Some(250), Some(500), Some(750)]);
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(after(), Some(400), "what was promised comes nearer");
        for _ in 0..1000 {
            let _ = after();
        }
        assert_eq!(after(), Some(30_000), "and nobody is sent away for longer than this");
        tokio::time::advance(secs(100)).await;
        assert_eq!(after(), Some(250), "promises that are over are forgotten");
    }

    #[tokio::test]
    async fn turns_are_as_many_as_processors_and_the_urgent_get_the_next_one() {
        let queue = SigningQueue::new(100, 2);
        let (one, two) = (queue.turn(Urgency::Usual).await, queue.turn(Urgency::Usual).await);
        let mut third = Box::pin(queue.turn(Urgency::Usual));
        let mut fourth = Box::pin(queue.turn(Urgency::Usual));
        let mut agent = Box::pin(queue.turn(Urgency::First));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        assert!((&mut agent).now_or_never().is_none());
        drop(one);
        let agent = (&mut agent).now_or_never().expect("the urgent one goes first");
        assert!((&mut third).now_or_never().is_none());
        drop(third);
        drop(two);
        let fourth = (&mut fourth).now_or_never().expect("one that has gone is passed over");
        drop((agent, fourth));
        assert_eq!(queue.state().idle_workers, 2);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_took_up_goes_to_the_next() {
        let queue = SigningQueue::new(100, 1);
        let one = queue.turn(Urgency::Usual).await;
        let mut second = Box::pin(queue.turn(Urgency::Usual));
        let mut third = Box::pin(queue.turn(Urgency::Usual));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        // The second is given the turn, and goes before it looks.
        drop(one);
        drop(second);
        assert!((&mut third).now_or_never().is_some());
    }
}
