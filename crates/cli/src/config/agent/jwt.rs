//! What the agent does with JWT-SVIDs. No flag changes it.

use std::time::Duration;

use spindle_agent::config::{JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT, SVID_CACHE_SIZE_DEFAULT};

use super::limits::cache_size;
use crate::config::ConfigError;
use crate::config::section::Section;
use crate::duration;

/// A shorter wait would give up on servers that are merely busy: SPIRE's bound.
const HIT_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtChoice {
    /// `allowed_foreign_jwt_claims`.
    pub allowed_foreign_claims: Vec<String>,
    /// `jwt_svid_cache_max_size`.
    pub cache_max_size: usize,
    /// `experimental { jwt_svid_cache_hit_timeout }`.
    pub cache_hit_timeout: Duration,
}

impl Default for JwtChoice {
    fn default() -> Self {
        Self {
            allowed_foreign_claims: Vec::new(),
            cache_max_size: SVID_CACHE_SIZE_DEFAULT,
            cache_hit_timeout: JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT,
        }
    }
}

impl JwtChoice {
    pub(super) fn read(agent: &Section<'_>, experimental: Option<&Section<'_>>) -> Result<Self, ConfigError> {
        Ok(Self {
            allowed_foreign_claims: agent.texts("allowed_foreign_jwt_claims")?.unwrap_or_default(),
            cache_max_size: cache_size(agent, "jwt_svid_cache_max_size")?,
            cache_hit_timeout: match experimental {
                Some(experimental) => hit_timeout(experimental)?,
                None => JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT,
            },
        })
    }
}

fn hit_timeout(experimental: &Section<'_>) -> Result<Duration, ConfigError> {
    let name = "jwt_svid_cache_hit_timeout";
    let Some(text) = experimental.text(name)? else { return Ok(JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT) };
    let key = experimental.key(name);
    let timeout = duration::parse(&text).map_err(|fault| ConfigError::duration(&key, &fault))?;
    if !(HIT_TIMEOUT_MIN..JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT).contains(&timeout) {
        let what = format!("{text:?} is not between 5s and 30s (30s itself is the default)");
        return Err(ConfigError::value(&key, what));
    }
    Ok(timeout)
}
