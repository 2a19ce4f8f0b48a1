//! Flag values of several commands into messages.

use std::io::Read;
use std::str::FromStr;

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::SpiffeId;

use crate::error::Failure;

/// The largest `-data` or `-file` input: 100,000 entries of a few hundred bytes.
pub const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What to try instead of a malformed SPIFFE ID.
pub const SPIFFE_ID_EXAMPLE: &str = "write it like spiffe://example.org/web";

/// A SPIFFE ID from a flag (`name` without dashes).
///
/// # Errors
/// When the text is none.
pub fn spiffe_id(name: &str, text: &str) -> Result<types::Spiffeid, Failure> {
    match SpiffeId::from_str(text) {
        Ok(id) => Ok(spiffe_id_to_proto(&id)),
        Err(error) => Err(Failure::because(format!("-{name} {text:?}"), &error).try_this(SPIFFE_ID_EXAMPLE)),
    }
}

/// Selectors from flags; the type ends at the first colon.
///
/// # Errors
/// When one has no colon.
pub fn selectors(texts: &[String]) -> Result<Vec<types::Selector>, Failure> {
    texts.iter().map(|text| selector(text)).collect()
}

fn selector(text: &str) -> Result<types::Selector, Failure> {
    match text.split_once(':') {
        Some((kind, value)) => Ok(types::Selector { r#type: kind.into(), value: value.into() }),
        None => Err(Failure::new(format!("selector {text:?} must be formatted as type:value"))
            .try_this("write it like unix:uid:1000 or k8s:ns:production")),
    }
}

/// How a list in a filter is compared. The numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The same members.
    Exact = 0,
    /// All members of the item are in the filter.
    Subset = 1,
    /// All members of the filter are in the item.
    Superset = 2,
    /// At least one member in common.
    Any = 3,
}

impl FromStr for Match {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exact" => Ok(Self::Exact),
            "any" => Ok(Self::Any),
            "superset" => Ok(Self::Superset),
            "subset" => Ok(Self::Subset),
            _ => Err("write exact, any, superset or subset".into()),
        }
    }
}

/// A filter by selectors; none without selectors.
///
/// # Errors
/// When a selector is malformed.
pub fn selector_match(texts: &[String], on: Match) -> Result<Option<types::SelectorMatch>, Failure> {
    if texts.is_empty() {
        return Ok(None);
    }
    Ok(Some(types::SelectorMatch { selectors: selectors(texts)?, r#match: on as i32 }))
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// When it cannot be read or is larger than [`DATA_BYTES_MAX`].
pub fn read_data(path: &str) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::because(format!("cannot read {path}"), &error)
            .try_this("name a readable file, or - for standard input")
    };
    let source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(unreadable)?),
    };
    let mut text = String::new();
    source.take(DATA_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > DATA_BYTES_MAX {
        return Err(
            Failure::new(format!("{path} is larger than {DATA_BYTES_MAX} bytes")).try_this("split it")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_selector_ends_at_the_first_colon() {
        let selector = selector("k8s:ns:production").unwrap();
        assert_eq!((selector.r#type.as_str(), selector.value.as_str()), ("k8s", "ns:production"));
    }

    #[test]
    fn malformed_values_name_their_flag() {
        assert!(selectors(&["nocolon".into()]).expect_err("no colon").what().contains("nocolon"));
        let fault = spiffe_id("parentID", "example.org/web").expect_err("no scheme");
        assert!(fault.what().starts_with("-parentID \"example.org/web\": "), "{fault}");
        assert!(spiffe_id("spiffeID", "spiffe://Example.org/web").is_err());
        assert!(Match::from_str("all").is_err());
        assert!(read_data("/nonexistent/file").expect_err("missing").what().contains("/nonexistent/file"));
    }
}
