//! A console that keeps what is written, for tests of what commands show.

use crate::console::Console;
use crate::error::Failure;

/// What a command wrote and how it ended.
pub(crate) struct Screen {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) result: Result<(), Failure>,
}

impl Screen {
    /// Runs `command` with an empty environment.
    pub(crate) fn show(command: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>) -> Self {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = command(&mut Console { out: &mut out, err: &mut err, vars: &|_| None });
        let text = |bytes| String::from_utf8(bytes).expect("commands write text");
        Self { out: text(out), err: text(err), result }
    }
}
