//! Texts of configuration files into checked values. Each fault names its key.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use spindle_keys::KeyType;
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use super::ConfigError;
use crate::duration;

/// The value, or a fault that names the key.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::Missing { key: key.into() })
}

/// A trust domain, as a name or as its SPIFFE ID.
pub(crate) fn trust_domain(key: &str, text: Option<&str>) -> Result<TrustDomain, ConfigError> {
    let text = required(key, text)?;
    let name = text.strip_prefix("spiffe://").unwrap_or(text);
    TrustDomain::from_str(name).map_err(|fault| ConfigError::value(key, fault))
}

/// A port that can be listened on (0 lets the system choose) or called.
pub(super) fn port(key: &str, number: i64) -> Result<u16, ConfigError> {
    u16::try_from(number).map_err(|_| ConfigError::value(key, format!("{number} is not a port (0 to 65535)")))
}

/// An address to listen on.
pub(super) fn address(key: &str, text: &str) -> Result<IpAddr, ConfigError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    bare.parse().map_err(|_| ConfigError::value(key, format!("{text:?} is not an IP address")))
}

/// A lifetime in seconds, at least one; `default_secs` when unset.
pub(super) fn lifetime_secs(key: &str, text: Option<&str>, default_secs: i64) -> Result<i64, ConfigError> {
    let Some(text) = text else { return Ok(default_secs) };
    match duration::parse_secs(text) {
        Ok(0) => Err(ConfigError::value(key, "a lifetime of zero is of no use")),
        Ok(secs) => Ok(secs),
        Err(fault) => Err(ConfigError::duration(key, &fault)),
    }
}

/// A wait of more than nothing; `default` when unset.
pub(super) fn interval(key: &str, text: Option<&str>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err(ConfigError::value(key, "an interval of zero would never rest")),
        Ok(interval) => Ok(interval),
        Err(fault) => Err(ConfigError::duration(key, &fault)),
    }
}

/// A key type; EC P-256 when unset.
pub(super) fn key_type(key: &str, text: Option<&str>) -> Result<KeyType, ConfigError> {
    match text {
        Some(text) => KeyType::from_str(text).map_err(|fault| ConfigError::value(key, fault)),
        None => Ok(KeyType::EcP256),
    }
}

/// A list of SPIFFE IDs.
pub(super) fn spiffe_ids(key: &str, texts: &[String]) -> Result<Vec<SpiffeId>, ConfigError> {
    let read = |text: &String| {
        SpiffeId::from_str(text).map_err(|fault| ConfigError::value(key, format!("{text:?}: {fault}")))
    };
    texts.iter().map(read).collect()
}
