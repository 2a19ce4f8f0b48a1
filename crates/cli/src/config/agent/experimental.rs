//! `experimental { … }` of the agent, less the blocks in it. No flag changes it.

use std::time::Duration;

use super::{SYNC_INTERVAL, known};
use crate::config::ConfigError;
use crate::config::feature_flags;
use crate::config::keys::check_keys;
use crate::config::section::Section;
use crate::config::values::interval;

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentalChoice {
    /// `sync_interval`.
    pub sync_interval: Duration,
    /// `use_sync_authorized_entries`.
    pub use_sync_authorized_entries: bool,
    /// `require_pq_kem`.
    pub require_pq_kem: bool,
    /// `feature_flags`.
    pub feature_flags: Vec<String>,
}

impl Default for ExperimentalChoice {
    fn default() -> Self {
        Self {
            sync_interval: SYNC_INTERVAL,
            use_sync_authorized_entries: true,
            require_pq_kem: false,
            feature_flags: Vec::new(),
        }
    }
}

impl ExperimentalChoice {
    pub(super) fn read(block: Option<&Section<'_>>, notes: &mut Vec<String>) -> Result<Self, ConfigError> {
        let Some(block) = block else { return Ok(Self::default()) };
        check_keys(block, known::EXPERIMENTAL, notes)?;
        let key = block.key("sync_interval");
        Ok(Self {
            sync_interval: interval(&key, block.text("sync_interval")?.as_deref(), SYNC_INTERVAL)?,
            use_sync_authorized_entries: block.switch("use_sync_authorized_entries")?.unwrap_or(true),
            require_pq_kem: block.switch("require_pq_kem")?.unwrap_or(false),
            feature_flags: feature_flags::read(block)?,
        })
    }
}
