//! How fast SVIDs below a tainted authority are replaced.
//!
//! A taint reaches every agent of a trust domain in the same moment, and what is tainted is trusted until it is revoked. So
//! each agent begins at a moment of its own and then goes on in small steps, the next one only once the server has taken
//! the one before: a server that is slow makes its agents slow. Pure: callers pass the moment and the draw.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use spindle_renewal::Jitter;
use spindle_spiffe_core::EntryId;
use tokio::time::Instant;

/// An agent begins at most so long after it has heard of a taint: the spread that SPIRE's agents have from polling.
pub(crate) const START_MAX: Duration = Duration::from_secs(5);

/// Time between two steps.
const STEP: Duration = Duration::from_millis(100);

/// SVIDs in one step: a hundred a second, where SPIRE's agents replace twenty.
const STEP_SVIDS: usize = 10;

/// SVIDs that wait for their replacement, each with the number it is held under: another number is another SVID.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: VecDeque<(EntryId, u64)>,
    next_at: Option<Instant>,
}

/// The moment for this agent to begin, from a draw made for it.
pub(crate) fn start(jitter: Jitter) -> Duration {
    let half = u64::try_from(START_MAX.as_micros() / 2).unwrap_or(u64::MAX);
    Duration::from_micros(jitter.spread(half, 100))
}

impl Pace {
    /// Adds SVIDs, the most urgent first. When none waits yet, the first step is at `first_at`.
    pub(super) fn add(&mut self, svids: impl IntoIterator<Item = (EntryId, u64)>, first_at: Instant) {
        let known: HashSet<(EntryId, u64)> = self.waiting.iter().cloned().collect();
        self.waiting.extend(svids.into_iter().filter(|svid| !known.contains(svid)));
        if !self.waiting.is_empty() {
            self.next_at.get_or_insert(first_at);
        }
    }

    /// When the next step is; none when nothing waits.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// What is to be replaced at `now`: the next step if it is time for it and nothing of the one before is left.
    pub(super) fn take(&mut self, now: Instant, is_busy: bool) -> Vec<(EntryId, u64)> {
        if self.next_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let most = if is_busy { 0 } else { STEP_SVIDS.min(self.waiting.len()) };
        let taken = self.waiting.drain(..most).collect();
        self.next_at = (!self.waiting.is_empty()).then_some(now + STEP);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svids(count: u64) -> impl Iterator<Item = (EntryId, u64)> {
        (0..count).map(|number| (format!("e{number}").parse().unwrap(), number))
    }

    #[test]
    fn an_agent_begins_within_five_seconds_wherever_the_draw_falls() {
        assert_eq!(start(Jitter::from_number(0)), Duration::ZERO);
        assert_eq!(start(Jitter::NONE), START_MAX / 2);
        assert!(start(Jitter::from_number(u64::MAX)) <= START_MAX);
    }

    #[test]
    fn a_hundred_a_second_in_the_order_given_and_none_before_the_first_moment() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        assert_eq!(pace.next_at(), None);
        pace.add(svids(25), begin + START_MAX);
        assert!(pace.take(begin, false).is_empty());
        let mut taken = Vec::new();
        let mut steps = Vec::new();
        while let Some(at) = pace.next_at() {
            steps.push(at - begin - START_MAX);
            taken.extend(pace.take(at, false));
        }
        assert_eq!(taken, svids(25).collect::<Vec<_>>());
        assert_eq!(steps, [0, 100, 200].map(Duration::from_millis));
    }

    #[test]
    fn nothing_is_added_to_what_the_server_has_not_taken_yet() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        pace.add(svids(3), begin);
        assert!(pace.take(begin, true).is_empty());
        assert_eq!(pace.next_at(), Some(begin + STEP));
        assert_eq!(pace.take(begin + STEP, false).len(), 3);
        assert_eq!(pace.next_at(), None);
    }

    #[test]
    fn an_svid_waits_once_and_a_later_taint_does_not_put_off_the_first_one() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        pace.add(svids(2), begin);
        pace.add(svids(4), begin + START_MAX);
        assert_eq!(pace.take(begin, false).len(), 4);
        pace.add([], begin);
        assert_eq!(pace.next_at(), None, "nothing to do is no step");
    }
}
