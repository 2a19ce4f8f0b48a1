//! `spindle-server`: SPIRE's words for a server and its admin socket.

mod agent;
mod backup;
mod bundle;
mod can;
mod carry_out;
mod debug;
mod entry;
mod export;
mod federation;
mod healthcheck;
mod held;
mod import;
mod jwt;
mod local_authority;
mod logger;
mod minted;
mod report;
mod restore;
mod role;
mod run;
mod store;
mod token;
mod validate;
mod wit;
mod x509;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use spindle_proto::spire::api::types;
use tonic::Code;
use tonic::transport::Channel;

use crate::args::Socket;
use crate::client::{connect, item_refused};
use crate::console::Console;
use crate::error::Failure;
use crate::{completion, go_flags, manual, socket};

/// Runs a Spindle server and manages it over its local socket.
#[derive(Debug, Parser)]
#[command(name = "spindle-server", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Run(run::Args),
    /// Checks a configuration and the places it names, without starting anything.
    #[command(
        mut_arg("check_config", |flag| flag.hide(true)),
        mut_arg("print_defaults", |flag| flag.hide(true))
    )]
    Validate(run::Args),
    /// Determines server health status.
    Healthcheck(healthcheck::Args),
    /// Creates, changes and shows registration entries.
    #[command(subcommand)]
    Entry(entry::Command),
    /// Lists, bans and evicts attested agents.
    #[command(subcommand)]
    Agent(agent::Command),
    /// Makes join tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Shows and changes the authorities of the server.
    #[command(subcommand, name = "localauthority")]
    LocalAuthority(local_authority::Command),
    /// Taints and revokes X.509 upstream authorities.
    #[command(subcommand, name = "upstreamauthority")]
    UpstreamAuthority(local_authority::UpstreamCommand),
    /// Shows the trust bundle, and manages those of other trust domains.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Shows and changes how much the server logs.
    #[command(subcommand)]
    Logger(logger::Command),
    /// Looks inside the server.
    #[command(subcommand)]
    Debug(debug::Command),
    /// Manages relationships with other trust domains.
    #[command(subcommand)]
    Federation(federation::Command),
    /// Copies, exports, imports and restores a stopped server's store.
    #[command(subcommand)]
    Store(store::Command),
    /// Mints JWT-SVIDs.
    #[command(subcommand)]
    Jwt(jwt::Command),
    /// Tells whether a caller may do something, and why.
    Can(can::Args),
    /// Gives callers parts of an administrator's rights.
    #[command(subcommand)]
    Role(role::Command),
    /// Prints a completion script for a shell.
    Completion(completion::Args),
    /// Prints the manual page, or writes those of all commands.
    Man(manual::Args),
    /// Writes a server's entries, foreign bundles and relationships into a file.
    Export(export::Args),
    /// Takes over the entries, foreign bundles and relationships of another server or of a file.
    Import(import::Args),
    /// Writes a running server's store into a file.
    Backup(backup::Args),
    /// Makes the store of a stopped server from a backup.
    Restore(restore::Args),
    /// Mints WIT-SVIDs.
    #[command(subcommand)]
    Wit(wit::Command),
    /// Mints X509-SVIDs.
    #[command(subcommand)]
    X509(x509::Command),
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
        Command::Run(args) => run::run(&args, console),
        Command::Validate(args) => validate::run(&args, console),
        Command::Healthcheck(args) => healthcheck::run(&args, console),
        Command::Entry(command) => entry::run(command, console),
        Command::Agent(command) => agent::run(command, console),
        Command::Token(token::Command::Generate(args)) => token::run(&args, console),
        Command::Bundle(command) => bundle::run(command, console),
        Command::Logger(command) => logger::run(&command, console),
        Command::Debug(debug::Command::GetInfo(args)) => debug::run(&args, console),
        Command::Federation(command) => federation::run(command, console),
        Command::LocalAuthority(command) => local_authority::run(&command, console),
        Command::UpstreamAuthority(command) => local_authority::run_upstream(&command, console),
        Command::Store(command) => store::run(&command, console),
        Command::Jwt(jwt::Command::Mint(args)) => jwt::run(&args, console),
        Command::Can(args) => can::run(&args, console),
        Command::Role(command) => role::run(command, console),
        Command::Export(args) => export::run(&args, console),
        Command::Import(args) => import::run(&args, console),
        Command::Backup(args) => backup::run(&args, console),
        Command::Restore(args) => restore::run(&args, console),
        Command::Wit(wit::Command::Mint(args)) => wit::run(&args, console),
        Command::X509(x509::Command::Mint(args)) => x509::run(&args, console),
        Command::Completion(args) => completion::run(&args, &Args::command(), console),
        Command::Man(args) => manual::run(&args, &Args::command(), console),
    }
}

/// Connects to the server that flags and environment name.
async fn dial(at: &Socket, console: &Console<'_>) -> Result<Channel, Failure> {
    connect(&socket::resolve(at, &socket::SERVER, console.vars)?, "server").await
}

/// Tells how the deletion of the one thing that was asked for went: its trust domain and the status. `done` and `failed` name
/// it in SPIRE's words, `list` is the command that shows which there are.
fn print_deleted(
    console: &mut Console<'_>,
    [done, failed, list]: [&str; 3],
    result: Option<(&str, Option<&types::Status>)>,
) -> Result<(), Failure> {
    let Some((name, Some(status))) = result else { return Err(no_result()) };
    if status.code == 0 {
        return Ok(writeln!(console.out, "{done} deleted.")?);
    }
    let failure = item_refused(&format!("failed to delete {failed} {name:?}"), status);
    Err(match Code::from_i32(status.code) {
        // The reason's own remedy is to make what is missing, which nobody wants who deletes it.
        Code::NotFound => Failure::new(failure.what()).try_this(format!("`{list}` shows which are there")),
        _ => failure,
    })
}

/// What to say of a batch answer that lacks the result of what was asked.
fn no_result() -> Failure {
    Failure::new("the server's answer has no result").try_this("look at the server's log")
}
