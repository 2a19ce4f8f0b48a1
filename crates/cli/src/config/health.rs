//! `health_checks { … }`: the HTTP listener does not exist yet, so only its being off is taken.

use super::ConfigError;
use super::keys::{Key, Support, check_keys};
use super::section::Section;

const WHY: &str = "the health listener is off; use the healthcheck command";

const HEALTH_CHECKS: &[Key] = &[
    ("listener_enabled", Support::Only("false")),
    ("bind_address", Support::NoEffect(WHY)),
    ("bind_port", Support::NoEffect(WHY)),
    ("live_path", Support::NoEffect(WHY)),
    ("ready_path", Support::NoEffect(WHY)),
];

pub(super) fn health_checks(top: &Section<'_>, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    match top.block("health_checks")? {
        Some(block) => check_keys(&block, HEALTH_CHECKS, notes),
        None => Ok(()),
    }
}
