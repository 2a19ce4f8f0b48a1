//! Entries beside each other: duplicates, entries that a wider one makes needless, and hints that one workload would have
//! twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Report, Severity, Subject, selector_texts};
use crate::entry_plan::Likeness;
use crate::output::text;

pub(super) fn look(subjects: &[Subject], report: &mut Report) {
    duplicates(subjects, report);
    let selectors: Vec<BTreeSet<String>> =
        subjects.iter().map(|subject| selector_texts(&subject.entry)).collect();
    let mut by_parent: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        by_parent.entry(text::id(&subject.entry.parent_id)).or_default().push(at);
    }
    for below in by_parent.values() {
        let of = |key: fn(&Subject) -> String| groups(below, |at| key(&subjects[at]));
        for group in of(|subject| text::id(&subject.entry.spiffe_id)) {
            shadowed(subjects, &selectors, &group, report);
        }
        for group in of(|subject| subject.entry.hint.clone()) {
            if !subjects[group[0]].entry.hint.is_empty() {
                hidden(subjects, &selectors, &group, report);
            }
        }
    }
}

/// The members of `among` by their key, where several share one.
fn groups(among: &[usize], key: impl Fn(usize) -> String) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in among {
        groups.entry(key(*at)).or_default().push(*at);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

fn duplicates(subjects: &[Subject], report: &mut Report) {
    let mut first = HashMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        if let Some(other) = first.get(&Likeness::of(&subject.entry)) {
            let other: &Subject = &subjects[*other];
            let what = format!("it has the parent, SPIFFE ID and selectors of {}", other.label);
            report.add(Severity::Error, "duplicate", subject, what, "delete one of the two");
        } else {
            first.insert(Likeness::of(&subject.entry), at);
        }
    }
}

/// Pairs of the group of which the first's selectors are all among the second's; of the same selectors each pair once. A
/// wider entry is found by its first selector, so that a group of many thousand costs no more than their selectors.
fn wider_and_narrower(group: &[usize], selectors: &[BTreeSet<String>]) -> Vec<(usize, usize)> {
    let mut by_first: HashMap<&str, Vec<usize>> = HashMap::new();
    for at in group {
        if let Some(first) = selectors[*at].first() {
            by_first.entry(first).or_default().push(*at);
        }
    }
    let mut pairs = Vec::new();
    for narrow in group {
        for selector in &selectors[*narrow] {
            let wider = by_first.get(selector.as_str()).into_iter().flatten();
            let of_it = wider.filter(|wide| {
                let comes_first = (selectors[**wide].len(), *wide) < (selectors[*narrow].len(), narrow);
                comes_first && selectors[**wide].is_subset(&selectors[*narrow])
            });
            pairs.extend(of_it.map(|wide| (*wide, *narrow)));
        }
    }
    pairs
}

fn shadowed(subjects: &[Subject], selectors: &[BTreeSet<String>], group: &[usize], report: &mut Report) {
    let mut told = BTreeSet::new();
    for (wide, narrow) in wider_and_narrower(group, selectors) {
        // With the same selectors it is a duplicate.
        if selectors[wide] != selectors[narrow] && told.insert(narrow) {
            let what = format!(
                "{} gives the same SPIFFE ID below the same parent for fewer selectors: whoever matches this one has it twice",
                subjects[wide].label
            );
            let remedy = "delete it, or give the wider one more selectors";
            report.add(Severity::Warning, "shadowed", &subjects[narrow], what, remedy);
        }
    }
}

/// Of the entries with one hint that a workload matches only the oldest is shown with it.
fn hidden(subjects: &[Subject], selectors: &[BTreeSet<String>], group: &[usize], report: &mut Report) {
    let mut told = BTreeSet::new();
    for (wide, narrow) in wider_and_narrower(group, selectors) {
        let age = |at: usize| (subjects[at].entry.created_at, &subjects[at].entry.id);
        let (older, newer) = if age(wide) <= age(narrow) { (wide, narrow) } else { (narrow, wide) };
        if told.insert(newer) {
            let (hint, older) = (&subjects[newer].entry.hint, &subjects[older].label);
            let what = format!(
                "workloads that match {older}, too, see it without its hint: both have the hint {hint:?}, which the older one keeps (SPIRE's agents do not show the newer one at all)"
            );
            report.add(
                Severity::Warning,
                "hint_hidden",
                &subjects[newer],
                what,
                "give the two different hints",
            );
        }
    }
}
