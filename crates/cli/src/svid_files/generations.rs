//! Which generations there are, which one is next, and which are due to go.
//!
//! Pure: callers pass the time and do the work on the disk. Numbers only grow, so a name never means two contents.

use std::collections::VecDeque;

use spindle_spiffe_core::Timestamp;

/// Past generations that are kept at most, however short the pauses between changes are.
pub(crate) const PAST_MAX: usize = 64;

/// What every name of a generation begins with.
const PREFIX: &str = "gen-";

/// The directory of a generation.
pub(crate) fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number in a directory's name; none when [`name`] does not make such names.
pub(crate) fn number_of(text: &str) -> Option<u64> {
    let number: u64 = text.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == text).then_some(number)
}

/// A generation that another one has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Past {
    number: u64,
    replaced_at: Timestamp,
}

/// The generations of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generations {
    current: u64,
    past: VecDeque<Past>,
    grace_secs: i64,
}

impl Generations {
    /// What an earlier run left: `current` as the link has it, and all that lie there. Those after the current one were never
    /// shown to a reader; they are the second value, and can go at once. Those before it may still be read: their grace
    /// begins now.
    pub(crate) fn found(
        current: Option<u64>,
        numbers: impl IntoIterator<Item = u64>,
        grace_secs: i64,
        now: Timestamp,
    ) -> (Self, Vec<u64>) {
        let current = current.unwrap_or(0);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for number in numbers {
            match number.cmp(&current) {
                std::cmp::Ordering::Less => before.push(number),
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => after.push(number),
            }
        }
        before.sort_unstable();
        after.sort_unstable();
        let past = before.into_iter().map(|number| Past { number, replaced_at: now }).collect();
        (Self { current, past, grace_secs }, after)
    }

    /// The number of the generation to write.
    pub(crate) fn next(&self) -> u64 {
        self.current.saturating_add(1)
    }

    /// The link names `number` now.
    pub(crate) fn on_published(&mut self, number: u64, now: Timestamp) {
        if self.current != 0 {
            self.past.push_back(Past { number: self.current, replaced_at: now });
        }
        self.current = number;
    }

    /// The generations whose grace is over, or that are too many. They are forgotten here: the caller removes them.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(oldest) = self.past.front() {
            if self.past.len() <= PAST_MAX && now.secs_since(oldest.replaced_at) < self.grace_secs {
                break;
            }
            due.push(oldest.number);
            self.past.pop_front();
        }
        due
    }

    /// All past generations, whose grace is cut short. They are forgotten here: the caller removes them.
    pub(crate) fn take_all_past(&mut self) -> Vec<u64> {
        self.past.drain(..).map(|past| past.number).collect()
    }

    /// When the oldest one is due; none when none is kept.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.past.front().map(|oldest| oldest.replaced_at + self.grace_secs)
    }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::NOW;

    use super::*;

    fn published(count: u64, grace_secs: i64) -> Generations {
        let (mut generations, _) = Generations::found(None, [], grace_secs, NOW);
        for at in 0..count {
            let number = generations.next();
            assert_eq!(number, at + 1);
            generations.on_published(number, NOW + i64::try_from(at).unwrap());
        }
        generations
    }

    #[test]
    fn a_name_is_read_back_and_nothing_else_is() {
        assert_eq!(number_of(&name(17)), Some(17));
        for text in ["gen-", "gen-017", "gen-+1", "gen--1", "gen-x", "current", "gen-99999999999999999999"] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_past_generation_stays_for_its_grace() {
        let mut generations = published(3, 10);
        // The first was replaced one second after NOW, the second two seconds after.
        assert_eq!(generations.next_due(), Some(NOW + 11));
        assert_eq!(generations.take_due(NOW + 10), [0; 0]);
        assert_eq!(generations.take_due(NOW + 11), [1]);
        assert_eq!(generations.take_due(NOW + 100), [2], "the current one is never due");
        assert_eq!(generations.next_due(), None);
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing_early() {
        assert_eq!(published(3, 10).take_due(NOW - 100_000), [0; 0]);
    }

    #[test]
    fn past_generations_have_a_bound_whatever_their_grace_is() {
        let mut generations = published(PAST_MAX as u64 + 3, 1_000_000);
        assert_eq!(generations.take_due(NOW), [1, 2]);
    }

    #[test]
    fn what_a_killed_run_left_goes_at_once_unless_somebody_may_read_it() {
        let (mut generations, leftovers) = Generations::found(Some(7), [8, 3, 7, 12, 5], 10, NOW);
        assert_eq!(leftovers, [8, 12]);
        assert_eq!(generations.take_due(NOW + 9), [0; 0]);
        assert_eq!(generations.take_due(NOW + 10), [3, 5]);
        assert_eq!(generations.next(), 8);
        let (generations, leftovers) = Generations::found(None, [1], 10, NOW);
        assert_eq!((generations.next(), leftovers), (1, vec![1]), "killed before the first link");
    }

    #[test]
    fn after_a_withdrawal_no_past_generation_waits() {
        let mut generations = published(3, 1_000);
        assert_eq!(generations.take_all_past(), [1, 2]);
        assert_eq!((generations.next_due(), generations.next()), (None, 4));
    }
}
