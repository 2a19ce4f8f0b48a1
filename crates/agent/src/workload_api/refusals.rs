//! Tells the operator about refused callers: each kind once, and after that only as its number grows.
//!
//! A process that asks every second must not fill the log, but a second reason or another program must be seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use spindle_spiffe_core::Reason;

/// Kinds remembered; beyond that all are forgotten and logged anew.
const KINDS_MAX: usize = 1024;

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

/// Counts refusals by kind.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Kind, u64>>);

impl Refusals {
    /// Counts one refusal. Returns the count when it is to be logged: at 1, 10, 100 and so on.
    pub(super) fn count(&self, kind: Kind) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
            kinds.clear();
        }
        let count = kinds.entry(kind).or_insert(0);
        *count = count.saturating_add(1);
        is_power_of_ten(*count).then_some(*count)
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
    use super::*;

    fn kind(uid: u32) -> Kind {
        Kind { uid, path: None, reason: Reason::NoMatchingEntry }
    }

    #[test]
    fn each_kind_is_logged_once_and_then_as_its_number_grows() {
        let refusals = Refusals::default();
        let logged: Vec<u64> = (0..1000).filter_map(|_| refusals.count(kind(1))).collect();
        assert_eq!(logged, [1, 10, 100, 1000]);
        assert_eq!(refusals.count(kind(2)), Some(1));
    }

    #[test]
    fn endless_kinds_take_no_endless_memory() {
        let refusals = Refusals::default();
        for uid in 0..3 * KINDS_MAX as u32 {
            assert_eq!(refusals.count(kind(uid)), Some(1));
        }
        assert!(refusals.0.lock().unwrap().len() <= KINDS_MAX);
    }
}
