//! The flags of `files`, which win over its configuration file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::args::set;
use crate::duration;
use crate::error::Failure;
use crate::run_flags::{LogFlags, set_path};
use crate::svid_files::settings::{RawFiles, RawReload};
use crate::svid_files::wanted::TokenWish;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 after a signal, or with -once when the files are there; 1 when they cannot be kept.\n\
    What the agent sees is this program, not the one that reads the files: register its user or path."
)]
pub(in crate::agent_cli) struct Args {
    /// Configuration file in HCL or JSON.
    #[arg(long = "config", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Puts environment variables ($VAR and ${VAR}) into the file before it is read.
    #[arg(long = "expandEnv")]
    pub(super) expand_env: bool,
    /// Checks flags and file, and ends.
    #[arg(long = "check-config", alias = "checkConfig")]
    pub(in crate::agent_cli) check_config: bool,
    /// Directory for the files, which this program alone may fill.
    #[arg(long = "dir", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Path or address of the Workload API.
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Name put into the socket template of the environment, in the place of %i.
    #[arg(long = "instance", value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// SPIFFE ID of the identity wanted; the first one without it.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// Hint of the identity wanted.
    #[arg(long = "hint", value_name = "HINT")]
    hint: Option<String>,
    /// Name of the certificate chain's file; empty leaves it out, as with the other names. [default: tls.crt]
    #[arg(long = "certFile", value_name = "NAME")]
    cert_file: Option<String>,
    /// Name of the key's file. [default: tls.key]
    #[arg(long = "keyFile", value_name = "NAME")]
    key_file: Option<String>,
    /// Name of the authorities' file. [default: ca.crt]
    #[arg(long = "bundleFile", value_name = "NAME")]
    bundle_file: Option<String>,
    /// Name of the file with key and certificate chain. [default: tls.pem]
    #[arg(long = "combinedFile", value_name = "NAME")]
    combined_file: Option<String>,
    /// Writes authorities of other trust domains, as federated.NAME.pem.
    #[arg(long = "federatedBundles")]
    federated_bundles: bool,
    /// Name of the file with the keys of JWT-SVIDs, as JSON; not written without it.
    #[arg(long = "jwtBundlesFile", value_name = "NAME")]
    jwt_bundles_file: Option<String>,
    /// Keeps bundles alone, for a program that checks others and has no identity: bundle.NAME.pem for each trust domain.
    #[arg(long = "bundlesOnly")]
    bundles_only: bool,
    /// Keeps a JWT-SVID in a file, like billing.token=billing; commas part several services. Can be repeated.
    #[arg(long = "jwtSVID", value_name = "NAME=SERVICES")]
    jwt_svids: Vec<String>,
    /// Mode of files with keys and tokens: 0400, 0440, 0600 or 0640. [default: 0600]
    #[arg(long = "keyMode", value_name = "MODE")]
    key_mode: Option<String>,
    /// Owner of the files, by name or number.
    #[arg(long = "owner", value_name = "USER")]
    owner: Option<String>,
    /// Group of the files, by name or number.
    #[arg(long = "group", value_name = "GROUP")]
    group: Option<String>,
    /// How long the files before a change stay for readers in the middle of them. [default: 1m]
    #[arg(long = "grace", value_name = "DURATION")]
    grace: Option<String>,
    /// What to do with the files when the agent takes the identity back: remove or keep. [default: remove]
    #[arg(long = "onWithdrawal", value_name = "WHAT")]
    on_withdrawal: Option<String>,
    /// Signal for the process that is to load the files. [default: HUP]
    #[arg(long = "reloadSignal", value_name = "SIGNAL")]
    reload_signal: Option<String>,
    /// Number of the process to signal after a change.
    #[arg(long = "reloadPID", value_name = "NUMBER")]
    reload_pid: Option<i64>,
    /// File with the number of the process to signal, read after each change.
    #[arg(long = "reloadPIDFile", value_name = "FILE")]
    reload_pid_file: Option<PathBuf>,
    /// Name of the program whose main process to signal.
    #[arg(long = "reloadProcess", value_name = "NAME")]
    reload_process: Option<String>,
    /// How long the command may take. [default: 30s]
    #[arg(long = "reloadTimeout", value_name = "DURATION")]
    reload_timeout: Option<String>,
    /// Writes the files once, and ends. No program is told.
    #[arg(long = "once")]
    pub(in crate::agent_cli) once: bool,
    /// With -once: how long to wait for an identity; 0 waits for ever.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    logs: LogFlags,
    /// Command to run after a change, without a shell.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Args {
    /// The flags as settings.
    ///
    /// # Errors
    /// When a token's flag has another form.
    pub(super) fn raw(&self) -> Result<RawFiles, Failure> {
        let text = |value: &Option<String>| set(value).map(str::to_owned);
        Ok(RawFiles {
            dir: set_path(&self.dir),
            socket_path: set_path(&self.socket_path),
            spiffe_id: text(&self.spiffe_id),
            hint: text(&self.hint),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            bundle_file: self.bundle_file.clone(),
            combined_file: self.combined_file.clone(),
            federated_bundles: self.federated_bundles.then_some(true),
            jwt_bundles_file: self.jwt_bundles_file.clone(),
            bundles_only: self.bundles_only.then_some(true),
            jwt_svids: self.jwt_svids.iter().map(|flag| token(flag)).collect::<Result<_, _>>()?,
            key_mode: text(&self.key_mode),
            owner: text(&self.owner),
            group: text(&self.group),
            grace: text(&self.grace),
            on_withdrawal: text(&self.on_withdrawal),
            reload: RawReload {
                signal: text(&self.reload_signal),
                pid: self.reload_pid,
                pid_file: set_path(&self.reload_pid_file),
                process: text(&self.reload_process),
                command: self.command.clone(),
                timeout: text(&self.reload_timeout),
            },
            logs: self.logs.raw(),
        })
    }
}

fn token(flag: &str) -> Result<TokenWish, Failure> {
    let Some((file, services)) = flag.split_once('=') else {
        return Err(Failure::new(format!("-jwtSVID {flag:?} has no services"))
            .try_this("write it like -jwtSVID billing.token=billing"));
    };
    Ok(TokenWish { file: file.into(), audience: services.split(',').map(str::to_owned).collect() })
}
