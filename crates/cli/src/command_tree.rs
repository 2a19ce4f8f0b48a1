//! The table of commands as tools outside see it: completions and manual pages are made from it.
//!
//! It is clap's own table, less what is hidden, so that no second list can fall behind.

use std::collections::BTreeSet;

use clap::Command;

/// The command with everything below it that a user is meant to see.
pub(crate) fn visible(command: &Command) -> Command {
    let mut seen = Command::new(command.get_name().to_owned()).disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        seen = seen.about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        seen = seen.after_help(after.clone());
    }
    if let Some(version) = command.get_version() {
        seen = seen.version(version.to_owned());
    }
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned();
    // The one flag with few values that all commands share.
    let args = args.map(|arg| match arg.get_long() {
        Some("output") => arg.value_parser(["pretty", "json"]),
        _ => arg,
    });
    seen.args(args).subcommands(command.get_subcommands().filter(|one| !one.is_hide_set()).map(visible))
}

/// The long names of all flags.
pub(crate) fn flag_names(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
    let mut names: BTreeSet<String> = own.chain(["help".into(), "version".into()]).collect();
    command.get_subcommands().for_each(|one| names.extend(flag_names(one)));
    names
}
