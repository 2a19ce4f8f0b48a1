//! Keeps hints unique in one answer without hiding an identity (Workload API 5.2.1, 6.2.1 and 7.2.1).
//!
//! Pure, and the same for every profile. Of entries with one hint the oldest keeps it, of one second the one with the
//! smallest id; the others are shown with an empty hint. Start at [`unique_hints`].

use std::collections::HashMap;

use spindle_spiffe_core::{EntryId, Hint, RegistrationEntry, Timestamp};

/// The hint that each of `entries`, all of one caller, is shown with. Same length and order.
pub(crate) fn unique_hints(entries: &[&RegistrationEntry]) -> Vec<Hint> {
    let mut holders: HashMap<&Hint, (Timestamp, &EntryId)> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.hint.is_empty()) {
        let age = (entry.created_at, &entry.id);
        let holder = holders.entry(&entry.hint).or_insert(age);
        *holder = age.min(*holder);
    }
    let holds =
        |entry: &RegistrationEntry| holders.get(&entry.hint).is_none_or(|(_, holder)| **holder == entry.id);
    entries.iter().map(|entry| if holds(entry) { entry.hint.clone() } else { Hint::default() }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{NOW, entry};

    fn with_hint(id: &str, hint: &str, age_secs: i64) -> RegistrationEntry {
        RegistrationEntry {
            hint: hint.parse().unwrap(),
            created_at: NOW - age_secs,
            ..entry(id, &["unix:uid:1"])
        }
    }

    fn check(entries: &[(&str, &str, i64)], expected: &[&str]) {
        let entries: Vec<_> = entries.iter().map(|(id, hint, age)| with_hint(id, hint, *age)).collect();
        let hints = unique_hints(&entries.iter().collect::<Vec<_>>());
        assert_eq!(hints.iter().map(Hint::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn wap_28_wap_45_wap_67_the_oldest_of_one_hint_keeps_it_and_the_others_stay_without() {
        check(&[("a", "web", 1), ("b", "web", 9), ("c", "db", 1)], &["", "web", "db"]);
    }

    #[test]
    fn of_one_second_the_smallest_id_keeps_the_hint() {
        check(&[("b", "web", 5), ("a", "web", 5), ("c", "web", 5)], &["", "web", ""]);
    }

    #[test]
    fn empty_hints_do_not_compete() {
        check(&[("a", "", 1), ("b", "", 2)], &["", ""]);
    }

    proptest! {
        #[test]
        fn no_hint_occurs_twice_and_none_is_lost(
            drawn in prop::collection::vec(("[ab]{0,2}", 0i64..3), 0..12),
        ) {
            let entries: Vec<_> = drawn
                .iter()
                .enumerate()
                .map(|(place, (hint, age))| with_hint(&format!("e{place}"), hint, *age))
                .collect();
            let shown = unique_hints(&entries.iter().collect::<Vec<_>>());
            prop_assert_eq!(shown.len(), entries.len());
            let wanted: std::collections::BTreeSet<_> =
                entries.iter().map(|entry| entry.hint.as_str()).filter(|hint| !hint.is_empty()).collect();
            let mut held: Vec<_> = shown.iter().map(Hint::as_str).filter(|hint| !hint.is_empty()).collect();
            held.sort_unstable();
            prop_assert_eq!(held, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
