//! `NodeAttestor "join_token"` and `NodeAttestor "x509pop"`: how nodes may prove themselves to the server.
//!
//! Files are only named here; whoever starts a server reads them.

use std::path::PathBuf;

use spindle_server::x509pop::{MAX_INTERMEDIATES, MAX_RSA_BITS, NAME, PathTemplate};

use crate::config::ConfigError;
use crate::config::keys::Support::Yes;
use crate::config::keys::{Key, check_keys};
use crate::config::plugins::Plugin;
use crate::config::section::Section;

/// The attestors that are configured. Join tokens are taken without being named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAttestorChoices {
    /// `x509pop`.
    pub x509pop: Option<X509PopChoice>,
}

/// Settings of `x509pop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509PopChoice {
    /// Whose certificates are taken.
    pub authorities: CaChoice,
    /// `agent_path_template`; none for the mode's own.
    pub agent_path_template: Option<PathTemplate>,
    /// `max_intermediates`.
    pub max_intermediates: usize,
    /// `max_rsa_key_size`, in bits.
    pub max_rsa_bits: usize,
    /// `verify_client_ip`.
    pub verify_client_ip: bool,
}

/// `mode`, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaChoice {
    /// `external_pki`: the key that names the files, and the files.
    Files(&'static str, Vec<PathBuf>),
    /// `spiffe`: SVIDs of the own trust domain whose path begins so. It ends with a slash.
    OwnTrustDomain(String),
}

const X509POP: &[Key] = &[
    ("mode", Yes),
    // What SPIRE reads, and what its documentation says instead.
    (PREFIX, Yes),
    (DOCUMENTED_PREFIX, Yes),
    (CA_PATH, Yes),
    (CA_PATHS, Yes),
    ("agent_path_template", Yes),
    ("max_intermediates", Yes),
    ("max_rsa_key_size", Yes),
    ("verify_client_ip", Yes),
];

const PREFIX: &str = "spiffe_prefix";
const DOCUMENTED_PREFIX: &str = "svid_prefix";
const PREFIX_DEFAULT: &str = "/spire-exchange/";
const CA_PATH: &str = "ca_bundle_path";
const CA_PATHS: &str = "ca_bundle_paths";

pub(super) fn read(
    plugin: &Plugin<'_>,
    choices: &mut NodeAttestorChoices,
    notes: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if plugin.name == NAME {
        check_keys(&plugin.data, X509POP, notes)?;
        choices.x509pop = Some(x509pop(&plugin.data)?);
        return Ok(());
    }
    // join_token has no settings.
    check_keys(&plugin.data, &[], notes)
}

fn x509pop(data: &Section<'_>) -> Result<X509PopChoice, ConfigError> {
    let template = data.text("agent_path_template")?.map(|text| PathTemplate::parse(&text)).transpose();
    Ok(X509PopChoice {
        authorities: authorities(data)?,
        agent_path_template: template
            .map_err(|fault| ConfigError::value(&data.key("agent_path_template"), fault))?,
        max_intermediates: count(data, "max_intermediates", MAX_INTERMEDIATES)?,
        max_rsa_bits: match count(data, "max_rsa_key_size", MAX_RSA_BITS)? {
            bits @ ..=MAX_RSA_BITS => bits,
            _ => {
                let key = data.key("max_rsa_key_size");
                return Err(ConfigError::value(&key, format!("at most {MAX_RSA_BITS} bits can be verified")));
            }
        },
        verify_client_ip: data.switch("verify_client_ip")?.unwrap_or(false),
    })
}

fn authorities(data: &Section<'_>) -> Result<CaChoice, ConfigError> {
    let one = data.text(CA_PATH)?.map(PathBuf::from);
    let many = data.texts(CA_PATHS)?.unwrap_or_default();
    match data.text("mode")?.as_deref() {
        None | Some("external_pki") => match (one, many.is_empty()) {
            (Some(_), false) => {
                Err(ConfigError::Exclusive { first: data.key(CA_PATH), second: data.key(CA_PATHS) })
            }
            (Some(path), true) => Ok(CaChoice::Files(CA_PATH, vec![path])),
            (None, false) => Ok(CaChoice::Files(CA_PATHS, many.into_iter().map(PathBuf::from).collect())),
            (None, true) => Err(ConfigError::Missing { key: data.key(CA_PATH) }),
        },
        Some("spiffe") if one.is_some() || !many.is_empty() => {
            let key = data.key(if one.is_some() { CA_PATH } else { CA_PATHS });
            Err(ConfigError::Exclusive { first: key, second: format!("{} = \"spiffe\"", data.key("mode")) })
        }
        Some("spiffe") => prefix(data).map(CaChoice::OwnTrustDomain),
        Some(other) => Err(ConfigError::value(
            &data.key("mode"),
            format!("{other:?} is neither external_pki nor spiffe"),
        )),
    }
}

/// An empty prefix is one that every path has. SPIRE reads `spiffe_prefix` and documents `svid_prefix`: either is obeyed.
fn prefix(data: &Section<'_>) -> Result<String, ConfigError> {
    let set = |key| data.items().iter().any(|item| item.key == key);
    let key = match (set(PREFIX), set(DOCUMENTED_PREFIX)) {
        (false, false) => return Ok(PREFIX_DEFAULT.into()),
        (true, true) => {
            return Err(ConfigError::Exclusive {
                first: data.key(PREFIX),
                second: data.key(DOCUMENTED_PREFIX),
            });
        }
        (true, false) => PREFIX,
        (false, true) => DOCUMENTED_PREFIX,
    };
    let mut prefix = data.text(key)?.unwrap_or_default();
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    if prefix.starts_with('/') {
        return Ok(prefix);
    }
    Err(ConfigError::value(&data.key(key), format!("{prefix:?} begins no path, which starts with a slash")))
}

fn count(data: &Section<'_>, key: &str, default: usize) -> Result<usize, ConfigError> {
    let Some(number) = data.number(key)? else { return Ok(default) };
    usize::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| ConfigError::value(&data.key(key), format!("{number} is not greater than 0")))
}
