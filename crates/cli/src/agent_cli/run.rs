//! `run`: the agent itself, until a signal or a fault ends it.

pub(super) mod flags;
mod reload;
pub(super) mod settings;

use std::sync::Arc;

use spindle_agent::{Agent, AgentConfig, AgentError};
use spindle_runtime::{Logs, Shutdown, SystemClock, SystemEntropy, harden, init_logs};
use spindle_spiffe_core::ErrorChain;

pub(super) use flags::Args;

use crate::config::agent::print_defaults;
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
    if args.check_config {
        return service::print_checked(console, "agent", &settings.notes);
    }
    let (log_settings, notes) = (settings.logs.clone(), settings.notes.clone());
    let mut config = settings::config(settings, (console.vars)("HOST_PROC"))?;
    let logs = init_logs(&log_settings).map_err(|error| Failure::because("cannot set up logs", &error))?;
    config.logs = logs.clone();
    harden();
    service::log_notes(&notes);
    let reload = Reload::new(args, console.vars, &logs, file);
    service::block_on(serve(config, &logs, &reload))
}

async fn serve(config: AgentConfig, logs: &Logs, reload: &Reload<'_>) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let work = async {
        let agent = Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), shutdown.clone())?;
        // It is empty: this is the only place that fills it.
        let _ = reload.plugins.set(agent.plugins());
        agent.wait().await
    };
    let ended = service::until_signal(work, &shutdown, logs, async || reload.run()).await?;
    ended.map_err(|error| failure(&error))
}

/// Why an agent did not start or go on, and what to try.
pub(crate) fn failure(error: &AgentError) -> Failure {
    let text = ErrorChain(error).to_string();
    let failure = match error.reason_code() {
        Some(code) if !text.contains(code) => {
            Failure::new(format!("the agent cannot run: {text} (reason: {code})"))
        }
        _ => Failure::new(format!("the agent cannot run: {text}")),
    };
    failure.try_this(error.remedy())
}
