//! `run`: the server itself, until a signal or a fault ends it.

pub(super) mod flags;
mod node_attestors;
mod reload;
pub(super) mod settings;

use std::error::Error;
use std::sync::Arc;

use spindle_runtime::{Logs, Shutdown, SystemClock, SystemEntropy, harden, init_logs};
use spindle_server::{Server, ServerConfig, ServerError};

pub(super) use flags::Args;
pub(super) use settings::{config, store_settings};

use crate::config::server::print_defaults;
use crate::console::Console;
use crate::error::Failure;
use crate::service;
use reload::Reload;

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    if args.print_defaults {
        return Ok(write!(console.out, "{}", print_defaults())?);
    }
    let file = flags::items(args, console.vars)?;
    let settings = flags::ready(args, &file)?;
    let (logs, notes) = (settings.logs.clone(), settings.notes.clone());
    let mut config = config(settings)?;
    if args.check_config {
        return service::print_checked(console, "server", &notes);
    }
    let logs = init_logs(&logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    config.operations.logs = logs.clone();
    harden();
    service::log_notes(&notes);
    let reload = Reload::new(args, console.vars, &logs, file, config.trust_domain.clone());
    service::block_on(serve(config, &logs, &reload))
}

async fn serve(config: ServerConfig, logs: &Logs, reload: &Reload<'_>) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let work = async {
        let server =
            Server::start(config, SystemClock::shared(), Arc::new(SystemEntropy), shutdown.clone()).await?;
        // It is empty: this is the only place that fills it.
        let _ = reload.live.set(server.live());
        server.wait().await
    };
    let ended = service::until_signal(work, &shutdown, logs, async || reload.run()).await?;
    ended.map_err(|error| failure(&error))
}

/// Why a server did not start or go on, and what to try.
fn failure(error: &ServerError) -> Failure {
    let failure = Failure::because("the server cannot run", error);
    match error {
        // What the store itself refuses, as one that a running server uses, says what to do; advice about damage beside it
        // would mislead. What has a cause was refused by the system.
        ServerError::Open(error) if error.source().is_none() => failure,
        ServerError::Open(_) | ServerError::Directory(_) => failure
            .try_this("look whether another server uses the same data_dir")
            .try_this("look for a full disk or missing rights; restore the directory from a backup if it is damaged"),
        ServerError::Keys(_) => failure.try_this("check the key manager's path in the configuration, and its owner and mode"),
        ServerError::Authorities(_) => failure.try_this("look at the log above; the store or the keys could not be used"),
        ServerError::AdminSocket(_) => failure
            .try_this("stop the other server, or choose another path with -socketPath")
            .try_this("choose a directory that this user may write"),
        ServerError::Port { .. } => failure.try_this("stop what listens there, or choose another port with -serverPort"),
        ServerError::HealthPort { .. } => {
            failure.try_this("stop what listens there, or choose another bind_port in health_checks")
        }
        ServerError::Telemetry(_) => failure
            .try_this("choose another port in telemetry.Prometheus, or check the files of its tls block"),
        _ => failure.try_this("look at the log above"),
    }
}
