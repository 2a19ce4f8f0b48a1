//! The server's parts: one store, one key manager, and the attestors of nodes.

use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::config::keys::Key;
use crate::config::keys::Support::{NotYet, Yes};
use crate::config::keys::check_keys;
use crate::config::plugins::{NODE_ATTESTORS, Plugin, PluginType, read as read_plugins};
use crate::config::section::Section;
use crate::config::server::node_attestors::{self, NodeAttestorChoices};

/// Kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The default, embedded.
    Sled,
    /// The other embedded one.
    Redb,
    /// Gone when the process ends.
    Memory,
}

impl StoreKind {
    /// Its name in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
            Self::Memory => "memory",
        }
    }
}

/// Which store, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChoice {
    /// Its kind.
    pub kind: StoreKind,
    /// Its directory; empty means `store` below the data directory.
    pub directory: PathBuf,
}

impl StoreChoice {
    /// The default store.
    pub fn sled_in(data_dir: &Path) -> Self {
        Self { kind: StoreKind::Sled, directory: data_dir.join("store") }
    }

    /// With its directory filled in.
    #[must_use]
    pub fn below(self, data_dir: &Path) -> Self {
        match self.directory.as_os_str().is_empty() {
            true => Self { directory: data_dir.join("store"), ..self },
            false => self,
        }
    }
}

/// Which key manager, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// A file of private keys.
    Disk(PathBuf),
    /// Gone when the process ends.
    Memory,
}

impl KeyChoice {
    /// The default key manager.
    pub fn disk_in(data_dir: &Path) -> Self {
        Self::Disk(data_dir.join("keys.json"))
    }
}

const TYPES: &[PluginType] = &[
    PluginType {
        kind: "DataStore",
        names: &[
            ("sled", Yes),
            ("redb", Yes),
            ("memory", Yes),
            ("sql", NotYet("use DataStore \"sled\" or \"redb\"")),
        ],
        many: false,
    },
    PluginType {
        kind: "KeyManager",
        names: &[
            ("disk", Yes),
            ("memory", Yes),
            ("aws_kms", NotYet("use KeyManager \"disk\"")),
            ("azure_key_vault", NotYet("use KeyManager \"disk\"")),
            ("gcp_kms", NotYet("use KeyManager \"disk\"")),
            ("hashicorp_vault", NotYet("use KeyManager \"disk\"")),
        ],
        many: false,
    },
    PluginType { kind: "NodeAttestor", names: NODE_ATTESTORS, many: true },
    PluginType {
        kind: "UpstreamAuthority",
        names: &[
            ("disk", NotYet(SELF_SIGNED)),
            ("spire", NotYet(SELF_SIGNED)),
            ("vault", NotYet(SELF_SIGNED)),
            ("aws_pca", NotYet(SELF_SIGNED)),
            ("awssecret", NotYet(SELF_SIGNED)),
            ("gcp_cas", NotYet(SELF_SIGNED)),
            ("cert-manager", NotYet(SELF_SIGNED)),
            ("ejbca", NotYet(SELF_SIGNED)),
        ],
        many: false,
    },
    PluginType {
        kind: "Notifier",
        names: &[("k8sbundle", NotYet("")), ("gcs_bundle", NotYet(""))],
        many: true,
    },
    PluginType {
        kind: "BundlePublisher",
        names: &[
            ("aws_s3", NotYet("")),
            ("aws_rolesanywhere_trustanchor", NotYet("")),
            ("azure_blob", NotYet("")),
            ("gcp_cloudstorage", NotYet("")),
            ("k8s_configmap", NotYet("")),
        ],
        many: true,
    },
    PluginType { kind: "CredentialComposer", names: &[("uniqueid", NotYet(""))], many: true },
];

const SELF_SIGNED: &str = "the server signs its own authority";

const DIRECTORY: &[Key] = &[("directory", Yes)];
const KEYS_PATH: &[Key] = &[("keys_path", Yes)];

pub(super) fn read(
    top: &Section<'_>,
    notes: &mut Vec<String>,
) -> Result<(Option<StoreChoice>, Option<KeyChoice>, NodeAttestorChoices), ConfigError> {
    let (mut store, mut keys, mut node_attestors) = (None, None, NodeAttestorChoices::default());
    for plugin in read_plugins(top, TYPES, notes)? {
        match plugin.kind {
            "DataStore" => store = Some(read_store(&plugin, notes)?),
            "KeyManager" => keys = Some(read_keys(&plugin, notes)?),
            // The only other type that has a name that is supported.
            _ => node_attestors::read(&plugin, &mut node_attestors, notes)?,
        }
    }
    Ok((store, keys, node_attestors))
}

fn read_store(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<StoreChoice, ConfigError> {
    let kind = match plugin.name {
        "redb" => StoreKind::Redb,
        "memory" => StoreKind::Memory,
        _ => StoreKind::Sled,
    };
    let known = if kind == StoreKind::Memory { &[] } else { DIRECTORY };
    check_keys(&plugin.data, known, notes)?;
    Ok(StoreChoice { kind, directory: plugin.data.text("directory")?.map(PathBuf::from).unwrap_or_default() })
}

fn read_keys(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<KeyChoice, ConfigError> {
    if plugin.name == "memory" {
        check_keys(&plugin.data, &[], notes)?;
        return Ok(KeyChoice::Memory);
    }
    check_keys(&plugin.data, KEYS_PATH, notes)?;
    let missing = || ConfigError::Missing { key: plugin.data.key("keys_path") };
    Ok(KeyChoice::Disk(plugin.data.text("keys_path")?.ok_or_else(missing)?.into()))
}
