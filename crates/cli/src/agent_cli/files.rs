//! `files`: keeps files current for programs that do not speak the Workload API, until a signal ends it.

mod flags;

use std::time::Duration;

use spindle_runtime::{Logs, Shutdown, forbid_core_dumps, init_logs};
use tokio::sync::watch;

pub(super) use flags::Args;

use crate::args::Socket;
use crate::config::read_file;
use crate::console::Console;
use crate::duration;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::service;
use crate::svid_files::keeper::{Job, Keeper};
use crate::svid_files::reload::{self, Action, obey};
use crate::svid_files::settings::{FilesSettings, RawFiles};
use crate::svid_files::upstream::Upstream;

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (settings, endpoint) = settings(args, console)?;
    if args.check_config {
        return service::print_checked(console, "files", &[]);
    }
    let logs = init_logs(&settings.logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    // The agent looks at this process: unlike a service of its own it stays readable (ADR 53).
    forbid_core_dumps();
    let action = settings.action.clone();
    let job = Job {
        upstream: Upstream::workload(endpoint),
        wanted: settings.wanted,
        dir: settings.dir,
        access: settings.access,
        grace_secs: settings.grace_secs,
        withdrawal: settings.withdrawal,
    };
    service::block_on(async {
        match args.once {
            true => until_stopped(&logs, once(job, args.timeout)).await,
            false => {
                let mut keeper = Keeper::start(job)?;
                until_stopped(&logs, keep(&mut keeper, &action)).await
            }
        }
    })
}

/// What flags and file say, and where the Workload API is.
pub(super) fn settings(args: &Args, console: &Console<'_>) -> Result<(FilesSettings, Endpoint), Failure> {
    let file = match &args.config {
        Some(path) => RawFiles::read(&read_file(path, args.expand_env, console.vars)?)?,
        None => RawFiles::default(),
    };
    let settings = FilesSettings::try_from(args.raw()?.over(file))?;
    settings.wanted.check()?;
    let socket = Socket { path: settings.socket_path.clone(), instance: args.instance.clone() };
    let endpoint = Endpoint::of(&socket, console.vars)?;
    Ok((settings, endpoint))
}

/// SIGINT and SIGTERM end the work, which leaves nothing half done: each generation is written between two waits.
pub(super) async fn until_stopped(
    logs: &Logs,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let mut signals = service::signals()?;
    // Both arms are cancel-safe: the work is dropped where it waits.
    tokio::select! {
        ended = work => ended,
        () = signals.obey(&shutdown, logs, async || {}) => Ok(()),
    }
}

/// The first generation, and no more.
async fn once(job: Job, timeout: Duration) -> Result<(), Failure> {
    let mut keeper = Keeper::start(job)?;
    let first = keeper.next();
    match timeout {
        Duration::ZERO => first.await,
        timeout => tokio::time::timeout(timeout, first).await.unwrap_or_else(|_| Err(late(timeout))),
    }
    .map(drop)
}

fn late(timeout: Duration) -> Failure {
    Failure::new(format!("no identity came within {}", duration::print(timeout)))
        .try_this("register an entry for this process, and look at the agent's log")
}

/// Keeps the files until the work ends, and tells the program of changes.
pub(super) async fn keep(keeper: &mut Keeper, action: &Action) -> Result<(), Failure> {
    let (changes, told) = watch::channel(0);
    let work = async {
        loop {
            match keeper.next().await? {
                Some(shown) if shown.is_news => {
                    changes.send_replace(shown.number);
                }
                Some(_) => {}
                // The workload that a broker keeps them for has ended.
                None => return Ok(()),
            }
        }
    };
    // A change that comes while a program is told is told after it: the newest number waits in the channel.
    tokio::select! {
        ended = work => ended,
        () = obey(action, told, reload::WAITS) => Err(Failure::new("nobody is left to tell of changes")),
    }
}
