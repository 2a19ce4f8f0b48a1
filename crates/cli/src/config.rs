//! Configuration of server, agent and OIDC provider: file and flags into ready values, or a fault that names its key.
//!
//! A file fills a `Raw…` struct, flags are laid over it, and one `TryFrom` makes it ready. Unknown keys are refused with
//! the nearest known one; keys of SPIRE that have no effect here yet are refused too, unless ignoring them is harmless,
//! which gives a note. Start at [`server::ServerSettings`], [`agent::AgentSettings`] and
//! [`oidc::OidcSettings`].

pub mod agent;
pub mod changes;
pub mod expand;
mod feature_flags;
mod health;
pub mod keys;
pub mod logs;
pub mod oidc;
mod plugin_files;
pub mod plugins;
pub mod section;
pub mod server;
mod telemetry;
pub mod values;

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::console::Vars;
use crate::duration::DurationError;
use crate::error::Failure;
use crate::hcl::{self, Item, SyntaxError, TEXT_BYTES_MAX};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is neither HCL nor JSON.
    #[error("the configuration file {path} is malformed: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: SyntaxError,
    },
    /// No such key.
    #[error("{key}{place} is not a known key{}", suggestion(.nearest))]
    UnknownKey {
        /// The key with the blocks around it.
        key: String,
        /// Its line, for people.
        place: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A key that SPIRE knows and this version cannot obey.
    #[error("{key}{place} is not supported yet{}", .hint.as_deref().map(|hint| format!(": {hint}")).unwrap_or_default())]
    NotSupported {
        /// The key with the blocks around it.
        key: String,
        /// Its line, for people.
        place: String,
        /// What works instead.
        hint: Option<String>,
    },
    /// A key that must be there.
    #[error("{key} is required")]
    Missing {
        /// The key with the blocks around it.
        key: String,
    },
    /// The same key twice.
    #[error("{key}{place} is set twice")]
    Twice {
        /// The key with the blocks around it.
        key: String,
        /// The second line, for people.
        place: String,
    },
    /// A value of the wrong kind.
    #[error("{key}{place} must be {wanted}, not {found}")]
    Kind {
        /// The key with the blocks around it.
        key: String,
        /// Its line, for people.
        place: String,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A value that its key cannot take.
    #[error("{key}: {what}")]
    Value {
        /// The key with the blocks around it.
        key: String,
        /// What is wrong with the value.
        what: String,
    },
    /// No part of a type that must have one.
    #[error("no {kind} is configured: {consequence}")]
    NoPlugin {
        /// Such as `WorkloadAttestor`.
        kind: &'static str,
        /// What could not be done without one.
        consequence: &'static str,
        /// A block that sets one up.
        example: &'static str,
    },
    /// Two keys that shut each other out.
    #[error("{first} and {second} cannot both be set")]
    Exclusive {
        /// One key.
        first: String,
        /// The other key.
        second: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_deref().map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}

impl ConfigError {
    /// A fault of one value.
    pub fn value(key: &str, what: impl std::fmt::Display) -> Self {
        Self::Value { key: key.into(), what: what.to_string() }
    }

    /// A fault of one duration.
    pub fn duration(key: &str, fault: &DurationError) -> Self {
        Self::value(key, fault)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            ConfigError::Read { .. } => failure.try_this("name the file with -config"),
            ConfigError::Syntax { .. } => failure
                .try_this("compare with the samples in examples/, and check the file with --check-config"),
            ConfigError::NotSupported { .. } => failure.try_this("take the key out of the file"),
            ConfigError::Missing { .. } => failure
                .try_this("set it in the file or by its flag; -h lists the flags, --print-defaults the keys"),
            ConfigError::NoPlugin { example, .. } => failure.try_this(format!(
                "add {example} to the plugins block of the file (-config), without enabled = false"
            )),
            ConfigError::UnknownKey { .. } => failure.try_this("--print-defaults shows the known keys"),
            ConfigError::Value { key, .. } => failure.try_this(format!(
                "correct {key} in the file or by its flag; --print-defaults shows how values look"
            )),
            ConfigError::Kind { key, wanted, .. } => {
                failure.try_this(format!("write {key} as {wanted}; --print-defaults shows how values look"))
            }
            ConfigError::Twice { key, .. } => {
                failure.try_this(format!("keep one {key} and take out the other"))
            }
            ConfigError::Exclusive { first, second } => {
                failure.try_this(format!("take out {first} or {second}, be it in the file or as a flag"))
            }
        }
    }
}

/// Reads a configuration file and the files that its plugins name; with `expand_env` variables are put in before it is
/// parsed.
///
/// # Errors
/// When one cannot be read, is too large, or is malformed.
pub fn read_file(path: &Path, expand_env: bool, vars: Vars<'_>) -> Result<Vec<Item>, ConfigError> {
    let expand = |text: String| if expand_env { expand::expand_env(&text, vars) } else { text };
    let mut items = read_items(path, expand)?;
    plugin_files::put_in(&mut items)?;
    Ok(items)
}

fn read_items(path: &Path, expand: impl FnOnce(String) -> String) -> Result<Vec<Item>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than allowed, so that the parser can tell that the file is too large.
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    hcl::parse(&expand(text)).map_err(|source| ConfigError::Syntax { path: path.into(), source })
}
