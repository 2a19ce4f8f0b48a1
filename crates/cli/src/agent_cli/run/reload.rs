//! SIGHUP: the configuration is read again. Of the agent's settings the log level can change while it runs; the others that
//! have changed are named in a warning.

use spindle_runtime::Logs;
use tracing::{error, info, warn};

use super::flags::{self, Args};
use crate::config::changes::changed_keys;
use crate::console::Vars;
use crate::error::Failure;
use crate::hcl::Item;

/// What a running agent reads again.
pub(super) struct Reload<'a> {
    args: &'a Args,
    vars: Vars<'a>,
    logs: &'a Logs,
    /// The file as the agent started with it.
    started_with: Vec<Item>,
}

impl<'a> Reload<'a> {
    pub(super) fn new(args: &'a Args, vars: Vars<'a>, logs: &'a Logs, started_with: Vec<Item>) -> Self {
        Self { args, vars, logs, started_with }
    }

    /// Reads the file and takes over the log level. One line in the log says what came of it.
    pub(super) fn run(&self) {
        if let Err(failure) = self.take_over() {
            error!(error = failure.what(), "configuration not reloaded: everything stays as it was");
        }
    }

    fn take_over(&self) -> Result<(), Failure> {
        let file = flags::items(self.args, self.vars)?;
        let level = flags::ready(self.args, &file)?.logs.level;
        let before = self.logs.levels().launch;
        self.logs.change_launch_level(level, || {
            if before == level {
                info!("configuration reloaded: no setting has changed");
            } else {
                info!(changes = format!("agent.log_level: {before} -> {level}"), "configuration reloaded");
            }
        });
        let mut others = changed_keys(&self.started_with, &file);
        others.retain(|key| key != "agent.log_level");
        if !others.is_empty() {
            warn!(
                keys = others.join(", "),
                "these keys have changed and cannot be reloaded: restart the agent"
            );
        }
        Ok(())
    }
}
