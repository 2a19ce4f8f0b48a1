//! The flags of `run`, laid over the file, as ready settings.

use std::path::PathBuf;

use crate::args::set;
use crate::config::agent::{AgentSettings, JoinToken, RawAgent, RawBootstrap, RawSockets};
use crate::config::{ConfigError, read_file};
use crate::console::Vars;
use crate::error::Failure;
use crate::hcl::Item;
use crate::run_flags::{LogFlags, config_file, set_path};

/// Where SPIRE's agent looks for its file.
pub(in crate::agent_cli) const CONFIG_PATH: &str = "conf/agent/agent.conf";

#[derive(Debug, Default, clap::Args)]
pub(in crate::agent_cli) struct Args {
    /// Configuration file in HCL or JSON, which chooses the workload attestors; conf/agent/agent.conf is used when it exists.
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
    /// Directory of the agent's state.
    #[arg(long = "dataDir", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Host name or address of the server.
    #[arg(long = "serverAddress", value_name = "HOST")]
    server_address: Option<String>,
    /// Port of the server.
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<i64>,
    /// Path of the Workload API socket.
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Token for the first start, from `spindle-server token generate`.
    #[arg(long = "joinToken", value_name = "TOKEN")]
    join_token: Option<String>,
    /// File with the token for the first start.
    #[arg(long = "joinTokenFile", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// File with the server's trust bundle.
    #[arg(long = "trustBundle", value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// Address to fetch the trust bundle from, over HTTPS.
    #[arg(long = "trustBundleUrl", value_name = "URL")]
    trust_bundle_url: Option<String>,
    /// Form of the trust bundle: pem or spiffe.
    #[arg(long = "trustBundleFormat", value_name = "FORM")]
    trust_bundle_format: Option<String>,
    /// Believes whoever answers as the server on the first contact.
    #[arg(long = "insecureBootstrap")]
    insecure_bootstrap: bool,
    /// Lets callers without an identity fetch the trust bundle.
    #[arg(long = "allowUnauthenticatedVerifiers")]
    allow_unauthenticated_verifiers: bool,
    /// Leaves the Workload API off the public socket.
    #[arg(long = "disableWorkloadAPI")]
    disable_workload_api: bool,
    /// Leaves Envoy's SDS off the public socket.
    #[arg(long = "disableSDSAPI")]
    disable_sds_api: bool,
    /// Whether to bootstrap again when the server's certificate is not trusted: never, auto or always.
    #[arg(long = "rebootstrapMode", value_name = "MODE")]
    rebootstrap_mode: Option<String>,
    /// How long to bear such a server before bootstrapping again, like 10m.
    #[arg(long = "rebootstrapDelay", value_name = "DURATION")]
    rebootstrap_delay: Option<String>,
    #[command(flatten)]
    logs: LogFlags,
}

/// The file as it was parsed; empty when there is none.
pub(in crate::agent_cli) fn items(args: &Args, vars: Vars<'_>) -> Result<Vec<Item>, ConfigError> {
    match config_file(&args.config, CONFIG_PATH) {
        Some(path) => read_file(&path, args.expand_env, vars),
        None => Ok(Vec::new()),
    }
}

/// A parsed file with the flags laid over it.
pub(in crate::agent_cli) fn ready(args: &Args, file: &[Item]) -> Result<AgentSettings, Failure> {
    Ok(AgentSettings::try_from(raw(args).over(RawAgent::read(file)?))?)
}

fn raw(args: &Args) -> RawAgent {
    let text = |text: &Option<String>| set(text).map(str::to_owned);
    RawAgent {
        trust_domain: text(&args.trust_domain),
        data_dir: set_path(&args.data_dir),
        server_address: text(&args.server_address),
        server_port: args.server_port.filter(|port| *port != 0),
        sockets: RawSockets {
            socket_path: set_path(&args.socket_path),
            disable_workload_api: args.disable_workload_api.then_some(true),
            disable_sds_api: args.disable_sds_api.then_some(true),
            ..RawSockets::default()
        },
        bootstrap: RawBootstrap {
            join_token: text(&args.join_token).map(JoinToken::new),
            join_token_file: set_path(&args.join_token_file),
            trust_bundle_path: set_path(&args.trust_bundle),
            trust_bundle_url: text(&args.trust_bundle_url),
            trust_bundle_format: text(&args.trust_bundle_format),
            insecure_bootstrap: args.insecure_bootstrap.then_some(true),
            rebootstrap_mode: text(&args.rebootstrap_mode),
            rebootstrap_delay: text(&args.rebootstrap_delay),
            ..RawBootstrap::default()
        },
        allow_unauthenticated_verifiers: args.allow_unauthenticated_verifiers.then_some(true),
        logs: args.logs.raw(),
        ..RawAgent::default()
    }
}
