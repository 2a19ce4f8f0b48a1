//! How much the agent keeps ready, how early it renews, and how often it answers. No flag changes it.

use std::time::Duration;

use spindle_agent::config::{CallerLimits, Rate, RateLimits, SVID_CACHE_SIZE_DEFAULT};

use super::known;
use crate::config::ConfigError;
use crate::config::keys::check_keys;
use crate::config::section::Section;
use crate::duration;

/// A shorter target would be missed by what SVIDs live anyway: SPIRE's bound.
const AVAILABILITY_TARGET_MIN: Duration = Duration::from_secs(24 * 3600);

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitChoice {
    /// `x509_svid_cache_max_size`.
    pub x509_svid_cache_max_size: usize,
    /// `availability_target`.
    pub availability_target: Option<Duration>,
    /// `experimental { ratelimit }`.
    pub rate_limits: RateLimits,
    /// `caller_limits`.
    pub caller_limits: CallerLimits,
}

impl Default for LimitChoice {
    fn default() -> Self {
        Self {
            x509_svid_cache_max_size: SVID_CACHE_SIZE_DEFAULT,
            availability_target: None,
            rate_limits: RateLimits::default(),
            caller_limits: CallerLimits::default(),
        }
    }
}

impl LimitChoice {
    pub(super) fn read(
        agent: &Section<'_>,
        experimental: Option<&Section<'_>>,
        notes: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let ratelimit = experimental.map(|experimental| experimental.block("ratelimit"));
        Ok(Self {
            x509_svid_cache_max_size: cache_size(agent, "x509_svid_cache_max_size")?,
            availability_target: availability_target(agent)?,
            rate_limits: match ratelimit.transpose()?.flatten() {
                Some(block) => rate_limits(&block, notes)?,
                None => RateLimits::default(),
            },
            caller_limits: match agent.block("caller_limits")? {
                Some(block) => caller_limits(&block, notes)?,
                None => CallerLimits::default(),
            },
        })
    }
}

/// The size of a cache in SVIDs. Zero means the default, as in SPIRE.
pub(super) fn cache_size(agent: &Section<'_>, key: &str) -> Result<usize, ConfigError> {
    let size = agent.number(key)?.unwrap_or(0);
    match usize::try_from(size) {
        Ok(0) => Ok(SVID_CACHE_SIZE_DEFAULT),
        Ok(size) => Ok(size),
        Err(_) => Err(ConfigError::value(&agent.key(key), format!("{size} is less than nothing"))),
    }
}

fn availability_target(agent: &Section<'_>) -> Result<Option<Duration>, ConfigError> {
    let (name, key) = ("availability_target", agent.key("availability_target"));
    let Some(text) = agent.text(name)? else { return Ok(None) };
    match duration::parse(&text) {
        Ok(target) if target < AVAILABILITY_TARGET_MIN => {
            Err(ConfigError::value(&key, format!("{text:?} is too short: it must be at least 24h")))
        }
        Ok(target) => Ok(Some(target)),
        Err(fault) => Err(ConfigError::duration(&key, &fault)),
    }
}

fn rate_limits(block: &Section<'_>, notes: &mut Vec<String>) -> Result<RateLimits, ConfigError> {
    check_keys(block, known::RATE_LIMIT, notes)?;
    let limit = |key: &str| {
        let Some(number) = block.number(key)? else { return Ok(0) };
        let what = || format!("{number} is not a number of calls a second (0 is no limit)");
        u32::try_from(number).map_err(|_| ConfigError::value(&block.key(key), what()))
    };
    Ok(RateLimits {
        fetch_x509_svid: limit("fetch_x509_svid")?,
        fetch_jwt_svid: limit("fetch_jwt_svid")?,
        fetch_x509_bundles: limit("fetch_x509_bundles")?,
        fetch_jwt_bundles: limit("fetch_jwt_bundles")?,
        stream_secrets: limit("stream_secrets")?,
        fetch_secrets: limit("fetch_secrets")?,
    })
}

/// Our own keys: how much callers may ask for before it is known who they are.
fn caller_limits(block: &Section<'_>, notes: &mut Vec<String>) -> Result<CallerLimits, ConfigError> {
    check_keys(block, known::CALLER_LIMITS, notes)?;
    let limit = |key: &str| {
        let Some(number) = block.number(key)? else { return Ok(None) };
        let fitting = u32::try_from(number).ok().filter(|number| *number > 0);
        let what = || format!("{number} leaves callers no room");
        fitting.map(Some).ok_or_else(|| ConfigError::value(&block.key(key), what()))
    };
    let at_a_time = |key: &str| Ok(limit(key)?.map(|number| number as usize));
    let usual = CallerLimits::default();
    Ok(CallerLimits {
        connections_per_process: at_a_time("connections_per_process")?,
        connections_per_user: at_a_time("connections_per_user")?,
        calls_per_process: at_a_time("calls_per_process")?.unwrap_or(usual.calls_per_process),
        calls_per_user: at_a_time("calls_per_user")?.unwrap_or(usual.calls_per_user),
        attestations_per_process: limit("attestations_per_process")?
            .map_or(usual.attestations_per_process, Rate::of_callers),
        attestations_per_user: limit("attestations_per_user")?
            .map_or(usual.attestations_per_user, Rate::of_callers),
    })
}
