//! SPIRE's seven log levels, and what each lets through here.

use std::fmt;
use std::str::FromStr;

use super::LogSetupError;

/// A log level by SPIRE's names. Nothing here is logged as a panic or as fatal, and errors are never hidden, so those two
/// let through what [`LogLevel::Error`] does; they keep their names, which tools ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LogLevel {
    /// As `Error`.
    Panic,
    /// As `Error`.
    Fatal,
    /// Someone has to act.
    Error,
    /// Something is worse than it should be.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// How it happened.
    Debug,
    /// Everything, that of libraries included.
    Trace,
}

impl LogLevel {
    /// All of them, the quietest first.
    pub const ALL: [Self; 7] =
        [Self::Panic, Self::Fatal, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// SPIRE's name, as it prints it: `warning`, not `warn`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The number that SPIRE's API has for it, 1 to 7.
    pub fn number(self) -> i32 {
        self as i32 + 1
    }

    /// The level that SPIRE's API has this number for; none for 0 and what is no level.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.number() == number)
    }

    /// The filter for it: our crates at this level, libraries at warnings, or at `debug` when everything is asked for.
    pub(super) fn directives(self) -> String {
        let level = match self {
            Self::Panic | Self::Fatal => Self::Error.as_str(),
            Self::Warn => "warn",
            level => level.as_str(),
        };
        let libraries = if self == Self::Trace { "debug" } else { "warn" };
        // A target matches by its beginning, so this is every crate of ours.
        format!("{libraries},spindle={level}")
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = LogSetupError;

    /// Any case; `warn` and `warning` are one level.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        let name = if name == "warn" { "warning" } else { &name };
        let known = Self::ALL.into_iter().find(|level| level.as_str() == name);
        known.ok_or_else(|| LogSetupError::Level(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spires_names_are_understood_in_any_case_and_printed_as_spire_does() {
        for (text, name) in [
            ("DEBUG", "debug"),
            ("info", "info"),
            ("Warn", "warning"),
            ("WARNING", "warning"),
            ("fatal", "fatal"),
        ] {
            assert_eq!(text.parse::<LogLevel>().unwrap().to_string(), name, "{text}");
        }
    }

    #[test]
    fn an_unknown_level_is_refused_by_name() {
        for text in ["loud", "", "warnin", "info "] {
            let error = text.parse::<LogLevel>().expect_err("not a level");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn no_level_hides_errors() {
        for level in LogLevel::ALL {
            assert!(!level.directives().contains("off"), "{level}");
        }
        assert_eq!(LogLevel::Panic.directives(), LogLevel::Error.directives());
    }
}
