//! Explains to the operator why a process got no identity: the entries that came nearest and what they lacked.
//!
//! Pure. A workload is never told any of this, for it names other identities. Start at [`near_misses`].

use std::fmt;

use spindle_spiffe_core::{EntryId, RegistrationEntry, Selector, Selectors, SpiffeId};

/// The most missing selectors named per entry.
const MISSING_NAMED_MAX: usize = 4;

/// An entry that did not match, and the selectors the process did not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NearMiss {
    /// The entry.
    pub(crate) entry_id: EntryId,
    /// The identity it would have given.
    pub(crate) spiffe_id: SpiffeId,
    /// What the process would have to show as well, in order.
    pub(crate) missing: Vec<Selector>,
}

/// The `most` entries that lack the fewest selectors; among equals those that share more, then by entry id.
pub(crate) fn near_misses<'a>(
    entries: impl Iterator<Item = &'a RegistrationEntry>,
    shown: &Selectors,
    most: usize,
) -> Vec<NearMiss> {
    let mut ranked: Vec<(usize, std::cmp::Reverse<usize>, &RegistrationEntry)> = entries
        .map(|entry| {
            let missing = entry.selectors.missing_from(shown).count();
            (missing, std::cmp::Reverse(entry.selectors.len() - missing), entry)
        })
        .filter(|(missing, _, entry)| *missing > 0 && !is_of_nodes(entry))
        .collect();
    ranked.sort_unstable_by(|a, b| (a.0, a.1, &a.2.id).cmp(&(b.0, b.1, &b.2.id)));
    ranked
        .into_iter()
        .take(most)
        .map(|(.., entry)| NearMiss {
            entry_id: entry.id.clone(),
            spiffe_id: entry.spiffe_id.clone(),
            missing: entry.selectors.missing_from(shown).cloned().collect(),
        })
        .collect()
}

/// Whether an entry is meant for agents: their own IDs are selectors that no process can show. Naming such an alias of a
/// node would send the operator the wrong way.
fn is_of_nodes(entry: &RegistrationEntry) -> bool {
    entry.selectors.iter().any(|selector| selector.kind() == "spiffe_id")
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) lacks", self.entry_id, self.spiffe_id)?;
        for (place, selector) in self.missing.iter().take(MISSING_NAMED_MAX).enumerate() {
            write!(f, "{} {selector}", if place == 0 { "" } else { "," })?;
        }
        match self.missing.len().saturating_sub(MISSING_NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{entry, selectors};

    fn check(entries: &[(&str, &[&str])], shown: &[&str], expected: &[(&str, &[&str])]) {
        let entries: Vec<_> = entries.iter().map(|(id, needs)| entry(id, needs)).collect();
        let found = near_misses(entries.iter(), &selectors(shown), 3);
        let found: Vec<(String, Vec<String>)> = found
            .into_iter()
            .map(|miss| (miss.entry_id.to_string(), miss.missing.iter().map(ToString::to_string).collect()))
            .collect();
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(id, missing)| ((*id).to_owned(), missing.iter().map(|one| (*one).to_owned()).collect()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_entry_that_lacks_one_selector_comes_before_the_one_that_lacks_two() {
        check(
            &[("two", &["unix:uid:7", "unix:gid:7"]), ("one", &["unix:uid:1000", "unix:gid:7"])],
            &["unix:uid:1000"],
            &[("one", &["unix:gid:7"]), ("two", &["unix:gid:7", "unix:uid:7"])],
        );
    }

    #[test]
    fn an_entry_that_shares_nothing_is_still_named() {
        check(&[("other", &["unix:uid:7"])], &["unix:uid:1000"], &[("other", &["unix:uid:7"])]);
    }

    #[test]
    fn a_match_is_no_near_miss() {
        check(&[("match", &["unix:uid:1000"])], &["unix:uid:1000", "unix:gid:1"], &[]);
    }

    #[test]
    fn an_alias_of_a_node_is_never_named() {
        check(
            &[("node", &["spiffe_id:spiffe://example.org/spire/agent/a"]), ("web", &["unix:uid:7"])],
            &["unix:uid:1000"],
            &[("web", &["unix:uid:7"])],
        );
    }

    #[test]
    fn at_most_three_are_named() {
        let needs: [(&str, &[&str]); 5] =
            [("a", &["a:b"]), ("b", &["a:b"]), ("c", &["a:b"]), ("d", &["a:b"]), ("e", &["a:b"])];
        check(&needs, &["x:y"], &[("a", &["a:b"]), ("b", &["a:b"]), ("c", &["a:b"])]);
    }
}
