//! Where a command writes and which environment it sees; tests hand in buffers and a map.

use std::io::Write;

/// Reads one environment variable; empty counts as unset.
pub type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The outside world of one command.
pub struct Console<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The environment.
    pub vars: Vars<'a>,
}

/// One variable of the process's own environment; none when it is unset, empty or not text.
pub fn process_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
