//! Selectors: facts about a process or node, as `type:value`, and sets of them.
//!
//! An entry matches a workload when the entry's selectors are a subset of the workload's.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most selectors one entry or one workload may have; SPIRE has no bound, real entries have fewer than twenty.
pub const SELECTORS_MAX: usize = 1024;

/// The longest selector, in bytes, colon included: a Kubernetes label pair with room to spare.
pub const SELECTOR_BYTES_MAX: usize = 4096;

/// One fact, such as `unix:uid:1000`: the type is `unix`, the value `uid:1000`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    text: Arc<str>,
    value_at: u16,
}

/// Why a text or pair is not a selector, or a list of them not a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No colon at all.
    #[error("selector {0:?} must be formatted as type:value")]
    NoColon(String),
    /// An empty type.
    #[error("selector type must not be empty")]
    EmptyType,
    /// A colon inside the type of a selector given as a pair.
    #[error("selector type {0:?} must not contain a colon")]
    ColonInType(String),
    /// An empty value.
    #[error("selector value must not be empty (type {0:?})")]
    EmptyValue(String),
    /// Longer than [`SELECTOR_BYTES_MAX`].
    #[error("a selector has at most {SELECTOR_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// More than [`SELECTORS_MAX`].
    #[error("at most {SELECTORS_MAX} selectors are allowed, got {0} or more")]
    TooMany(usize),
}

impl Selector {
    /// A selector from its two parts.
    ///
    /// # Errors
    /// When the type is empty or has a colon, the value is empty, or both together are too long.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() {
            return Err(SelectorError::EmptyType);
        }
        if kind.contains(':') {
            return Err(SelectorError::ColonInType(shown(kind)));
        }
        if value.is_empty() {
            return Err(SelectorError::EmptyValue(shown(kind)));
        }
        let bytes = kind.len() + 1 + value.len();
        match u16::try_from(kind.len() + 1) {
            Ok(value_at) if bytes <= SELECTOR_BYTES_MAX => {
                Ok(Self { text: format!("{kind}:{value}").into(), value_at })
            }
            _ => Err(SelectorError::Length(bytes)),
        }
    }

    /// The part before the first colon: the attestor that vouches for the fact.
    pub fn kind(&self) -> &str {
        &self.text[..usize::from(self.value_at) - 1]
    }

    /// The part after the first colon.
    pub fn value(&self) -> &str {
        &self.text[usize::from(self.value_at)..]
    }

    /// The whole selector as `type:value`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What an error repeats of a bad input: enough to recognise it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, value) = text.split_once(':').ok_or_else(|| SelectorError::NoColon(shown(text)))?;
        Self::new(kind, value)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A set of selectors, sorted and without repeats. Clones share their items.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Selectors(Arc<[Selector]>);

impl Selectors {
    /// The set of the given selectors; repeats count once.
    ///
    /// # Errors
    /// When there are more than [`SELECTORS_MAX`].
    pub fn new(selectors: impl IntoIterator<Item = Selector>) -> Result<Self, SelectorError> {
        let mut sorted = BTreeSet::new();
        for selector in selectors {
            sorted.insert(selector);
            if sorted.len() > SELECTORS_MAX {
                return Err(SelectorError::TooMany(sorted.len()));
            }
        }
        Ok(Self(sorted.into_iter().collect()))
    }

    /// The selectors in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds `selector`.
    pub fn contains(&self, selector: &Selector) -> bool {
        self.0.binary_search(selector).is_ok()
    }

    /// Whether every selector here is also in `other`.
    pub fn is_subset_of(&self, other: &Selectors) -> bool {
        self.iter().all(|selector| other.contains(selector))
    }

    /// The selectors here that `other` lacks, in ascending order: what a near miss has to show.
    pub fn missing_from<'a>(&'a self, other: &'a Selectors) -> impl Iterator<Item = &'a Selector> {
        self.iter().filter(|selector| !other.contains(selector))
    }
}

impl<'a> IntoIterator for &'a Selectors {
    type Item = &'a Selector;
    type IntoIter = std::slice::Iter<'a, Selector>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Selectors {
        Selectors::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    #[test]
    fn the_first_colon_parts_type_and_value() {
        for (text, kind, value) in [
            ("unix:uid:1000", "unix", "uid:1000"),
            ("k8s:pod-label:a:b", "k8s", "pod-label:a:b"),
            ("a::", "a", ":"),
            ("a: b", "a", " b"),
            ("ä:ö", "ä", "ö"),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!((selector.kind(), selector.value(), selector.as_str()), (kind, value, text));
            assert_eq!(Selector::new(kind, value).unwrap(), selector);
        }
    }

    #[test]
    fn a_selector_without_type_colon_or_value_is_refused() {
        assert_eq!("unix".parse::<Selector>(), Err(SelectorError::NoColon("unix".into())));
        assert_eq!("".parse::<Selector>(), Err(SelectorError::NoColon(String::new())));
        assert_eq!(":uid:1".parse::<Selector>(), Err(SelectorError::EmptyType));
        assert_eq!("unix:".parse::<Selector>(), Err(SelectorError::EmptyValue("unix".into())));
        assert_eq!(Selector::new("a:b", "c"), Err(SelectorError::ColonInType("a:b".into())));
    }

    #[test]
    fn a_selector_has_at_most_4096_bytes_however_they_are_shared_out() {
        Selector::new("a", &"v".repeat(4094)).unwrap();
        assert_eq!(Selector::new("a", &"v".repeat(4095)), Err(SelectorError::Length(4097)));
        assert_eq!(Selector::new(&"k".repeat(70_000), "v"), Err(SelectorError::Length(70_002)));
    }

    #[test]
    fn an_error_repeats_only_the_start_of_a_long_input() {
        let error = "x".repeat(100_000).parse::<Selector>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn a_set_is_sorted_and_counts_repeats_once() {
        let set = set(&["b:1", "a:2", "b:1", "a:1"]);
        assert_eq!(set.iter().map(Selector::as_str).collect::<Vec<_>>(), ["a:1", "a:2", "b:1"]);
        assert_eq!((set.len(), set.is_empty()), (3, false));
    }

    #[test]
    fn repeats_do_not_use_up_the_bound_and_nothing_after_them_is_lost() {
        let repeated = std::iter::repeat_n("a:1", 5000).chain(["z:9"]).map(|text| text.parse().unwrap());
        let set = Selectors::new(repeated).unwrap();
        assert_eq!(set.len(), 2);
        assert!(set.contains(&"z:9".parse().unwrap()));
    }

    #[test]
    fn a_set_has_at_most_1024_selectors() {
        let many = |count: usize| (0..count).map(|n| Selector::new("n", &n.to_string()).unwrap());
        assert_eq!(Selectors::new(many(1024)).unwrap().len(), 1024);
        assert_eq!(Selectors::new(many(1025)), Err(SelectorError::TooMany(1025)));
    }

    #[test]
    fn an_entry_matches_a_workload_that_shows_all_of_its_selectors() {
        let entry = set(&["unix:uid:1", "unix:gid:2"]);
        assert!(entry.is_subset_of(&set(&["unix:gid:2", "unix:uid:1"])));
        assert!(entry.is_subset_of(&set(&["unix:gid:2", "unix:path:/x", "unix:uid:1"])));
        assert!(!entry.is_subset_of(&set(&["unix:uid:1"])));
        assert!(!entry.is_subset_of(&Selectors::default()));
        assert!(Selectors::default().is_subset_of(&entry));
    }

    #[test]
    fn a_near_miss_names_what_is_missing() {
        let (entry, workload) = (set(&["a:1", "b:2", "c:3"]), set(&["b:2", "d:4"]));
        assert_eq!(entry.missing_from(&workload).map(Selector::as_str).collect::<Vec<_>>(), ["a:1", "c:3"]);
    }
}
