//! SIGHUP: the configuration is read again, and the source and the certificate are looked at. Of the settings the log level
//! can change while the provider runs; the others that have changed are named in a warning.

use spindle_runtime::Logs;
use tracing::{error, info, warn};

use super::Args;
use crate::config::changes::changed_keys;
use crate::config::oidc::OidcSettings;
use crate::config::read_file;
use crate::console::Vars;
use crate::error::Failure;
use crate::hcl::Item;

/// What a running provider reads again.
pub(super) struct Reload<'a> {
    args: &'a Args,
    vars: Vars<'a>,
    logs: &'a Logs,
    /// The file as the provider started with it.
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
        let file = read_file(&self.args.config, self.args.expand_env, self.vars)?;
        let level = OidcSettings::read(&file)?.logs.level;
        let before = self.logs.levels().launch;
        self.logs.change_launch_level(level, || {
            if before == level {
                info!("configuration reloaded: no setting has changed");
            } else {
                info!(changes = format!("log_level: {before} -> {level}"), "configuration reloaded");
            }
        });
        let mut others = changed_keys(&self.started_with, &file);
        others.retain(|key| key != "log_level");
        if !others.is_empty() {
            let keys = others.join(", ");
            warn!(keys, "these keys have changed and cannot be reloaded: restart the provider");
        }
        Ok(())
    }
}
