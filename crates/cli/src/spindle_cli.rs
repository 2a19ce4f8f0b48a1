//! `spindle`: a trust domain on one machine, for trying out and for writing applications, and the provider of keys for OpenID
//! Connect clients.

mod demo;
mod dev;
mod exec;
mod oidc;
mod quickstart;
mod scratch;
mod show;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::console::Console;
use crate::error::Failure;
use crate::{completion, go_flags, manual};

/// Runs a whole Spindle trust domain on this machine, or the provider of its keys for OpenID Connect clients.
#[derive(Debug, Parser)]
#[command(name = "spindle", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Server and agent in one process, for writing an application against the Workload API.
    Dev(dev::Args),
    /// Server and agent with a kept store, an X509-SVID for you, and each rotation of it as a line.
    Quickstart(quickstart::Args),
    /// Three workloads tell the story in about a minute, then it ends by itself.
    Demo(demo::Args),
    /// Runs a program that reads its identity from files, and keeps these current while it runs.
    Exec(exec::Args),
    /// Serves the keys of JWT-SVIDs to OpenID Connect clients, with the configuration of SPIRE's provider.
    #[command(name = "oidc-discovery-provider")]
    OidcDiscoveryProvider(oidc::Args),
    /// Prints a completion script for a shell.
    Completion(completion::Args),
    /// Prints the manual page, or writes those of all commands.
    Man(manual::Args),
    /// The command of `exec`, about to begin.
    #[command(name = exec::tied::COMMAND, hide = true)]
    ExecTied(exec::tied::Args),
    /// One workload of the demo.
    #[command(subcommand, hide = true)]
    DemoWorkload(demo::workload::Command),
}

/// Runs one command line; returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>, console: &mut Console<'_>) -> u8 {
    let args: Args = match go_flags::parse(args, console.out, console.err) {
        Ok(args) => args,
        Err(status) => return status,
    };
    match run(args.command, console) {
        Ok(()) => 0,
        Err(failure) => {
            failure.print(console.err);
            failure.exit()
        }
    }
}

fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::run(&args, console),
        Command::Quickstart(args) => quickstart::run(&args, console),
        Command::Demo(args) => demo::run(&args, console),
        Command::Exec(args) => exec::run(&args, console),
        Command::ExecTied(args) => exec::tied::run(&args),
        Command::OidcDiscoveryProvider(args) => oidc::run(&args, console),
        Command::DemoWorkload(command) => demo::workload::run(&command, console),
        Command::Completion(args) => completion::run(&args, &Args::command(), console),
        Command::Man(args) => manual::run(&args, &Args::command(), console),
    }
}
