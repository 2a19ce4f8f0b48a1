//! The server's parts: one store, one key manager, the attestors of nodes, and who signs its authority.

use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::config::keys::Key;
use crate::config::keys::Support::{NotYet, Yes};
use crate::config::keys::check_keys;
use crate::config::plugins::{NODE_ATTESTORS, Plugin, PluginType, read as read_plugins};
use crate::config::section::Section;
use crate::config::server::node_attestors::{self, NodeAttestorChoices};
use crate::hcl::Value;

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

/// Who signs the server's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamChoice {
    /// A signing certificate with its key, in files.
    Disk {
        /// The certificate, then what leads from it to a root.
        cert_file_path: PathBuf,
        /// Its private key.
        key_file_path: PathBuf,
        /// The roots; none when the certificate is the root itself.
        bundle_file_path: Option<PathBuf>,
    },
}

const TYPES: &[PluginType] = &[
    PluginType {
        kind: "DataStore",
        names: &[("sled", Yes), ("redb", Yes), ("memory", Yes), ("sql", Yes)],
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
            ("disk", Yes),
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

const SELF_SIGNED: &str = "use UpstreamAuthority \"disk\", or none: the server then signs its own authority";

/// All that SPIRE takes. They describe a database that is not used, so none of them has an effect of its own.
const SQL: &[Key] = &[
    ("database_type", Yes),
    ("connection_string", Yes),
    ("ro_connection_string", Yes),
    ("root_ca_path", Yes),
    ("client_cert_path", Yes),
    ("client_key_path", Yes),
    ("max_open_conns", Yes),
    ("max_idle_conns", Yes),
    ("conn_max_lifetime", Yes),
    ("disable_migration", Yes),
    ("log_sql", Yes),
];

const DIRECTORY: &[Key] = &[("directory", Yes)];
const KEYS_PATH: &[Key] = &[("keys_path", Yes)];
const UPSTREAM_FILES: &[Key] = &[("cert_file_path", Yes), ("key_file_path", Yes), ("bundle_file_path", Yes)];

/// What the `plugins` block chooses.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) store: Option<StoreChoice>,
    pub(super) keys: Option<KeyChoice>,
    pub(super) node_attestors: NodeAttestorChoices,
    pub(super) upstream: Option<UpstreamChoice>,
}

pub(super) fn read(top: &Section<'_>, notes: &mut Vec<String>) -> Result<Chosen, ConfigError> {
    let mut chosen = Chosen::default();
    for plugin in read_plugins(top, TYPES, notes)? {
        match plugin.kind {
            "DataStore" => chosen.store = Some(read_store(&plugin, notes)?),
            "KeyManager" => chosen.keys = Some(read_keys(&plugin, notes)?),
            "UpstreamAuthority" => chosen.upstream = Some(read_upstream(&plugin, notes)?),
            // The only other type that has a name that is supported.
            _ => node_attestors::read(&plugin, &mut chosen.node_attestors, notes)?,
        }
    }
    Ok(chosen)
}

fn read_store(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<StoreChoice, ConfigError> {
    let kind = match plugin.name {
        "sql" => return read_sql(plugin, notes),
        "redb" => StoreKind::Redb,
        "memory" => StoreKind::Memory,
        _ => StoreKind::Sled,
    };
    let known = if kind == StoreKind::Memory { &[] } else { DIRECTORY };
    check_keys(&plugin.data, known, notes)?;
    Ok(StoreChoice { kind, directory: plugin.data.text("directory")?.map(PathBuf::from).unwrap_or_default() })
}

/// SPIRE's SQLite database, which most single servers have: the embedded store takes its place. A database on another machine
/// is shared or backed up there, which an embedded store cannot replace, so it is refused.
fn read_sql(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<StoreChoice, ConfigError> {
    let (data, block) = (&plugin.data, "plugins.DataStore.sql");
    check_keys(data, SQL, notes)?;
    let key = data.key("database_type");
    let remote = |name: &str| {
        let what = format!(
            "{name} cannot be used: this version keeps its state in an embedded store on this machine; \
             write sqlite3, or DataStore \"sled\" or \"redb\" in place of \"sql\""
        );
        ConfigError::value(&key, what)
    };
    let database = data.items().iter().find(|item| item.key == "database_type");
    if let Some(Value::Object(types)) = database.map(|item| &item.value) {
        return Err(remote(types.first().map_or("this database", |item| &item.key)));
    }
    match data.text("database_type")?.ok_or(ConfigError::Missing { key: key.clone() })?.as_str() {
        "sqlite3" => {}
        name @ ("postgres" | "mysql" | "aws_postgres" | "aws_mysql") => return Err(remote(name)),
        other => {
            return Err(ConfigError::value(&key, format!("{other:?} is not a database type; write sqlite3")));
        }
    }
    let missing = || ConfigError::Missing { key: data.key("connection_string") };
    let file = data.text("connection_string")?.ok_or_else(missing)?;
    notes.push(format!(
        "{block}: the embedded store \"sled\", in the folder store below data_dir, takes the place of the SQLite database \
         {file}, which is neither read nor changed"
    ));
    Ok(StoreChoice { kind: StoreKind::Sled, directory: PathBuf::new() })
}

/// `disk` is the only one there is.
fn read_upstream(plugin: &Plugin<'_>, notes: &mut Vec<String>) -> Result<UpstreamChoice, ConfigError> {
    check_keys(&plugin.data, UPSTREAM_FILES, notes)?;
    let path = |key: &str| {
        let text = plugin.data.text(key)?;
        text.map(PathBuf::from).ok_or_else(|| ConfigError::Missing { key: plugin.data.key(key) })
    };
    Ok(UpstreamChoice::Disk {
        cert_file_path: path("cert_file_path")?,
        key_file_path: path("key_file_path")?,
        bundle_file_path: plugin.data.text("bundle_file_path")?.map(PathBuf::from),
    })
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
