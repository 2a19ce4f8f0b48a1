//! The rule that keeps older state from replacing newer: which updates of the push stream may be applied.
//!
//! Pure. A revision is a pair of history and number; numbers of different histories cannot be compared, so a snapshot
//! of an unknown history is taken as the truth. So is the snapshot with which a server answers an agent that shows a number
//! ahead of its own: the server has lost what the agent saw, and it alone decides what is so. Start at [`judge`].

use bytes::Bytes;

/// A point in the server's log of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Which log.
    pub(crate) history: Bytes,
    /// How far.
    pub(crate) number: u64,
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.history.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}", self.number)
    }
}

/// What to do with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It leads on from what is held, or replaces it.
    Apply,
    /// The server has fallen behind what is held and says so: it replaces what is held, and somebody should know.
    StepBack,
    /// It is older than what is held, in the same history.
    Older,
    /// It is a change to a state that is not held.
    NoBase,
}

/// Where in a stream an update stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It answers the hello, in which the server was shown what is held.
    First,
    /// It follows another update.
    Later,
}

/// Judges an update that leads to `offered` for an agent that holds `held`.
pub(crate) fn judge(held: Option<&Revision>, offered: &Revision, snapshot: bool, place: Place) -> Verdict {
    match held {
        Some(held) if held.history == offered.history => match offered.number < held.number {
            true if snapshot && place == Place::First => Verdict::StepBack,
            true => Verdict::Older,
            false => Verdict::Apply,
        },
        _ if snapshot => Verdict::Apply,
        _ => Verdict::NoBase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(history: &'static str, number: u64) -> Revision {
        Revision { history: Bytes::from_static(history.as_bytes()), number }
    }

    fn check(held: Option<&Revision>, offered: &Revision, snapshot: bool, expected: Verdict) {
        for place in [Place::First, Place::Later] {
            assert_eq!(judge(held, offered, snapshot, place), expected, "{held:?} {offered:?} {snapshot}");
        }
    }

    #[test]
    fn an_older_revision_of_the_same_history_is_taken_only_as_the_snapshot_that_answers_the_hello() {
        let (held, older) = (revision("a", 5), revision("a", 4));
        check(Some(&held), &older, false, Verdict::Older);
        assert_eq!(judge(Some(&held), &older, true, Place::Later), Verdict::Older);
        assert_eq!(judge(Some(&held), &older, true, Place::First), Verdict::StepBack);
    }

    #[test]
    fn a_newer_or_equal_revision_of_the_same_history_is_applied() {
        check(Some(&revision("a", 5)), &revision("a", 6), false, Verdict::Apply);
        check(Some(&revision("a", 5)), &revision("a", 5), false, Verdict::Apply);
        check(Some(&revision("a", 5)), &revision("a", 9), true, Verdict::Apply);
    }

    #[test]
    fn a_snapshot_of_an_unknown_history_is_applied_whatever_its_number() {
        check(Some(&revision("a", 5)), &revision("b", 1), true, Verdict::Apply);
        check(None, &revision("b", 1), true, Verdict::Apply);
    }

    #[test]
    fn a_change_to_something_that_is_not_held_is_refused() {
        check(None, &revision("a", 1), false, Verdict::NoBase);
        check(Some(&revision("a", 5)), &revision("b", 6), false, Verdict::NoBase);
    }
}
