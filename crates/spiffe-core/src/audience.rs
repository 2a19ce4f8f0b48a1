//! The audience of a JWT-SVID: the services that are to accept it (JWT-SVID 3.2).
//!
//! Never empty, and bounded: a token travels in a header, and what is asked for comes from workloads.

use std::fmt;

/// The most services one token is for. The standard recommends one; more than a handful is a mistake.
pub const AUDIENCES_MAX: usize = 100;

/// The most bytes all values have together. HTTP servers take headers of 8 to 64 KiB, and a token grows by a third.
pub const AUDIENCE_BYTES_MAX: usize = 16 * 1024;

/// How much of an audience a log line shows, in characters.
const SHOWN_CHARS_MAX: usize = 256;

/// One to [`AUDIENCES_MAX`] names of services, none of them empty, in the order given. It prints as a list that is cut to
/// a length that suits a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Vec<String>);

/// Why values are no audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// No value, or only empty ones.
    #[error("at least one audience is required")]
    Empty,
    /// More than [`AUDIENCES_MAX`].
    #[error("a JWT-SVID has at most {AUDIENCES_MAX} audiences, {0} are asked for")]
    TooMany(usize),
    /// More than [`AUDIENCE_BYTES_MAX`] together.
    #[error("the audiences of a JWT-SVID have at most {AUDIENCE_BYTES_MAX} bytes together, these have {0}")]
    TooLong(usize),
}

impl Audience {
    /// Checks the values. Empty ones are dropped, as SPIRE does.
    ///
    /// # Errors
    /// When none is left, or there are too many or too long ones.
    pub fn new(values: impl IntoIterator<Item = String>) -> Result<Self, AudienceError> {
        let values: Vec<String> = values.into_iter().filter(|value| !value.is_empty()).collect();
        let bytes = values.iter().map(String::len).sum();
        match values.len() {
            0 => Err(AudienceError::Empty),
            count if count > AUDIENCES_MAX => Err(AudienceError::TooMany(count)),
            _ if bytes > AUDIENCE_BYTES_MAX => Err(AudienceError::TooLong(bytes)),
            _ => Ok(Self(values)),
        }
    }

    /// The names.
    pub fn values(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.join(",");
        match text.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(values: &[&str]) -> Result<Audience, AudienceError> {
        Audience::new(values.iter().map(|value| (*value).to_owned()))
    }

    #[test]
    fn empty_values_are_dropped_and_the_rest_keeps_its_order() {
        assert_eq!(audience(&["", "b", "", "a", "b"]).unwrap().values(), ["b", "a", "b"]);
    }

    #[test]
    fn an_audience_of_nobody_is_refused() {
        assert_eq!(audience(&[]), Err(AudienceError::Empty));
        assert_eq!(audience(&["", ""]), Err(AudienceError::Empty));
    }

    #[test]
    fn the_bounds_are_part_of_what_is_allowed() {
        assert!(audience(&["a"; AUDIENCES_MAX]).is_ok());
        assert_eq!(audience(&["a"; AUDIENCES_MAX + 1]), Err(AudienceError::TooMany(AUDIENCES_MAX + 1)));
        let (half, rest) = ("a".repeat(AUDIENCE_BYTES_MAX / 2), "b".repeat(AUDIENCE_BYTES_MAX / 2 + 1));
        assert!(audience(&[&half, &half]).is_ok());
        assert_eq!(audience(&[&half, &rest]), Err(AudienceError::TooLong(AUDIENCE_BYTES_MAX + 1)));
    }

    #[test]
    fn a_log_line_shows_a_bounded_part() {
        assert_eq!(audience(&["a", "b"]).unwrap().to_string(), "a,b");
        let long = audience(&["ä".repeat(1000).as_str()]).unwrap().to_string();
        assert_eq!(long.chars().count(), SHOWN_CHARS_MAX + 1);
    }
}
