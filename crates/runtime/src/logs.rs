//! Log set-up: text or JSON, to standard output or a file, with SPIRE's level names and keys.
//!
//! The level can be changed while the process runs; [`Logs`] is its one owner.

mod file;
mod format;
mod level;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

pub use format::MORE_FIELDS;
pub use level::LogLevel;

use file::LogFile;
use format::Lines;

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Standard output, as SPIRE does.
    #[default]
    Stdout,
    /// Standard error, for commands whose output is read by programs.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// What to log, how and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is let through.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
    /// Standard output, standard error or a file.
    pub target: LogTarget,
    /// Whether lines name the source file.
    pub source_location: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            target: LogTarget::Stdout,
            source_location: false,
        }
    }
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// Not a level name.
    #[error("{0:?} is not a level (known: panic, fatal, error, warn, info, debug, trace)")]
    Level(String),
    /// The log file cannot be opened.
    #[error("cannot open log file {path}")]
    File {
        /// The file as configured.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Logs were set up before in this process.
    #[error("logs are already set up")]
    Twice,
}

/// The log of this process, once it is set up. Cloned handles share it. One that was not set up by [`init_logs`] (the
/// default one) keeps its level to itself: whoever made the subscriber decides what is shown.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    file: Option<LogFile>,
    levels: Arc<Mutex<LogLevels>>,
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

/// The level that holds now, and the one to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogLevels {
    /// What is let through now.
    pub current: LogLevel,
    /// What the configuration says.
    pub launch: LogLevel,
}

impl Logs {
    /// Goes on in a new file under the configured name, for when the present one was renamed. The event that follows
    /// is the first of the new file; a file that cannot be opened is an error event in the old one.
    pub fn reopen(&self) {
        match self.file.as_ref().map(LogFile::reopen) {
            Some(Ok(())) => tracing::info!("log file reopened"),
            Some(Err(error)) => {
                tracing::error!(%error, "cannot reopen the log file; the old one stays in use");
            }
            None => tracing::info!("no log_file is set: nothing to reopen"),
        }
    }

    /// The levels as they are.
    pub fn levels(&self) -> LogLevels {
        *self.lock()
    }

    /// Lets through what `level` does until it is set again or reset. Returns the levels as they are then.
    pub fn set_level(&self, level: LogLevel) -> LogLevels {
        self.change(|levels| levels.current = level)
    }

    /// Goes back to the level of the configuration.
    pub fn reset_level(&self) -> LogLevels {
        self.change(|levels| levels.current = levels.launch)
    }

    /// Takes over the level of a configuration that was read again; if it is another one, it takes the place of one that was
    /// set meanwhile. `tell` is called while the louder of both levels holds, so that what it logs is seen.
    pub fn change_launch_level(&self, level: LogLevel, tell: impl FnOnce()) {
        let LogLevels { current, launch } = self.levels();
        let take_over = || self.change(|levels| *levels = LogLevels { current: level, launch: level });
        match level {
            _ if level == launch => tell(),
            louder if louder > current => {
                take_over();
                tell();
            }
            _ => {
                tell();
                take_over();
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut LogLevels)) -> LogLevels {
        // Held while the filter changes, so that of two changes the last one holds in both places.
        let mut levels = self.lock();
        change(&mut levels);
        if let Some(filter) = &self.filter
            && let Err(error) = filter.reload(EnvFilter::new(levels.current.directives()))
        {
            tracing::error!(%error, "cannot change the log level");
        }
        *levels
    }

    fn lock(&self) -> MutexGuard<'_, LogLevels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs the process-wide log subscriber.
///
/// # Errors
/// When the file cannot be opened, or logs are set up already.
pub fn init_logs(settings: &LogSettings) -> Result<Logs, LogSetupError> {
    let (writer, file) = match &settings.target {
        LogTarget::Stdout => (BoxMakeWriter::new(std::io::stdout), None),
        LogTarget::Stderr => (BoxMakeWriter::new(std::io::stderr), None),
        LogTarget::File(path) => {
            let file =
                LogFile::open(path).map_err(|source| LogSetupError::File { path: path.clone(), source })?;
            (BoxMakeWriter::new(file.clone()), Some(file))
        }
    };
    let (filter, handle) = reload::Layer::new(EnvFilter::new(settings.level.directives()));
    let lines = Lines { format: settings.format, source_location: settings.source_location };
    let layer = fmt::layer().with_ansi(false).event_format(lines).with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    subscriber.try_init().map_err(|_| LogSetupError::Twice)?;
    let levels = LogLevels { current: settings.level, launch: settings.level };
    Ok(Logs { file, levels: Arc::new(Mutex::new(levels)), filter: Some(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_was_set_goes_back_to_the_one_of_the_configuration() {
        let logs = Logs::default();
        let other = logs.clone();
        let levels = |current, launch| LogLevels { current, launch };
        assert_eq!(logs.set_level(LogLevel::Trace), levels(LogLevel::Trace, LogLevel::Info));
        assert_eq!(other.levels(), levels(LogLevel::Trace, LogLevel::Info), "handles share the level");
        assert_eq!(other.reset_level(), levels(LogLevel::Info, LogLevel::Info));
    }

    #[test]
    fn another_level_of_the_configuration_holds_at_once_and_the_same_one_changes_nothing() {
        let logs = Logs::default();
        let level_when_told = |level| {
            let mut told = None;
            logs.change_launch_level(level, || told = Some(logs.levels().current));
            told.unwrap()
        };
        assert_eq!(level_when_told(LogLevel::Warn), LogLevel::Info, "told before it becomes quieter");
        assert_eq!(logs.levels(), LogLevels { current: LogLevel::Warn, launch: LogLevel::Warn });
        assert_eq!(level_when_told(LogLevel::Debug), LogLevel::Debug, "told after it became louder");
        logs.set_level(LogLevel::Error);
        assert_eq!(level_when_told(LogLevel::Debug), LogLevel::Error);
        assert_eq!(logs.levels().current, LogLevel::Error, "what was set stays");
    }
}
