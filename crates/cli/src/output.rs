//! Results as people and programs read them: SPIRE's labels, or one line of its JSON.

pub mod json;
pub mod text;

use std::io::Write;

use crate::args::OutputForm;
use crate::console::Console;
use crate::error::Failure;
use json::ToJson;

/// Prints `message` in the chosen form; `pretty` writes the form for people.
///
/// With JSON the failures of single items stay inside the output and the exit status is 0, as with SPIRE's tools.
///
/// # Errors
/// What `pretty` returns, or that the output cannot be written.
pub fn print(
    form: OutputForm,
    console: &mut Console<'_>,
    message: &impl ToJson,
    pretty: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match form {
        OutputForm::Pretty => pretty(console),
        OutputForm::Json => Ok(writeln!(console.out, "{}", message.to_json())?),
    }
}

/// `one` for exactly one, else `many`.
pub fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// Writes to `out`; a helper so that pretty printers read as a list of lines.
pub fn line(
    out: &mut dyn Write,
    label: &str,
    width: usize,
    value: impl std::fmt::Display,
) -> std::io::Result<()> {
    writeln!(out, "{label:width$}: {value}")
}
