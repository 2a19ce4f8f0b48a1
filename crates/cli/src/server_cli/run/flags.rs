//! The flags of `run`, laid over the file, as ready settings.

use std::path::PathBuf;

use crate::args::set;
use crate::config::server::{RawServer, ServerSettings};
use crate::config::{ConfigError, read_file};
use crate::console::Vars;
use crate::hcl::Item;
use crate::run_flags::{LogFlags, config_file, set_path};

/// Where SPIRE's server looks for its file.
pub(in crate::server_cli) const CONFIG_PATH: &str = "conf/server/server.conf";

#[derive(Debug, Default, clap::Args)]
pub(in crate::server_cli) struct Args {
    /// Configuration file in HCL or JSON; conf/server/server.conf is used when it exists.
    #[arg(long = "config", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Puts environment variables ($VAR and ${VAR}) into the file before it is read.
    #[arg(long = "expandEnv")]
    pub(super) expand_env: bool,
    /// Checks file and flags, and ends.
    #[arg(long = "check-config", alias = "checkConfig")]
    pub(super) check_config: bool,
    /// Prints a file with all defaults, and ends.
    #[arg(long = "print-defaults", alias = "printDefaults")]
    pub(super) print_defaults: bool,
    /// The trust domain.
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<String>,
    /// Directory of the server's state.
    #[arg(long = "dataDir", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on for agents.
    #[arg(long = "bindAddress", value_name = "ADDRESS")]
    bind_address: Option<String>,
    /// Port to listen on for agents.
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<i64>,
    /// Path of the admin socket.
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<PathBuf>,
    #[command(flatten)]
    logs: LogFlags,
}

/// The file as it was parsed; empty when there is none.
pub(in crate::server_cli) fn items(args: &Args, vars: Vars<'_>) -> Result<Vec<Item>, ConfigError> {
    match config_file(&args.config, CONFIG_PATH) {
        Some(path) => read_file(&path, args.expand_env, vars),
        None => Ok(Vec::new()),
    }
}

/// A parsed file with the flags laid over it.
pub(in crate::server_cli) fn ready(args: &Args, file: &[Item]) -> Result<ServerSettings, ConfigError> {
    let file = RawServer::read(file)?;
    let flags = RawServer {
        trust_domain: set(&args.trust_domain).map(str::to_owned),
        data_dir: set_path(&args.data_dir),
        bind_address: set(&args.bind_address).map(str::to_owned),
        // Zero counts as not given, as with SPIRE's tool; a file can ask for a port of the system's choice.
        bind_port: args.server_port.filter(|port| *port != 0),
        socket_path: set_path(&args.socket_path),
        logs: args.logs.raw(),
        ..RawServer::default()
    };
    flags.over(file).try_into()
}
