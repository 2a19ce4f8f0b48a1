//! What reading the configuration again has in common for all services; `run` of each says what it reads. Start at [`Reload`].

use spindle_runtime::{LogLevel, Logs};
use tracing::{error, info, warn};

use crate::config::changes::changed_keys;
use crate::error::Failure;
use crate::hcl::Item;

/// A service of whose settings the log level alone can change while it runs.
pub(crate) struct Reload<'a> {
    /// What to restart for other changes, as messages name it.
    pub(crate) who: &'static str,
    /// The key of the log level.
    pub(crate) level_key: &'static str,
    pub(crate) logs: &'a Logs,
    /// The file as the service started with it.
    pub(crate) started_with: Vec<Item>,
}

impl Reload<'_> {
    /// Takes over the log level of what `read` finds, all or nothing. One line in the log says what came of it.
    pub(crate) fn run(&self, read: impl FnOnce() -> Result<(Vec<Item>, LogLevel), Failure>) {
        let (file, level) = match read() {
            Ok(read) => read,
            Err(failure) => return log_refused(&failure),
        };
        let before = self.logs.levels().launch;
        let changes = match before == level {
            true => Vec::new(),
            false => vec![format!("{}: {before} -> {level}", self.level_key)],
        };
        self.logs.change_launch_level(level, || log_changes(&changes));
        warn_of_others(self.who, &self.started_with, &file, |key| key == self.level_key);
    }
}

/// The new configuration is none.
pub(crate) fn log_refused(failure: &Failure) {
    error!(error = failure.what(), "configuration not reloaded: everything stays as it was");
}

/// Tells of plugins, by type and name, that obey other settings from now on; SPIRE's words.
pub(crate) fn log_reconfigured(plugins: &[(&str, &str)]) {
    for (plugin_type, plugin_name) in plugins {
        info!(plugin_type, plugin_name, "Plugin reconfigured");
    }
}

/// What was taken over, each setting with its old and its new value.
pub(crate) fn log_changes(changes: &[String]) {
    match changes {
        [] => info!("configuration reloaded: no setting has changed"),
        changes => info!(changes = changes.join(", "), "configuration reloaded"),
    }
}

/// Names what has changed since the start and is not taken over, each time, until a restart does.
pub(crate) fn warn_of_others(
    who: &str,
    started_with: &[Item],
    file: &[Item],
    is_live: impl Fn(&str) -> bool,
) {
    let mut others = changed_keys(started_with, file);
    others.retain(|key| !is_live(key));
    if !others.is_empty() {
        warn!(keys = others.join(", "), "these keys have changed and cannot be reloaded: restart the {who}");
    }
}
