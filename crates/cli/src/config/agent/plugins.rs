//! The agent's parts: one key manager, the join-token attestor, the unix workload attestor.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::config::keys::Key;
use crate::config::keys::Support::{NotYet, Yes};
use crate::config::keys::check_keys;
use crate::config::plugins::{NODE_ATTESTORS, Plugin, PluginType, read as read_plugins};
use crate::config::section::Section;

/// Which key manager, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// A file of private keys in this directory.
    Disk(PathBuf),
    /// Gone when the process ends.
    Memory,
}

/// Settings of the unix workload attestor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixChoice {
    /// `discover_workload_path`: whether `unix:path` and `unix:sha256` are found out.
    pub discover_workload_path: bool,
    /// `workload_size_limit`: no hash of larger programs; 0 is no limit, less than 0 is no hash.
    pub workload_size_limit: i64,
}

const UNIX: &str = "use WorkloadAttestor \"unix\"";

const TYPES: &[PluginType] = &[
    PluginType { kind: "KeyManager", names: &[("disk", Yes), ("memory", Yes)], many: false },
    PluginType { kind: "NodeAttestor", names: NODE_ATTESTORS, many: false },
    PluginType {
        kind: "WorkloadAttestor",
        names: &[
            ("unix", Yes),
            ("docker", NotYet(UNIX)),
            ("k8s", NotYet(UNIX)),
            ("slurm", NotYet(UNIX)),
            ("systemd", NotYet(UNIX)),
            ("windows", NotYet(UNIX)),
        ],
        many: true,
    },
    PluginType {
        kind: "SVIDStore",
        names: &[("aws_secretsmanager", NotYet("")), ("gcp_secretmanager", NotYet(""))],
        many: true,
    },
];

/// An agent without one could tell no caller from another, and SPIRE's agent does not start either.
pub(super) const NO_WORKLOAD_ATTESTOR: ConfigError = ConfigError::NoPlugin {
    kind: "WorkloadAttestor",
    consequence: "no caller could be told from another",
    example: "WorkloadAttestor \"unix\" { plugin_data {} }",
};

const DIRECTORY: &[Key] = &[("directory", Yes)];
const UNIX_KEYS: &[Key] = &[("discover_workload_path", Yes), ("workload_size_limit", Yes)];

pub(super) fn read(
    top: &Section<'_>,
    notes: &mut Vec<String>,
) -> Result<(Option<KeyChoice>, Option<UnixChoice>), ConfigError> {
    let (mut keys, mut unix) = (None, None);
    for plugin in read_plugins(top, TYPES, notes)? {
        match plugin.kind {
            "KeyManager" => keys = Some(read_keys(&plugin, notes)?),
            "WorkloadAttestor" => unix = Some(read_unix(&plugin, notes)?),
            // join_token, the only other one there is: it has no settings.
            _ => check_keys(&plugin.data, &[], notes)?,
        }
    }
    Ok((keys, unix))
}

fn read_keys(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<KeyChoice, ConfigError> {
    if plugin.name == "memory" {
        check_keys(&plugin.data, &[], notes)?;
        return Ok(KeyChoice::Memory);
    }
    check_keys(&plugin.data, DIRECTORY, notes)?;
    let missing = || ConfigError::Missing { key: plugin.data.key("directory") };
    Ok(KeyChoice::Disk(plugin.data.text("directory")?.ok_or_else(missing)?.into()))
}

fn read_unix(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<UnixChoice, ConfigError> {
    check_keys(&plugin.data, UNIX_KEYS, notes)?;
    Ok(UnixChoice {
        discover_workload_path: plugin.data.switch("discover_workload_path")?.unwrap_or(false),
        workload_size_limit: plugin.data.number("workload_size_limit")?.unwrap_or(0),
    })
}
