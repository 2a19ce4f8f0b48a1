//! The agent's parts: one key manager, one attestor of the node, the unix workload attestor, and the kubelet that brokers'
//! pods are looked up at.

use std::path::PathBuf;

use spindle_agent::config::KubeletConfig;

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

/// `NodeAttestor "x509pop"`: where the node's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum X509PopChoice {
    /// In files.
    Files {
        /// `private_key_path`.
        private_key: PathBuf,
        /// `certificate_path`.
        certificate: PathBuf,
        /// `intermediates_path`.
        intermediates: Option<PathBuf>,
    },
    /// `spiffe_endpoint_socket`: at the Workload API behind this socket.
    WorkloadApi(PathBuf),
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
            ("k8s", Yes),
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
const X509POP_KEYS: &[Key] =
    &[(PRIVATE_KEY, Yes), (CERTIFICATE, Yes), ("intermediates_path", Yes), (ENDPOINT, Yes)];
const PRIVATE_KEY: &str = "private_key_path";
const CERTIFICATE: &str = "certificate_path";
const ENDPOINT: &str = "spiffe_endpoint_socket";
const UNIX_KEYS: &[Key] = &[("discover_workload_path", Yes), ("workload_size_limit", Yes)];

/// What the file chooses of each type.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    pub(super) keys: Option<KeyChoice>,
    pub(super) x509pop: Option<X509PopChoice>,
    pub(super) unix: Option<UnixChoice>,
    pub(super) kubelet: Option<KubeletConfig>,
}

pub(super) fn read(top: &Section<'_>, notes: &mut Vec<String>) -> Result<Plugins, ConfigError> {
    let mut chosen = Plugins::default();
    for plugin in read_plugins(top, TYPES, notes)? {
        match plugin.kind {
            "KeyManager" => chosen.keys = Some(read_keys(&plugin, notes)?),
            "WorkloadAttestor" if plugin.name == "k8s" => {
                chosen.kubelet = Some(super::kubelet::read(&plugin.data, notes)?);
            }
            "WorkloadAttestor" => chosen.unix = Some(read_unix(&plugin, notes)?),
            _ if plugin.name == "x509pop" => chosen.x509pop = Some(read_x509pop(&plugin, notes)?),
            // join_token, the only other one there is: it has no settings.
            _ => check_keys(&plugin.data, &[], notes)?,
        }
    }
    Ok(chosen)
}

/// Without `spiffe_endpoint_socket` both paths are needed; beside it they have no effect, as in SPIRE.
fn read_x509pop(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<X509PopChoice, ConfigError> {
    let data = &plugin.data;
    check_keys(data, X509POP_KEYS, notes)?;
    let path = |key| Ok::<_, ConfigError>(data.text(key)?.map(PathBuf::from));
    let (private_key, certificate) = (path(PRIVATE_KEY)?, path(CERTIFICATE)?);
    let intermediates = path("intermediates_path")?;
    if let Some(endpoint) = data.text(ENDPOINT)? {
        if private_key.is_some() || certificate.is_some() || intermediates.is_some() {
            notes.push(format!("{} is set: the certificate files have no effect", data.key(ENDPOINT)));
        }
        return Ok(X509PopChoice::WorkloadApi(endpoint_path(&data.key(ENDPOINT), &endpoint)?));
    }
    let missing = |key| ConfigError::Missing { key: data.key(key) };
    Ok(X509PopChoice::Files {
        private_key: private_key.ok_or_else(|| missing(PRIVATE_KEY))?,
        certificate: certificate.ok_or_else(|| missing(CERTIFICATE))?,
        intermediates,
    })
}

/// The path in `unix:///path`, the Workload API's form of addresses; the path alone is taken as well.
pub(super) fn endpoint_path(key: &str, endpoint: &str) -> Result<PathBuf, ConfigError> {
    let path =
        endpoint.strip_prefix("unix:").map_or(endpoint, |rest| rest.strip_prefix("//").unwrap_or(rest));
    if path.starts_with('/') {
        return Ok(path.into());
    }
    let what =
        format!("{endpoint:?} is no socket; write unix:///path/of/the/api.sock (TCP is not supported)");
    Err(ConfigError::value(key, what))
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
