//! `completion bash|zsh|fish`: a script that completes commands, flags and paths, with flags as `-flagName`.
//!
//! clap knows flags with two dashes only. The scripts it makes are translated to one, as SPIRE's tools are called; what is
//! typed with two still has its value completed in bash.

use std::collections::BTreeSet;

use clap::{Command, ValueEnum};
use clap_complete::aot::{Shell as Generator, generate};

use crate::command_tree::{flag_names, visible};
use crate::console::Console;
use crate::error::Failure;

/// The shells for which there is a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// For `source <(… completion bash)`.
    Bash,
    /// For a file named after the command, with an underscore before it, in a directory of `fpath`.
    Zsh,
    /// For a file in `~/.config/fish/completions`.
    Fish,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell to write for.
    shell: Shell,
}

/// Prints the script for `command`, the whole table of one binary.
pub(crate) fn run(args: &Args, command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    Ok(write!(console.out, "{}", script(args.shell, command))?)
}

fn script(shell: Shell, command: &Command) -> String {
    let mut command = visible(command);
    let name = command.get_name().to_owned();
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    // The generator for bash loses its way below a command whose name has a dash.
    let plain = if shell == Shell::Bash { name.replace('-', "_") } else { name.clone() };
    let mut script = Vec::new();
    generate(generator, &mut command, plain.clone(), &mut script);
    // Names and help texts are our own, all of them text.
    let script = String::from_utf8_lossy(&script);
    let flags = flag_names(&command);
    match shell {
        Shell::Bash => single_dash(&script, &flags, Labels::Both)
            .replace(&format!(" -o default {plain}\n"), &format!(" -o default {name}\n")),
        // Without -s: it would read -flagName as many flags of one letter.
        Shell::Zsh => single_dash(&script, &flags, Labels::Single)
            .replace("(-s -S -C)", "(-S -C)")
            .replace("(-s -C)", "(-C)"),
        Shell::Fish => old_style(&script),
    }
}

/// What becomes of the label of a shell's `case`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// One dash.
    Single,
    /// One dash or two.
    Both,
}

/// Turns each known `--flag` into `-flag`.
fn single_dash(script: &str, flags: &BTreeSet<String>, labels: Labels) -> String {
    let mut translated = String::with_capacity(script.len());
    let mut rest = script;
    while let Some(at) = rest.find("--") {
        let (before, found) = rest.split_at(at);
        let after = &found[2..];
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        translated.push_str(before);
        let known = flags.contains(name);
        translated.push_str(&match known {
            true if labels == Labels::Both && tail.starts_with(')') => format!("--{name}|-{name}"),
            true => format!("-{name}"),
            false => format!("--{name}"),
        });
        rest = tail;
    }
    translated.push_str(rest);
    translated
}

/// Turns fish's long options into its old-style ones, which have one dash and any length.
fn old_style(script: &str) -> String {
    let line = |line: &str| match line.starts_with("complete ") {
        true => line.replacen(" -l ", " -o ", 1) + "\n",
        false => line.to_owned() + "\n",
    };
    script.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_flags_are_translated() {
        let flags = BTreeSet::from(["socketPath".to_owned(), "check-config".to_owned()]);
        let check =
            |labels, text: &str, expected: &str| assert_eq!(single_dash(text, &flags, labels), expected);
        check(Labels::Both, "opts=\"--socketPath --check-config\"", "opts=\"-socketPath -check-config\"");
        check(Labels::Both, "  --socketPath)", "  --socketPath|-socketPath)");
        check(Labels::Single, "'--socketPath=[x]:p:_files'", "'-socketPath=[x]:p:_files'");
        check(
            Labels::Both,
            "compgen -W x -- \"${cur}\" --socket ---",
            "compgen -W x -- \"${cur}\" --socket ---",
        );
    }
}
