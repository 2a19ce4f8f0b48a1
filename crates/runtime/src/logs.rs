//! Log set-up: text or JSON, to standard output or a file, with SPIRE's level names.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

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

/// Installs the process-wide log subscriber.
///
/// # Errors
/// When the level is unknown, the file cannot be opened, or logs are set up already.
pub fn init_logs(settings: &LogSettings) -> Result<(), LogSetupError> {
    let filter = EnvFilter::new(directives(&settings.level)?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_file(settings.source_location)
        .with_line_number(settings.source_location);
    let outcome = match (&settings.target, settings.format) {
        (LogTarget::Stdout, LogFormat::Text) => builder.with_ansi(false).try_init(),
        (LogTarget::Stdout, LogFormat::Json) => builder.json().flatten_event(true).try_init(),
        (LogTarget::Stderr, LogFormat::Text) => {
            builder.with_ansi(false).with_writer(std::io::stderr).try_init()
        }
        (LogTarget::Stderr, LogFormat::Json) => {
            builder.json().flatten_event(true).with_writer(std::io::stderr).try_init()
        }
        (LogTarget::File(path), format) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| LogSetupError::File { path: path.clone(), source })?;
            let builder = builder.with_ansi(false).with_writer(Mutex::new(file));
            match format {
                LogFormat::Text => builder.try_init(),
                LogFormat::Json => builder.json().flatten_event(true).try_init(),
            }
        }
    };
    outcome.map_err(|_| LogSetupError::Twice)
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
