//! Checked settings as the agent takes them.

use std::io::Read;
use std::path::Path;

use spindle_agent::config::PROC_ROOT_DEFAULT;
use spindle_agent::{
    AgentConfig, Bootstrap, BundleFormat, JoinToken, KeyStorage, PluginSettings, UnixConfig, X509PopSource,
};
use spindle_runtime::Logs;
use zeroize::Zeroizing;

use crate::config::agent as chosen;
use crate::config::agent::{AgentSettings, TrustChoice};
use crate::error::Failure;

/// A token is a UUID or a name; this keeps a wrong path from being sent to a server.
const JOIN_TOKEN_BYTES_MAX: u64 = 4096;

/// The agent's configuration; reads the token's file. `proc_root` is where to find processes, if not in the usual place.
///
/// # Errors
/// When the token's file cannot be read or holds no token.
pub(in crate::agent_cli) fn config(
    settings: AgentSettings,
    proc_root: Option<String>,
) -> Result<AgentConfig, Failure> {
    let plugins = plugins(&settings);
    let AgentSettings { sockets, bootstrap, limits, jwt, experimental, .. } = settings;
    let join_token = match (&bootstrap.join_token, &bootstrap.join_token_file) {
        (Some(token), _) => Some(JoinToken::new(token.reveal())),
        (None, Some(path)) => Some(read_token(path)?),
        (None, None) => None,
    };
    Ok(AgentConfig {
        trust_domain: settings.trust_domain,
        server_address: settings.server_address,
        server_port: settings.server_port,
        data_dir: settings.data_dir,
        socket_path: sockets.socket_path,
        join_token,
        x509pop: plugins.x509pop,
        bootstrap: trusted_by(bootstrap.trust),
        keys: match settings.keys {
            chosen::KeyChoice::Disk(directory) => KeyStorage::Disk { directory },
            chosen::KeyChoice::Memory => KeyStorage::Memory,
        },
        unix_attestor: plugins.unix,
        proc_root: proc_root.unwrap_or_else(|| PROC_ROOT_DEFAULT.to_owned()).into(),
        workload_key_type: settings.workload_key_type,
        sync_interval: experimental.sync_interval,
        allow_unauthenticated_verifiers: settings.allow_unauthenticated_verifiers,
        admin_socket_path: sockets.admin_socket_path,
        disable_workload_api: sockets.disable_workload_api,
        disable_sds_api: sockets.disable_sds_api,
        authorized_delegates: sockets.authorized_delegates,
        sds: sockets.sds,
        allowed_foreign_jwt_claims: jwt.allowed_foreign_claims,
        x509_svid_cache_max_size: limits.x509_svid_cache_max_size,
        jwt_svid_cache_max_size: jwt.cache_max_size,
        jwt_svid_cache_hit_timeout: jwt.cache_hit_timeout,
        availability_target: limits.availability_target,
        rate_limits: limits.rate_limits,
        broker: settings.broker,
        kubelet: plugins.kubelet,
        // Set up after this, so that a bad configuration leaves no log file behind.
        logs: Logs::default(),
        health_checks: settings.health_checks,
        telemetry: settings.telemetry,
        rebootstrap: bootstrap.rebootstrap,
        log_selectors: settings.log_selectors,
        use_sync_authorized_entries: experimental.use_sync_authorized_entries,
        require_pq_kem: experimental.require_pq_kem,
        feature_flags: experimental.feature_flags,
        caller_limits: limits.caller_limits,
    })
}

/// What plugins can be told anew while the agent runs.
pub(super) fn plugins(settings: &AgentSettings) -> PluginSettings {
    PluginSettings {
        unix: Some(UnixConfig {
            discover_workload_path: settings.unix.discover_workload_path,
            workload_size_limit: settings.unix.workload_size_limit,
        }),
        x509pop: settings.x509pop.clone().map(x509pop),
        kubelet: settings.kubelet.clone(),
    }
}

fn x509pop(choice: chosen::X509PopChoice) -> X509PopSource {
    match choice {
        chosen::X509PopChoice::Files { private_key, certificate, intermediates } => {
            X509PopSource::Files { private_key, certificate, intermediates }
        }
        chosen::X509PopChoice::WorkloadApi(socket) => X509PopSource::WorkloadApi { socket },
    }
}

fn trusted_by(trust: TrustChoice) -> Bootstrap {
    let format = |format| match format {
        chosen::BundleFormat::Pem => BundleFormat::Pem,
        chosen::BundleFormat::Spiffe => BundleFormat::Spiffe,
    };
    match trust {
        TrustChoice::File(path, form) => Bootstrap::File { path, format: format(form) },
        TrustChoice::Url { url, unix_socket, format: form } => {
            Bootstrap::Url { url, unix_socket, format: format(form) }
        }
        TrustChoice::WorkloadApi(socket) => Bootstrap::WorkloadApi { socket },
        TrustChoice::InsecureOnce => Bootstrap::Insecure,
    }
}

fn read_token(path: &Path) -> Result<JoinToken, Failure> {
    let name = path.display();
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(JOIN_TOKEN_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| {
            Failure::because(format!("cannot read the join token from {name}"), &error)
                .try_this("write a token from `spindle-server token generate` into it")
        })?;
    let token = text.trim();
    if token.is_empty() || text.len() as u64 > JOIN_TOKEN_BYTES_MAX {
        return Err(Failure::new(format!("{name} holds no join token"))
            .try_this("write a token from `spindle-server token generate` into it"));
    }
    Ok(JoinToken::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_must_hold_one_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_token(&path).map(drop)
        };
        assert!(read("abc\n").is_ok());
        assert!(read(" \n").is_err());
        assert!(read(&"x".repeat(5000)).is_err());
        assert!(read_token(Path::new("/nonexistent")).is_err());
    }
}
