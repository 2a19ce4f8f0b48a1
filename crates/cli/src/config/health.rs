//! `health_checks { … }`: where health probes are answered over HTTP, the same for server and agent.

use std::net::SocketAddr;

use spindle_runtime::HealthListener;

use super::ConfigError;
use super::keys::{Key, Support, check_keys};
use super::section::Section;
use super::values::{address, port};

const KNOWN: &[Key] = &[
    ("listener_enabled", Support::Yes),
    ("bind_address", Support::Yes),
    ("bind_port", Support::Yes),
    ("live_path", Support::Yes),
    ("ready_path", Support::Yes),
];

/// SPIRE's default port.
const PORT: i64 = 80;

/// The listener; none when it is off. What is written is checked all the same.
pub(super) fn listener(
    top: &Section<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<HealthListener>, ConfigError> {
    let Some(block) = top.block("health_checks")? else { return Ok(None) };
    check_keys(&block, KNOWN, notes)?;
    let host = block.text("bind_address")?.unwrap_or_else(|| "localhost".into());
    let address = address(&block.key("bind_address"), &host)?;
    let port = port(&block.key("bind_port"), block.number("bind_port")?.unwrap_or(PORT))?;
    let live_path = path(&block, "live_path", "/live")?;
    let ready_path = path(&block, "ready_path", "/ready")?;
    if live_path == ready_path {
        let what = format!("{ready_path:?} is the path of live_path; each needs its own");
        return Err(ConfigError::value(&block.key("ready_path"), what));
    }
    let listener = HealthListener { address: SocketAddr::new(address, port), live_path, ready_path };
    Ok((block.switch("listener_enabled")? == Some(true)).then_some(listener))
}

/// The path of a probe; `default` when unset.
pub(super) fn path(block: &Section<'_>, key: &str, default: &str) -> Result<String, ConfigError> {
    let path = block.text(key)?.unwrap_or_else(|| default.into());
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(plain) {
        let what = format!("{path:?} is not a path: it starts with / and has no blanks, ? or #");
        return Err(ConfigError::value(&block.key(key), what));
    }
    Ok(path)
}
