//! Checked choices of node attestors as the server takes them: reads the files they name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use spindle_server::NodeAttestorSettings;
use spindle_server::x509pop::{Mode, Roots, Settings};
use spindle_spiffe_core::ErrorChain;
use spindle_spiffe_core::pem::PEM_BYTES_MAX;

use crate::config::ConfigError;
use crate::config::server::{CaChoice, NodeAttestorChoices, X509PopChoice};

/// The block in which the keys stand.
const X509POP: &str = "plugins.NodeAttestor.x509pop.plugin_data";

/// The server's node attestors.
///
/// # Errors
/// When a file cannot be read or holds no certificate; the fault names the key and the file.
pub(super) fn node_attestors(choices: NodeAttestorChoices) -> Result<NodeAttestorSettings, ConfigError> {
    Ok(NodeAttestorSettings { x509pop: choices.x509pop.map(x509pop).transpose()? })
}

fn x509pop(choice: X509PopChoice) -> Result<Settings, ConfigError> {
    let mode = match choice.authorities {
        CaChoice::OwnTrustDomain(prefix) => Mode::Spiffe { prefix },
        CaChoice::Files(key, paths) => {
            let key = format!("{X509POP}.{key}");
            let read = |all: Roots, path: &std::path::PathBuf| Ok(all.and(roots(&key, path)?));
            Mode::ExternalPki(paths.iter().try_fold(Roots::default(), read)?)
        }
    };
    let defaults = Settings::new(mode);
    Ok(Settings {
        path_template: choice.agent_path_template.unwrap_or(defaults.path_template),
        max_intermediates: choice.max_intermediates,
        max_rsa_bits: choice.max_rsa_bits,
        verify_client_ip: choice.verify_client_ip,
        mode: defaults.mode,
    })
}

fn roots(key: &str, path: &Path) -> Result<Roots, ConfigError> {
    let bad = |error: &dyn std::error::Error| {
        ConfigError::value(key, format!("unable to load trust bundle {path:?}: {}", ErrorChain(error)))
    };
    let mut text = Vec::new();
    // One byte more than allowed, so that the parser can tell that the file is too large.
    let file = File::open(path).and_then(|file| file.take(PEM_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    file.map_err(|error| bad(&error))?;
    Roots::from_pem(&text).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(authorities: CaChoice) -> NodeAttestorChoices {
        let x509pop = X509PopChoice {
            authorities,
            agent_path_template: None,
            max_intermediates: 4,
            max_rsa_bits: 8192,
            verify_client_ip: false,
        };
        NodeAttestorChoices { x509pop: Some(x509pop) }
    }

    #[test]
    fn a_bundle_that_cannot_be_read_or_holds_no_certificate_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let fault =
            |key| node_attestors(choice(CaChoice::Files(key, vec![path.clone()]))).unwrap_err().to_string();
        let missing = fault("ca_bundle_path");
        assert!(
            missing.starts_with("plugins.NodeAttestor.x509pop.plugin_data.ca_bundle_path: "),
            "{missing}"
        );
        assert!(missing.contains("ca.pem"), "{missing}");
        std::fs::write(&path, "nothing").unwrap();
        let empty = fault("ca_bundle_paths");
        assert!(empty.contains("ca_bundle_paths") && empty.contains("has no certificate"), "{empty}");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
        let garbage = fault("ca_bundle_path");
        assert!(garbage.contains("certificate 0 cannot be read"), "{garbage}");
    }

    #[test]
    fn the_own_trust_domain_needs_no_file() {
        let settings =
            node_attestors(choice(CaChoice::OwnTrustDomain("/x/".into()))).unwrap().x509pop.unwrap();
        assert!(matches!(settings.mode, Mode::Spiffe { prefix } if prefix == "/x/"));
        assert!(node_attestors(NodeAttestorChoices::default()).unwrap().x509pop.is_none());
    }
}
