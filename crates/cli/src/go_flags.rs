//! Go-style flags in front of clap: `-name value`, `--name value`, `-name=value`, `-switch`, `-switch=false`.
//!
//! Walks clap's own [`Command`] tree, so there is no second list of flags. Only the spelling changes here; what is
//! unknown, missing or malformed is clap's to refuse, with its suggestions. Start at [`parse`].

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

use crate::error::{EXIT_FAILURE, EXIT_NO_COMMAND};

/// Parses `args` (the program's name first). On misuse the message is written and the exit status returned:
/// 0 after help, 127 when the first word names no command, 1 otherwise.
///
/// # Errors
/// The exit status to end with.
pub fn parse<P: Parser>(
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<P, u8> {
    let mut command = with_go_switches(P::command().args_override_self(true).disable_help_subcommand(true));
    command.build();
    let args: Vec<OsString> = args.into_iter().collect();
    let first_word_known = first_word_known(&command, &args);
    let parsed = matches(&mut command, &args).and_then(|found| P::from_arg_matches(&found));
    parsed.map_err(|error| refuse(&error, first_word_known, out, err))
}

/// Lets every switch take `=true` and `=false`, as Go's do, instead of standing alone only.
fn with_go_switches(command: Command) -> Command {
    let switch = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(parse_bool)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .value_name("BOOL"),
        _ => arg,
    };
    command.mut_args(switch).mut_subcommands(with_go_switches)
}

fn matches(command: &mut Command, args: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let normal = normalise(command, args);
    command.try_get_matches_from_mut(normal)
}

fn refuse(error: &clap::Error, first_word_known: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = write!(out, "{text}");
        return 0;
    }
    match text.strip_prefix("error: ") {
        Some(cause) => {
            let _ = write!(err, "Error: {cause}");
        }
        None => {
            let _ = write!(err, "{text}");
        }
    }
    if first_word_known { EXIT_FAILURE } else { EXIT_NO_COMMAND }
}

/// Whether the first word that is not a flag names a command. A flag alone counts as misuse of a known command line.
fn first_word_known(command: &Command, args: &[OsString]) -> bool {
    match args.get(1) {
        Some(word) if !word.as_bytes().starts_with(b"-") => command.find_subcommand(word).is_some(),
        Some(_) => true,
        None => !command.is_subcommand_required_set(),
    }
}

/// The same command line in clap's spelling.
pub fn normalise(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let mut current = command;
    let mut words = args.iter();
    let mut normal: Vec<OsString> = words.next().cloned().into_iter().collect();
    while let Some(word) = words.next() {
        if word == "--" {
            normal.push(word.clone());
            normal.extend(words.cloned());
            break;
        }
        match flag_name(word) {
            Some((name, value)) => normal.push(spell(current, name, value, &mut words)),
            None => {
                current = current.find_subcommand(word).unwrap_or(current);
                normal.push(word.clone());
            }
        }
    }
    normal
}

/// The name and the value of `-name`, `--name` and `-name=value`; none when it is a word.
fn flag_name(word: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let bare = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
    if bare.is_empty() {
        return None;
    }
    Some(match bare.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bare[..at]), Some(OsStr::from_bytes(&bare[at + 1..]))),
        None => (OsStr::from_bytes(bare), None),
    })
}

fn spell<'a>(
    command: &Command,
    name: &OsStr,
    value: Option<&OsStr>,
    words: &mut impl Iterator<Item = &'a OsString>,
) -> OsString {
    if value.is_none() && (name == "h" || name == "help") {
        return "--help".into();
    }
    // Of clap's one-letter flags only these two exist; `-v` is SPIRE's.
    if value.is_none() && (name == "V" || name == "v") {
        return "--version".into();
    }
    let value = match (value, find_arg(command, name)) {
        (None, Some(arg)) if waits_for_value(arg) => words.next().map(OsString::as_os_str),
        (value, _) => value,
    };
    let mut spelled = b"--".to_vec();
    spelled.extend_from_slice(name.as_bytes());
    if let Some(value) = value {
        spelled.push(b'=');
        spelled.extend_from_slice(value.as_bytes());
    }
    OsString::from_vec(spelled)
}

fn find_arg<'a>(command: &'a Command, name: &OsStr) -> Option<&'a Arg> {
    let name = name.to_str()?;
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

/// Switches carry `require_equals`: `-node false` would be a switch and a stray word, as in Go.
fn waits_for_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

/// The spellings of a truth value that Go takes.
///
/// # Errors
/// When the text is none of them.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

#[cfg(test)]
mod tests;
