//! SIGHUP and SIGUSR1: the configuration is read again, files of plugins included. The log level and the settings of plugins
//! can change while the agent runs, all of them or none; what else has changed is named in a warning.

use std::cell::OnceCell;

use spindle_agent::{LivePlugins, PluginName};
use spindle_runtime::Logs;
use tracing::warn;

use super::flags::{self, Args};
use super::{failure, settings};
use crate::config::changes::is_data_of;
use crate::console::Vars;
use crate::error::Failure;
use crate::hcl::Item;
use crate::reload::{log_changes, log_reconfigured, log_refused, warn_of_others};

const LOG_LEVEL: &str = "agent.log_level";

/// Plugins whose settings can change.
const LIVE: [PluginName; 3] =
    [("WorkloadAttestor", "unix"), ("NodeAttestor", "x509pop"), ("WorkloadAttestor", "k8s")];

/// What a running agent reads again.
pub(super) struct Reload<'a> {
    args: &'a Args,
    vars: Vars<'a>,
    logs: &'a Logs,
    /// The file as the agent started with it.
    started_with: Vec<Item>,
    /// Set once the agent runs.
    pub(super) plugins: OnceCell<LivePlugins>,
}

impl<'a> Reload<'a> {
    pub(super) fn new(args: &'a Args, vars: Vars<'a>, logs: &'a Logs, started_with: Vec<Item>) -> Self {
        Self { args, vars, logs, started_with, plugins: OnceCell::new() }
    }

    /// Reads the file and takes over what can change. One line in the log says what came of it, and one more for each plugin.
    pub(super) fn run(&self) {
        let Some(plugins) = self.plugins.get() else {
            return warn!("configuration not reloaded: the agent is still starting");
        };
        if let Err(failure) = self.take_over(plugins) {
            log_refused(&failure);
        }
    }

    fn take_over(&self, plugins: &LivePlugins) -> Result<(), Failure> {
        let file = flags::items(self.args, self.vars)?;
        let ready = flags::ready(self.args, &file)?;
        let (asked, running) = (settings::plugins(&ready), plugins.load());
        let next = asked.clone().for_running(&running);
        next.check().map_err(|error| failure(&error))?;
        // Nothing is refused from here on. What is not taken over is whether a plugin is there.
        let (changed, refused) = (next.differences(&running), asked.differences(&next));
        plugins.replace(next);
        log_reconfigured(&changed);
        let (before, level) = (self.logs.levels().launch, ready.logs.level);
        let mut changes: Vec<String> =
            changed.iter().map(|(kind, name)| format!("plugins.{kind}.{name}")).collect();
        if before != level {
            changes.push(format!("{LOG_LEVEL}: {before} -> {level}"));
        }
        self.logs.change_launch_level(level, || log_changes(&changes));
        let is_taken = |name: &PluginName, key: &str| !refused.contains(name) && is_data_of(*name, key);
        warn_of_others("agent", &self.started_with, &file, |key| {
            key == LOG_LEVEL || LIVE.iter().any(|name| is_taken(name, key))
        });
        Ok(())
    }
}
