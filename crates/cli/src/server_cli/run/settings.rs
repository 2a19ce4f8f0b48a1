//! Checked settings as the server takes them.

use spindle_runtime::Logs;
use spindle_server::{
    CaSubject, DiskUpstreamSettings, KeySettings, Operations, RateLimitSettings, ServerConfig, StoreKind,
    StoreSettings, UpstreamSettings,
};

use super::node_attestors::node_attestors;
use crate::config::ConfigError;
use crate::config::server as chosen;
use crate::config::server::ServerSettings;

/// The server's configuration.
///
/// # Errors
/// When the subject has more values than it can carry, or a file it names cannot be read.
pub(in crate::server_cli) fn config(settings: ServerSettings) -> Result<ServerConfig, ConfigError> {
    Ok(ServerConfig {
        store: store_settings(settings.store),
        keys: match settings.keys {
            chosen::KeyChoice::Disk(path) => KeySettings::Disk(path),
            chosen::KeyChoice::Memory => KeySettings::Memory,
        },
        ca_subject: CaSubject {
            country: single("server.ca_subject.country", settings.ca_subject.country)?,
            organization: single("server.ca_subject.organization", settings.ca_subject.organization)?,
            common_name: settings.ca_subject.common_name,
        },
        trust_domain: settings.trust_domain,
        bind_address: settings.bind_address,
        bind_port: settings.bind_port,
        socket_path: settings.socket_path,
        ca_key_type: settings.ca_key_type,
        ca_ttl_secs: settings.ca_ttl_secs,
        default_x509_svid_ttl_secs: settings.default_x509_svid_ttl_secs,
        agent_ttl_secs: settings.agent_ttl_secs,
        node_attestors: node_attestors(settings.node_attestors)?,
        agent_spiffe_id_as_selector: settings.agent_spiffe_id_as_selector,
        jwt: settings.jwt,
        wit: settings.wit,
        admin_ids: settings.admin_ids,
        roles: settings.roles,
        signing_queue_max: settings.rate_limits.signing_queue,
        rate_limits: RateLimitSettings {
            attestation: settings.rate_limits.attestation,
            signing: settings.rate_limits.signing,
        },
        operations: Operations {
            // Set once they are.
            logs: Logs::default(),
            audit_log: settings.operations.audit_log,
            prune_agents: settings.operations.prune_agents,
            health_checks: settings.operations.health_checks,
            telemetry: settings.operations.telemetry,
        },
        upstream: settings.upstream.map(upstream),
    })
}

/// The store as the server takes it.
pub(in crate::server_cli) fn store_settings(store: chosen::StoreChoice) -> StoreSettings {
    StoreSettings { kind: store_kind(store.kind), directory: store.directory }
}

fn upstream(choice: chosen::UpstreamChoice) -> UpstreamSettings {
    match choice {
        chosen::UpstreamChoice::Disk { cert_file_path, key_file_path, bundle_file_path } => {
            UpstreamSettings::Disk(DiskUpstreamSettings { cert_file_path, key_file_path, bundle_file_path })
        }
    }
}

fn store_kind(kind: chosen::StoreKind) -> StoreKind {
    match kind {
        chosen::StoreKind::Sled => StoreKind::Sled,
        chosen::StoreKind::Redb => StoreKind::Redb,
        chosen::StoreKind::Memory => StoreKind::Memory,
    }
}

fn single(key: &str, mut values: Vec<String>) -> Result<String, ConfigError> {
    match values.len() {
        0 | 1 => Ok(values.pop().unwrap_or_default()),
        _ => Err(ConfigError::value(key, "an authority's subject holds one value; leave one in the list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_value_of_the_subject_is_refused_by_key() {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        assert_eq!(single("k", values(&[])).unwrap(), "");
        assert_eq!(single("k", values(&["US"])).unwrap(), "US");
        let fault = single("server.ca_subject.country", values(&["US", "DE"])).expect_err("two");
        assert!(
            fault.to_string().contains("server.ca_subject.country: an authority's subject holds one value")
        );
    }
}
