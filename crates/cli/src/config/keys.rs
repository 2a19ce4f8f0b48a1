//! Which keys a section may have, what happens to those without effect, and the nearest key to a mistyped one.

use super::ConfigError;
use super::section::{Section, place};
use crate::hcl::{Item, Value};

/// What this version does with a key that SPIRE knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is obeyed.
    Yes,
    /// It is refused; the text says what works instead and may be empty.
    NotYet(&'static str),
    /// It is taken and has no effect, which cannot hurt; the text says why.
    NoEffect(&'static str),
    /// The same, and of this value nothing is said: it is what happens anyway.
    NoEffectBut(&'static str, &'static str),
    /// Only this value is taken: it is what happens anyway.
    Only(&'static str),
}

/// Why SPIRE's settings of profiling are taken and do nothing.
pub(crate) const NO_PROFILING: &str = "this program has no profiles of a Go runtime";

/// A key and what is done with it.
pub type Key = (&'static str, Support);

/// Refuses unknown and unsupported keys of `section`; notes on keys without effect are added to `notes`.
///
/// # Errors
/// The first key that cannot be obeyed.
pub fn check_keys(section: &Section<'_>, known: &[Key], notes: &mut Vec<String>) -> Result<(), ConfigError> {
    section.items().iter().try_for_each(|item| check_key(section, item, known, notes))
}

/// Refuses keys of `section` that nobody knows. Whether the known ones could be obeyed is not asked: the section is off.
///
/// # Errors
/// The first unknown key.
pub fn check_known(section: &Section<'_>, known: &[Key]) -> Result<(), ConfigError> {
    section.items().iter().try_for_each(|item| support(section, item, known).map(drop))
}

fn support(section: &Section<'_>, item: &Item, known: &[Key]) -> Result<Support, ConfigError> {
    match known.iter().find(|(name, _)| *name == item.key) {
        Some((_, support)) => Ok(*support),
        None => Err(ConfigError::UnknownKey {
            key: section.key(&item.key),
            place: place(item),
            nearest: nearest(&item.key, known.iter().map(|(name, _)| *name)).map(str::to_owned),
        }),
    }
}

fn check_key(
    section: &Section<'_>,
    item: &Item,
    known: &[Key],
    notes: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let (key, place) = (section.key(&item.key), place(item));
    match support(section, item, known)? {
        Support::Yes => Ok(()),
        Support::NoEffectBut(value, _) if is_value(&item.value, value) => Ok(()),
        Support::NoEffect(why) | Support::NoEffectBut(_, why) => {
            notes.push(format!("{key} has no effect: {why}"));
            Ok(())
        }
        Support::Only(value) if is_value(&item.value, value) => Ok(()),
        Support::Only(value) => {
            let hint = Some(format!("only {value} is"));
            Err(ConfigError::NotSupported { key, place, hint })
        }
        Support::NotYet(hint) => {
            let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
            Err(ConfigError::NotSupported { key, place, hint })
        }
    }
}

fn is_value(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Text(text) | Value::Number(text) => text == wanted,
        Value::Bool(value) => value.to_string() == wanted,
        Value::List(values) => values.is_empty() && wanted == "[]",
        Value::Object(_) => false,
    }
}

/// The name that looks most like `word`; none when nothing is near.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.len() / 3).clamp(1, 4);
    let folded = word.to_ascii_lowercase();
    let best = names.map(|name| (distance(&folded, &name.to_ascii_lowercase()), name)).min()?;
    (best.0 <= allowed).then_some(best.1)
}

/// How many characters must be put in, taken out or changed to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    // A configuration key is short; a very long word cannot be near one, and must not cost time.
    const WORD_BYTES_MAX: usize = 100;
    if a.len() > WORD_BYTES_MAX {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        let names = ["bind_port", "bind_address", "trust_domain"];
        for (word, expected) in [
            ("bind_prt", Some("bind_port")),
            ("trustdomain", Some("trust_domain")),
            ("Bind_Address", Some("bind_address")),
            ("x", None),
            ("something_else", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn a_very_long_word_has_no_neighbour() {
        assert_eq!(nearest(&"x".repeat(1 << 20), ["bind_port"].into_iter()), None);
    }
}
