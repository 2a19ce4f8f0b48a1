//! `WorkloadAttestor "k8s"`: the kubelet at which pods are looked up that brokers name. Processes are not attested by it yet,
//! so it is of use together with a broker endpoint only.

use std::path::PathBuf;

use spindle_agent::config::{KubeletConfig, KubeletCredentials, KubeletPort, KubeletTrust};

use crate::config::ConfigError;
use crate::config::keys::Key;
use crate::config::keys::Support::{NoEffect, NotYet, Yes};
use crate::config::keys::check_keys;
use crate::config::section::Section;

/// The kubelet's usual port for HTTPS.
const SECURE_PORT: u16 = 10_250;

/// The environment variable that names the node.
const NODE_NAME_ENV: &str = "MY_NODE_NAME";

/// Where Kubernetes puts an account's token and the cluster's authority.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const OF_PROCESSES: &str = "processes are not attested by this attestor yet";
const READ_ANEW: &str = "files and pods are read when they are needed";

const KEYS: &[Key] = &[
    ("kubelet_secure_port", Yes),
    ("kubelet_read_only_port", Yes),
    ("kubelet_ca_path", Yes),
    ("skip_kubelet_verification", Yes),
    ("token_path", Yes),
    ("certificate_path", Yes),
    ("private_key_path", Yes),
    ("use_anonymous_authentication", Yes),
    ("node_name_env", Yes),
    ("node_name", Yes),
    ("max_poll_attempts", NoEffect(OF_PROCESSES)),
    ("poll_retry_interval", NoEffect(OF_PROCESSES)),
    ("disable_container_selectors", NoEffect(OF_PROCESSES)),
    ("use_new_container_locator", NoEffect(OF_PROCESSES)),
    ("verbose_container_locator_logs", NoEffect(OF_PROCESSES)),
    ("reload_interval", NoEffect(READ_ANEW)),
    ("disable_kubelet_client", NotYet("")),
    ("enable_namespace_labels", NotYet("")),
    ("sigstore", NotYet("")),
    ("experimental", NotYet("")),
];

/// The plugin's settings.
pub(super) fn read(data: &Section<'_>, notes: &mut Vec<String>) -> Result<KubeletConfig, ConfigError> {
    check_keys(data, KEYS, notes)?;
    let (secure, read_only) = (port(data, "kubelet_secure_port")?, port(data, "kubelet_read_only_port")?);
    let node_name = node_name(data)?;
    let port = match (secure, read_only) {
        (Some(_), Some(_)) => {
            let what = "cannot stand beside kubelet_secure_port";
            return Err(ConfigError::value(&data.key("kubelet_read_only_port"), what));
        }
        (None, Some(port)) => KubeletPort::ReadOnly(port),
        (secure, None) => KubeletPort::Secure {
            port: secure.unwrap_or(SECURE_PORT),
            trust: trust(data)?,
            credentials: credentials(data)?,
        },
    };
    Ok(KubeletConfig { node_name, port })
}

fn port(data: &Section<'_>, key: &str) -> Result<Option<u16>, ConfigError> {
    let Some(number) = data.number(key)?.filter(|number| *number != 0) else { return Ok(None) };
    let wrong = || ConfigError::value(&data.key(key), format!("{number} is no port"));
    u16::try_from(number).map(Some).map_err(|_| wrong())
}

fn node_name(data: &Section<'_>) -> Result<Option<String>, ConfigError> {
    if let Some(name) = data.text("node_name")?.filter(|name| !name.is_empty()) {
        return Ok(Some(name));
    }
    let variable = data.text("node_name_env")?.unwrap_or_else(|| NODE_NAME_ENV.to_owned());
    Ok(std::env::var(variable).ok().filter(|name| !name.is_empty()))
}

fn trust(data: &Section<'_>) -> Result<KubeletTrust, ConfigError> {
    if data.switch("skip_kubelet_verification")?.unwrap_or(false) {
        return Ok(KubeletTrust::Anyone);
    }
    let path = data.text("kubelet_ca_path")?.unwrap_or_else(|| format!("{ACCOUNT}/ca.crt"));
    Ok(KubeletTrust::Authorities(path.into()))
}

fn credentials(data: &Section<'_>) -> Result<KubeletCredentials, ConfigError> {
    let path = |key| Ok::<_, ConfigError>(data.text(key)?.map(PathBuf::from));
    let (certificate, private_key) = (path("certificate_path")?, path("private_key_path")?);
    let missing = |key| ConfigError::Missing { key: data.key(key) };
    if data.switch("use_anonymous_authentication")?.unwrap_or(false) {
        return Ok(KubeletCredentials::Anonymous);
    }
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => {
            Ok(KubeletCredentials::Certificate { certificate, private_key })
        }
        (Some(_), None) => Err(missing("private_key_path")),
        (None, Some(_)) => Err(missing("certificate_path")),
        (None, None) => {
            let token = path("token_path")?;
            Ok(KubeletCredentials::Token(token.unwrap_or_else(|| format!("{ACCOUNT}/token").into())))
        }
    }
}
