//! `broker files`: a workload's files, kept current as `files` keeps its own, and removed with the workload (Broker API 4.9).
//!
//! One directory is for one workload (Broker API 4.2). Nothing in it outlives the watch over the workload: what an earlier run left
//! goes first, and the files go when this ends.

use spindle_runtime::{SystemClock, forbid_core_dumps, init_logs};
use spindle_spiffe_core::Clock;

use super::flags::BrokerFlags;
use crate::agent_cli::files;
use crate::console::Console;
use crate::error::Failure;
use crate::service;
use crate::svid_files::keeper::{Job, Keeper, Withdrawal};

#[derive(Debug, clap::Args)]
// Its name in clap's books is that of the struct, which the flags of `files` have, too.
#[group(skip)]
pub(in crate::agent_cli) struct Args {
    #[command(flatten)]
    broker: BrokerFlags,
    #[command(flatten)]
    files: files::Args,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (settings, endpoint) = files::settings(&args.files, console)?;
    if args.files.once {
        return Err(Failure::new("files of a workload are kept only while it is watched: -once cannot be")
            .try_this("use `broker fetch -write DIR` for files that you remove yourself"));
    }
    if settings.withdrawal == Withdrawal::Keep {
        return Err(Failure::new("files of a workload that has lost its identity cannot be kept")
            .try_this("leave -onWithdrawal out"));
    }
    let parts = args.broker.parts(console)?;
    if args.files.check_config {
        return service::print_checked(console, "files", &[]);
    }
    let logs = init_logs(&settings.logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    // The agent looks at this process, too: it is a workload of its own, and stays readable (ADR 53).
    forbid_core_dumps();
    service::block_on(async {
        let mut keeper = Keeper::start(Job {
            upstream: parts.follow(endpoint),
            wanted: settings.wanted,
            dir: settings.dir,
            access: settings.access,
            grace_secs: settings.grace_secs,
            withdrawal: settings.withdrawal,
        })?;
        // They may be those of another workload, which had this directory before.
        keeper.clear(SystemClock.now())?;
        let ended = files::until_stopped(&logs, files::keep(&mut keeper, &settings.action)).await;
        ended.and(keeper.clear(SystemClock.now()))
    })
}
