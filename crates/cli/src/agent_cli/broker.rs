//! `broker`: what another workload of this node is entitled to, asked for in its stead at the agent's broker endpoint.

mod fetch;
mod files;
mod flags;
mod watch;

use clap::Subcommand;

use crate::console::Console;
use crate::error::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fetches a workload's SVIDs or bundles once: X509-SVIDs, unless another kind is named.
    Fetch(Box<fetch::Args>),
    /// Prints each update of a workload's X509-SVIDs until it ends.
    Watch(watch::Args),
    /// Keeps a workload's files current in a directory, and removes them when the workload ends or loses its identity.
    #[command(
        mut_arg("once", |flag| flag.hide(true)),
        mut_arg("timeout", |flag| flag.hide(true)),
        mut_arg("on_withdrawal", |flag| flag.hide(true)),
        after_help = "Exit status: 0 when the workload has ended, or after a signal; 1 when there was none, or its files cannot be kept.\n\
        The files go when this ends."
    )]
    Files(Box<files::Args>),
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Fetch(args) => fetch::run(args, console),
        Command::Watch(args) => watch::run(args, console),
        Command::Files(args) => files::run(args, console),
    }
}
