//! The four log keys that server and agent share.

use std::path::PathBuf;

use spindle_runtime::{LogFormat, LogLevel, LogSettings, LogTarget};

use super::ConfigError;
use super::section::Section;

/// Log keys as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawLogs {
    /// `log_level`.
    pub level: Option<String>,
    /// `log_format`.
    pub format: Option<String>,
    /// `log_file`.
    pub file: Option<PathBuf>,
    /// `log_source_location`.
    pub source_location: Option<bool>,
}

impl RawLogs {
    /// Reads the keys from a section.
    ///
    /// # Errors
    /// When one is of the wrong kind.
    pub fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            level: section.text("log_level")?,
            format: section.text("log_format")?,
            file: section.text("log_file")?.map(PathBuf::from),
            source_location: section.switch("log_source_location")?,
        })
    }

    /// These settings, with gaps filled from `file`.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            level: self.level.or(file.level),
            format: self.format.or(file.format),
            file: self.file.or(file.file),
            source_location: self.source_location.or(file.source_location),
        }
    }

    /// Ready settings; `section` is `server` or `agent`, or empty where the keys stand at the top of the file.
    ///
    /// # Errors
    /// When the level or the format is unknown.
    pub fn ready(self, section: &str) -> Result<LogSettings, ConfigError> {
        let key = |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let level = match self.level.as_deref().map(str::parse) {
            None => LogLevel::default(),
            Some(Ok(level)) => level,
            Some(Err(fault)) => return Err(ConfigError::value(&key("log_level"), fault)),
        };
        let format = match self.format.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                let what = format!("{other:?} is not a format (known: text, json)");
                return Err(ConfigError::value(&key("log_format"), what));
            }
        };
        let target = self.file.map_or(LogTarget::Stdout, LogTarget::File);
        Ok(LogSettings { level, format, target, source_location: self.source_location.unwrap_or(false) })
    }
}
