//! The one error of the command line: what failed, what to try, and the exit status.
//!
//! Everything below `main` returns [`Failure`]; `main` prints it once, on standard error.

use std::fmt;
use std::io::Write;

use spindle_spiffe_core::ErrorChain;

/// Exit status of failed work and of misused flags, as SPIRE's tools have it.
pub const EXIT_FAILURE: u8 = 1;

/// Exit status when the first word is missing or names no command, as SPIRE's tools have it.
pub const EXIT_NO_COMMAND: u8 = 127;

/// Exit status when the reader of the output has gone: what a shell shows for a program that SIGPIPE ended.
pub const EXIT_BROKEN_PIPE: u8 = 141;

/// What failed, and what to try. An empty text is a failure that nobody has to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    what: String,
    remedies: Vec<String>,
    exit: u8,
}

impl Failure {
    /// A failure with exit status 1 and no advice.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedies: Vec::new(), exit: EXIT_FAILURE }
    }

    /// A failure that says what it was about and why, with the whole chain of causes.
    pub fn because(what: impl fmt::Display, cause: &dyn std::error::Error) -> Self {
        Self::new(format!("{what}: {}", ErrorChain(cause)))
    }

    /// Adds one thing to try.
    #[must_use]
    pub fn try_this(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }

    /// Sets another exit status.
    #[must_use]
    pub fn with_exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// What failed, without the advice.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to try, in the order in which it was found.
    pub fn remedies(&self) -> &[String] {
        &self.remedies
    }

    /// The exit status.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// The same failure as part of something larger.
    #[must_use]
    pub fn within(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    /// Writes `Error: …` and one line for each thing to try. A closed standard error is not reported anywhere.
    pub fn print(&self, err: &mut dyn Write) {
        self.print_after("Error: ", err);
    }

    /// The same without `Error: `, as SPIRE's agent prints its errors.
    pub fn print_bare(&self, err: &mut dyn Write) {
        self.print_after("", err);
    }

    fn print_after(&self, head: &str, err: &mut dyn Write) {
        if self.what.is_empty() {
            return;
        }
        let _ = writeln!(err, "{head}{}", self.what);
        for remedy in &self.remedies {
            let _ = writeln!(err, "  Try: {remedy}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Standard output is gone or full. A reader that has gone away, such as `head`, needs no message.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new("").with_exit(EXIT_BROKEN_PIPE);
        }
        Self::because("cannot write the output", &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_prints_what_failed_and_then_what_to_try() {
        let mut out = Vec::new();
        Failure::new("no server").try_this("start it").try_this("name its socket").print(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Error: no server\n  Try: start it\n  Try: name its socket\n"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_not_complained_about() {
        let mut out = Vec::new();
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        failure.print(&mut out);
        assert_eq!((out.len(), failure.exit()), (0, EXIT_BROKEN_PIPE));
    }

    #[test]
    fn the_chain_of_causes_is_told_once() {
        let inner = std::io::Error::other("disk full");
        assert_eq!(Failure::because("cannot save", &inner).what(), "cannot save: disk full");
    }
}
