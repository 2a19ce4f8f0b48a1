//! `spindle-agent`: SPIRE's words for an agent and its Workload API.

mod api;
mod broker;
mod debug;
mod files;
mod healthcheck;
mod jwt;
mod logger;
mod run;
mod svids;
mod validate;
mod watch;
mod wit;
mod write;
mod x509_bundles;

pub(crate) use api::{not_served, open, with_header};
pub(crate) use run::failure as run_failure;
pub(crate) use svids::{Fetched, FetchedSvid, bundle_of, verify};

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use tonic::transport::Channel;

use crate::args::Socket;
use crate::client::connect;
use crate::console::Console;
use crate::error::Failure;
use crate::{completion, go_flags, manual, socket};

/// Runs a Spindle agent and calls its Workload API.
#[derive(Debug, Parser)]
#[command(name = "spindle-agent", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent.
    Run(run::Args),
    /// Checks a configuration and the places it names, without starting anything.
    #[command(
        mut_arg("check_config", |flag| flag.hide(true)),
        mut_arg("print_defaults", |flag| flag.hide(true))
    )]
    Validate(run::Args),
    /// Determines agent health status.
    Healthcheck(healthcheck::Args),
    /// Prints a completion script for a shell.
    Completion(completion::Args),
    /// Prints the manual page, or writes those of all commands.
    Man(manual::Args),
    /// Looks inside a running agent, over its admin socket.
    #[command(subcommand)]
    Debug(debug::Command),
    /// Shows or changes how much a running agent logs, over its admin socket.
    #[command(subcommand)]
    Logger(logger::Command),
    /// Keeps certificate, key and bundle files current in a directory, and tells a program of each change.
    Files(Box<files::Args>),
    /// Asks the broker endpoint for what another workload of this node is entitled to.
    #[command(subcommand)]
    Broker(broker::Command),
    /// Calls the Workload API as this process.
    #[command(subcommand)]
    Api(api::Command),
}

/// Runs one command line; returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>, console: &mut Console<'_>) -> u8 {
    let args: Args = match go_flags::parse(args, console.out, console.err) {
        Ok(args) => args,
        Err(status) => return status,
    };
    // SPIRE's two kinds of commands print their errors in two ways.
    let is_admin = matches!(args.command, Command::Debug(_) | Command::Logger(_));
    match run(args.command, console) {
        Ok(()) => 0,
        Err(failure) => {
            match is_admin {
                true => failure.print(console.err),
                false => failure.print_bare(console.err),
            }
            failure.exit()
        }
    }
}

fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(&args, console),
        Command::Validate(args) => validate::run(&args, console),
        Command::Debug(debug::Command::GetInfo(args)) => debug::run(&args, console),
        Command::Logger(command) => logger::run(&command, console),
        Command::Healthcheck(args) => healthcheck::run(&args, console),
        Command::Files(args) => files::run(&args, console),
        Command::Api(api::Command::Fetch(args)) => api::run(&args, console),
        Command::Api(api::Command::Validate(command)) => jwt::validate(&command, console),
        Command::Api(api::Command::Watch(args)) => watch::run(&args, console),
        Command::Broker(command) => broker::run(&command, console),
        Command::Completion(args) => completion::run(&args, &Args::command(), console),
        Command::Man(args) => manual::run(&args, &Args::command(), console),
    }
}

/// Connects to the admin socket that flags and environment name.
async fn dial_admin(at: &Socket, console: &Console<'_>) -> Result<Channel, Failure> {
    connect(&socket::resolve(at, &socket::AGENT_ADMIN, console.vars)?, "agent").await
}
