//! `exec`: runs a program with an identity in files, and keeps these current while it runs.
//!
//! The program's exit status is ours, and signals sent to us reach it. The identity is that of this process: the agent sees
//! `spindle`, not the program (ADR 54). Start at [`run`].

mod child;
mod private_dir;
pub(super) mod tied;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use spindle_runtime::{LogTarget, init_logs};

use crate::args::{Socket, set};
use crate::config::logs::RawLogs;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::run_flags::LogFlags;
use crate::svid_files::folder::Access;
use crate::svid_files::keeper::{Job, Keeper, Withdrawal};
use crate::svid_files::upstream::Upstream;
use crate::svid_files::wanted::{Names, Wanted, What};
use crate::svid_files::{reload, settings};
use crate::{duration, service};
use child::{OnChange, Program};
use private_dir::PrivateDir;
use words::Places;

/// Exit status when this program itself fails, as of `env` and `timeout`: the program's own begins below.
const EXIT_OURS: u8 = 125;

/// Generations before the newest one stay for this long, in seconds.
const GRACE_SECS: i64 = 60;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Words of the command: {dir}, {cert}, {key}, {bundle} and {combined} stand for the paths. The program \
    also finds them in SPINDLE_SVID_DIR, SPINDLE_CERT_FILE, SPINDLE_KEY_FILE, SPINDLE_BUNDLE_FILE and SPINDLE_COMBINED_FILE, and \
    the Workload API in SPIFFE_ENDPOINT_SOCKET.\n\
    Exit status: that of the command; 128 and the signal's number when one ended it; 125 when there is no identity, 126 when \
    the command cannot be run, 127 when there is none.\n\
    What the agent sees is spindle, not the command: register its user or path."
)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the identity wanted; the first one without it.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// Hint of the identity wanted.
    #[arg(long = "hint", value_name = "HINT")]
    hint: Option<String>,
    /// Writes authorities of other trust domains, too, as federated.NAME.pem.
    #[arg(long = "federatedBundles")]
    federated_bundles: bool,
    /// Directory for the files, which stays; a private one in memory, which goes with the command, without it.
    #[arg(long = "dir", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long to wait for an identity, like 30s; 0 waits for ever.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// Signal for the command after each change of its files, like HUP.
    #[arg(long = "reloadSignal", alias = "reload-signal", value_name = "SIGNAL", value_parser = reload::signal)]
    reload_signal: Option<Signal>,
    /// Stops the command after each change of its files and starts it again.
    #[arg(long = "restart", conflicts_with = "reload_signal")]
    restart: bool,
    /// With -restart: how long the command may take to stop before it is killed.
    #[arg(long = "stopTimeout", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    stop_timeout: Duration,
    #[command(flatten)]
    logs: LogFlags,
    /// The command with its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let status = work(args, console).map_err(|failure| match failure.exit() {
        crate::error::EXIT_FAILURE => failure.with_exit(EXIT_OURS),
        _ => failure,
    })?;
    match status {
        0 => Ok(()),
        // What there is to say, the command has said.
        status => Err(Failure::new("").with_exit(status)),
    }
}

fn work(args: &Args, console: &Console<'_>) -> Result<u8, Failure> {
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    let choice = settings::choice(set(&args.spiffe_id), set(&args.hint))?;
    let names = Names { federated: args.federated_bundles, ..Names::default() };
    start_logs(args.logs.raw())?;
    let dir = PrivateDir::of(args.dir.as_deref(), console.vars)?;
    let places = Places::new(dir.path(), &names, &endpoint);
    let job = Job {
        upstream: Upstream::workload(endpoint),
        wanted: Wanted { what: What::Identity, choice, names, tokens: Vec::new() },
        dir: dir.path().into(),
        access: Access { dir_mode: 0o700, key_mode: 0o600, owner: None, group: None },
        grace_secs: GRACE_SECS,
        withdrawal: Withdrawal::Remove,
    };
    let on_change = match (args.reload_signal, args.restart) {
        (Some(signal), _) => OnChange::Signal(signal),
        (None, true) => OnChange::Restart(args.stop_timeout),
        (None, false) => OnChange::Nothing,
    };
    let program = Program { words: places.fill(&args.command), vars: places.vars(), on_change };
    service::block_on(async {
        let keeper = Keeper::start(job)?;
        child::run(&program, keeper, args.timeout).await
    })
}

/// Standard output belongs to the command.
fn start_logs(mut raw: RawLogs) -> Result<(), Failure> {
    let is_quiet = raw.level.is_none();
    if is_quiet {
        raw.level = Some("warn".into());
    }
    let mut settings = raw.ready("")?;
    if settings.target == LogTarget::Stdout {
        settings.target = LogTarget::Stderr;
    }
    init_logs(&settings).map(drop).map_err(|error| Failure::because("cannot set up logs", &error))
}
