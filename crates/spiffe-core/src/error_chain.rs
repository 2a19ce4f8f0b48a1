//! An error with everything behind it, on one line. Errors here never repeat their source, so the edge prints the chain.

use std::error::Error;
use std::fmt;

/// Prints an error and all its sources, separated by colons. A library that repeats its source in its own text is not
/// repeated again.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("outer")]
        Outer(#[source] Box<Sample>),
        #[error("repeats inner")]
        Repeats(#[source] Box<Sample>),
        #[error("inner")]
        Inner,
    }

    #[test]
    fn every_source_is_printed_once() {
        let error = Sample::Outer(Box::new(Sample::Repeats(Box::new(Sample::Inner))));
        assert_eq!(ErrorChain(&error).to_string(), "outer: repeats inner");
        assert_eq!(ErrorChain(&Sample::Outer(Box::new(Sample::Inner))).to_string(), "outer: inner");
        assert_eq!(ErrorChain(&Sample::Inner).to_string(), "inner");
    }
}
