//! Tells the operator about refused callers: each kind at once, and after that as its number grows, when it begins again
//! after a while, or when there is something new to tell.
//!
//! A process that asks every second must not fill the log, but a second reason or another program must be seen, and so
//! must what an operator's attempt to put it right has changed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_spiffe_core::Reason;
use tokio::time::Instant;

/// Kinds remembered; beyond that all are forgotten and logged anew.
const KINDS_MAX: usize = 1024;

/// A kind that was last logged longer ago than this is logged again.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// How often at most it is looked whether there is something new to tell: that takes a look at all entries.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Callers that look the same in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// User id.
    pub(super) uid: u32,
    /// The program, if it is known.
    pub(super) path: Option<String>,
    /// Why it was refused.
    pub(super) reason: Reason,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Refusals of this kind so far.
    pub(super) count: u64,
    /// What there is to know beside it.
    pub(super) detail: String,
}

/// Counts refusals by kind.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Kind, Told>>);

#[derive(Debug)]
struct Told {
    count: u64,
    looked_at: Instant,
    logged_at: Instant,
    detail: String,
}

impl Refusals {
    /// Counts one refusal. Returns what is to be logged, if anything; `detail` is asked for only if it may be.
    pub(super) fn count(&self, kind: &Kind, detail: impl FnOnce() -> String) -> Option<Line> {
        let now = Instant::now();
        let (count, is_due) = self.note(kind, now)?;
        // Outside of the lock, for it may take long.
        let detail = detail();
        let mut kinds = self.lock();
        let told = kinds.get_mut(kind)?;
        if !is_due && told.detail == detail {
            return None;
        }
        (told.logged_at, told.detail) = (now, detail.clone());
        Some(Line { count, detail })
    }

    /// The count, and whether it is to be logged anyhow; none when there is no need to look what could be told.
    fn note(&self, kind: &Kind, now: Instant) -> Option<(u64, bool)> {
        let mut kinds = self.lock();
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(kind) {
            kinds.clear();
        }
        let first = || Told { count: 0, looked_at: now, logged_at: now, detail: String::new() };
        let told = kinds.entry(kind.clone()).or_insert_with(first);
        told.count = told.count.saturating_add(1);
        let is_due = is_power_of_ten(told.count) || now.duration_since(told.logged_at) >= SILENCE_MAX;
        if !is_due && now.duration_since(told.looked_at) < LOOK_EVERY {
            return None;
        }
        told.looked_at = now;
        Some((told.count, is_due))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_power_of_ten(mut number: u64) -> bool {
    while number.is_multiple_of(10) && number > 0 {
        number /= 10;
    }
    number == 1
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn kind(uid: u32) -> Kind {
        Kind { uid, path: None, reason: Reason::NoMatchingEntry }
    }

    fn count(refusals: &Refusals, uid: u32, detail: &str) -> Option<u64> {
        refusals.count(&kind(uid), || detail.to_owned()).map(|line| line.count)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_logged_once_and_then_as_its_number_grows() {
        let refusals = Refusals::default();
        let logged: Vec<u64> = (0..1000).filter_map(|_| count(&refusals, 1, "")).collect();
        assert_eq!(logged, [1, 10, 100, 1000]);
        assert_eq!(count(&refusals, 2, ""), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_comes_again_after_a_silence_is_logged() {
        let refusals = Refusals::default();
        assert_eq!([count(&refusals, 1, ""), count(&refusals, 1, "")], [Some(1), None]);
        advance(SILENCE_MAX - Duration::from_secs(1)).await;
        assert_eq!(count(&refusals, 1, ""), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!([count(&refusals, 1, ""), count(&refusals, 1, "")], [Some(4), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_detail_that_changed_is_logged_but_not_looked_for_at_each_refusal() {
        let refusals = Refusals::default();
        assert_eq!(count(&refusals, 1, "old"), Some(1));
        assert!(refusals.count(&kind(1), || panic!("too soon")).is_none());
        advance(LOOK_EVERY).await;
        assert_eq!(count(&refusals, 1, "old"), None);
        advance(LOOK_EVERY).await;
        let line = refusals.count(&kind(1), || "new".to_owned());
        assert_eq!(line, Some(Line { count: 4, detail: "new".into() }));
    }

    #[tokio::test(start_paused = true)]
    async fn endless_kinds_take_no_endless_memory() {
        let refusals = Refusals::default();
        for uid in 0..3 * KINDS_MAX as u32 {
            assert_eq!(count(&refusals, uid, ""), Some(1));
        }
        assert!(refusals.lock().len() <= KINDS_MAX);
    }
}
