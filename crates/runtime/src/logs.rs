//! Log set-up: text or JSON, to standard output or a file, with SPIRE's level names and keys.

mod file;
mod format;

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

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
    /// One of `error`, `warn`, `info`, `debug`, `trace` in any case; `fatal` and `panic` mean `error`, `warning` `warn`.
    pub level: String,
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
            level: "info".into(),
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
    #[error("log level {0:?} is not one of error, warn, info, debug, trace")]
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

/// The log of this process, once it is set up.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    file: Option<LogFile>,
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
}

/// Installs the process-wide log subscriber.
///
/// # Errors
/// When the level is unknown, the file cannot be opened, or logs are set up already.
pub fn init_logs(settings: &LogSettings) -> Result<Logs, LogSetupError> {
    let filter = EnvFilter::new(directives(&settings.level)?);
    let lines = Lines { format: settings.format, source_location: settings.source_location };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).event_format(lines);
    let (outcome, file) = match &settings.target {
        LogTarget::Stdout => (builder.try_init(), None),
        LogTarget::Stderr => (builder.with_writer(std::io::stderr).try_init(), None),
        LogTarget::File(path) => {
            let file =
                LogFile::open(path).map_err(|source| LogSetupError::File { path: path.clone(), source })?;
            (builder.with_writer(file.clone()).try_init(), Some(file))
        }
    };
    outcome.map(|()| Logs { file }).map_err(|_| LogSetupError::Twice)
}

/// Our level, with chatty libraries one step quieter.
fn directives(level: &str) -> Result<String, LogSetupError> {
    let level = match level.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return Err(LogSetupError::Level(level.into())),
    };
    let libraries = if level == "trace" { "debug" } else { "warn" };
    Ok(format!(
        "{libraries},spindle={level},{}",
        OURS.map(|name| format!("spindle_{name}={level}")).join(",")
    ))
}

const OURS: [&str; 11] = [
    "spiffe_core",
    "renewal",
    "keys",
    "ca",
    "store",
    "attest",
    "proto",
    "transport",
    "runtime",
    "server",
    "agent",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spire_level_names_are_understood_in_any_case() {
        for level in ["DEBUG", "info", "Warning", "fatal"] {
            directives(level).expect(level);
        }
    }

    #[test]
    fn an_unknown_level_is_refused_by_name() {
        let error = directives("loud").expect_err("not a level");
        assert!(error.to_string().contains("loud"));
    }
}
