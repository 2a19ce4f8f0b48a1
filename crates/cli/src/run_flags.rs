//! What the `run` commands of server and agent share: log flags and the choice of the file.

use std::path::{Path, PathBuf};

use crate::args::set;
use crate::config::logs::RawLogs;

/// The log flags of server and agent.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogFlags {
    /// panic, fatal, error, warn, info, debug or trace.
    #[arg(long = "logLevel", value_name = "LEVEL")]
    level: Option<String>,
    /// text or json.
    #[arg(long = "logFormat", value_name = "FORM")]
    format: Option<String>,
    /// File to write logs to, instead of standard output.
    #[arg(long = "logFile", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Names the source file in each log line.
    #[arg(long = "logSourceLocation")]
    source_location: bool,
}

impl LogFlags {
    pub(crate) fn raw(&self) -> RawLogs {
        RawLogs {
            level: set(&self.level).map(str::to_owned),
            format: set(&self.format).map(str::to_owned),
            file: set_path(&self.file),
            source_location: self.source_location.then_some(true),
        }
    }
}

/// The path, or none when it is empty.
pub(crate) fn set_path(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}

/// The file to read: the named one, or the default one when it is there.
pub(crate) fn config_file(named: &Option<PathBuf>, default: &str) -> Option<PathBuf> {
    set_path(named).or_else(|| Path::new(default).exists().then(|| default.into()))
}
