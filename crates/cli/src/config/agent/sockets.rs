//! The agent's sockets, what they offer, and who may use the admin socket.

use std::path::{Component, Path, PathBuf};

use spindle_agent::config::SdsConfig;
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use super::SOCKET_PATH;
use super::known;
use crate::config::ConfigError;
use crate::config::keys::check_keys;
use crate::config::section::Section;
use crate::config::values::spiffe_ids;

const PUBLIC: &str = "agent.socket_path";
const ADMIN: &str = "agent.admin_socket_path";
const DELEGATES: &str = "agent.authorized_delegates";

/// Keys and flags as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawSockets {
    /// `socket_path`.
    pub socket_path: Option<PathBuf>,
    /// `admin_socket_path`.
    pub admin_socket_path: Option<PathBuf>,
    /// `disable_workload_api`.
    pub disable_workload_api: Option<bool>,
    /// `disable_sds_api`.
    pub disable_sds_api: Option<bool>,
    /// `authorized_delegates`.
    pub authorized_delegates: Vec<String>,
    /// `sds`, which no flag changes.
    pub sds: SdsConfig,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketChoice {
    /// The public socket; not opened when both its services are off.
    pub socket_path: PathBuf,
    /// The admin socket.
    pub admin_socket_path: Option<PathBuf>,
    /// Whether the Workload API is off.
    pub disable_workload_api: bool,
    /// Whether Envoy's SDS is off.
    pub disable_sds_api: bool,
    /// Who may use the Delegated Identity API.
    pub authorized_delegates: Vec<SpiffeId>,
    /// Names and forms of Envoy's SDS.
    pub sds: SdsConfig,
}

impl RawSockets {
    pub(super) fn read(agent: &Section<'_>, notes: &mut Vec<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            socket_path: agent.text("socket_path")?.map(PathBuf::from),
            admin_socket_path: agent.text("admin_socket_path")?.map(PathBuf::from),
            disable_workload_api: agent.switch("disable_workload_api")?,
            disable_sds_api: agent.switch("disable_sds_api")?,
            authorized_delegates: agent.texts("authorized_delegates")?.unwrap_or_default(),
            sds: sds(agent, notes)?,
        })
    }

    /// These settings, with gaps filled from `file`.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            socket_path: self.socket_path.or(file.socket_path),
            disable_workload_api: self.disable_workload_api.or(file.disable_workload_api),
            disable_sds_api: self.disable_sds_api.or(file.disable_sds_api),
            ..file
        }
    }

    pub(super) fn ready(self, trust_domain: &TrustDomain) -> Result<SocketChoice, ConfigError> {
        let choice = SocketChoice {
            socket_path: self.socket_path.unwrap_or_else(|| SOCKET_PATH.into()),
            admin_socket_path: self.admin_socket_path,
            disable_workload_api: self.disable_workload_api.unwrap_or(false),
            disable_sds_api: self.disable_sds_api.unwrap_or(false),
            authorized_delegates: delegates(&self.authorized_delegates, trust_domain)?,
            sds: self.sds,
        };
        is_no_address(PUBLIC, &choice.socket_path)?;
        if let Some(admin) = &choice.admin_socket_path {
            is_no_address(ADMIN, admin)?;
            choice.keep_apart(ADMIN, admin)?;
        }
        Ok(choice)
    }
}

impl SocketChoice {
    /// Refuses a socket in or below the public socket's directory: whoever may look for the one must not find the other. Goes
    /// by the letters of the two paths; links are seen when the sockets are opened.
    pub(super) fn keep_apart(&self, key: &str, path: &Path) -> Result<(), ConfigError> {
        if self.disable_workload_api && self.disable_sds_api {
            return Ok(());
        }
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map(|path| without_parents(&path))
                .map_err(|error| ConfigError::value(key, format!("{}: {error}", path.display())))
        };
        let (socket, public) = (absolute(path)?, absolute(&self.socket_path)?);
        match public.parent().filter(|directory| socket.starts_with(directory)) {
            None => Ok(()),
            Some(directory) => {
                let what = format!(
                    "{} lies in or below {}, the directory of the public socket; choose another directory",
                    path.display(),
                    directory.display()
                );
                Err(ConfigError::value(key, what))
            }
        }
    }
}

/// Over TCP nobody could tell which process is calling (Workload Endpoint 3), so sockets are Unix sockets, given by path.
fn is_no_address(key: &str, path: &Path) -> Result<(), ConfigError> {
    if path.to_string_lossy().contains("://") {
        let what = format!("{:?} is an address; give the path of a Unix socket", path.display().to_string());
        return Err(ConfigError::value(key, what));
    }
    Ok(())
}

fn delegates(texts: &[String], trust_domain: &TrustDomain) -> Result<Vec<SpiffeId>, ConfigError> {
    let ids = spiffe_ids(DELEGATES, texts)?;
    match ids.iter().find(|id| !id.is_member_of(trust_domain) || id.path().is_empty()) {
        None => Ok(ids),
        Some(id) => {
            let what = format!("{:?} is not the ID of a workload of {trust_domain}", id.as_str());
            Err(ConfigError::value(DELEGATES, what))
        }
    }
}

fn sds(agent: &Section<'_>, notes: &mut Vec<String>) -> Result<SdsConfig, ConfigError> {
    let usual = SdsConfig::default();
    let Some(block) = agent.block("sds")? else { return Ok(usual) };
    check_keys(&block, known::SDS, notes)?;
    let chosen = SdsConfig {
        default_svid_name: block.text("default_svid_name")?.unwrap_or(usual.default_svid_name),
        default_bundle_name: block.text("default_bundle_name")?.unwrap_or(usual.default_bundle_name),
        default_all_bundles_name: block
            .text("default_all_bundles_name")?
            .unwrap_or(usual.default_all_bundles_name),
        disable_spiffe_cert_validation: block
            .switch("disable_spiffe_cert_validation")?
            .unwrap_or(usual.disable_spiffe_cert_validation),
    };
    if chosen.default_all_bundles_name == chosen.default_bundle_name {
        notes.push(format!(
            "{} has no effect: it is the same name as {}",
            block.key("default_all_bundles_name"),
            block.key("default_bundle_name")
        ));
    }
    Ok(chosen)
}

/// An absolute path without `..`, by its letters.
fn without_parents(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            further => plain.push(further),
        }
        plain
    })
}
