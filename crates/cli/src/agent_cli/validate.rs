//! `validate`: checks file, flags and the places they name, and starts nothing.
//!
//! SPIRE's agent does not look at its plugins here; ours reads the files that `run` would not start without.

use std::path::Path;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use spindle_runtime::LogTarget;
use spindle_spiffe_core::pem::certificates_from_pem;
use spindle_spiffe_core::{Bundle, ErrorChain, X509Bundle};
use zeroize::{Zeroize, Zeroizing};

use super::run::{Args, flags, settings};
use crate::config::agent::{AgentSettings, BundleFormat, KeyChoice, TrustChoice, X509PopChoice};
use crate::console::{Console, Vars};
use crate::error::Failure;
use crate::preflight::{self, Invalid, Preflight};

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let checked = check(args, console.vars);
    preflight::print(console, "agent", checked)
}

fn check(args: &Args, vars: Vars<'_>) -> Result<(Vec<String>, Result<(), Invalid>), Failure> {
    let ready = flags::ready(args, &flags::items(args, vars)?)?;
    let notes = ready.notes.clone();
    let places = places(&ready);
    settings::config(ready, vars("HOST_PROC"))?;
    Ok((notes, places.into_result("agent")))
}

fn places(ready: &AgentSettings) -> Preflight {
    let mut preflight = Preflight::default();
    preflight.directory("agent.data_dir", &ready.data_dir);
    if let KeyChoice::Disk(directory) = &ready.keys {
        preflight.directory("plugins.KeyManager", directory);
    }
    sockets(&mut preflight, ready);
    if let LogTarget::File(path) = &ready.logs.target {
        preflight.log_file("agent.log_file", path);
    }
    if let TrustChoice::File(path, format) = &ready.bootstrap.trust
        && let Some(content) = preflight.file("agent.trust_bundle_path", path)
        && let Err(what) = bundle(ready, *format, &content)
    {
        preflight.fault("agent.trust_bundle_path", format!("{}: {what}", path.display()));
    }
    if let Some(choice) = &ready.x509pop {
        x509pop(&mut preflight, choice);
    }
    preflight
}

/// The sockets that `run` would open.
fn sockets(preflight: &mut Preflight, ready: &AgentSettings) {
    let chosen = &ready.sockets;
    if !(chosen.disable_workload_api && chosen.disable_sds_api) {
        preflight.socket("agent.socket_path", &chosen.socket_path);
    }
    if let Some(path) = &chosen.admin_socket_path {
        preflight.socket("agent.admin_socket_path", path);
    }
    if let Some(broker) = &ready.broker {
        if let Some(path) = &broker.socket_path {
            preflight.socket("agent.experimental.broker.socket_path", path);
        }
        if let Some(address) = broker.bind_address {
            preflight.address("agent.experimental.broker.bind_address", address.ip());
        }
    }
    if let Some(listener) = &ready.health_checks {
        preflight.address("health_checks.bind_address", listener.address.ip());
    }
}

/// The node's certificate and key, which `run` reads before anything else. A Workload API is asked when the agent attests.
fn x509pop(preflight: &mut Preflight, choice: &X509PopChoice) {
    let X509PopChoice::Files { private_key, certificate, intermediates } = choice else { return };
    certificates(preflight, "plugins.NodeAttestor.x509pop.certificate_path", certificate);
    if let Some(path) = intermediates {
        certificates(preflight, "plugins.NodeAttestor.x509pop.intermediates_path", path);
    }
    let key = "plugins.NodeAttestor.x509pop.private_key_path";
    let Some(text) = preflight.file(key, private_key).map(Zeroizing::new) else { return };
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(mut parsed) => parsed.zeroize(),
        Err(error) => preflight.fault(key, format!("no private key in {}: {error}", private_key.display())),
    }
}

fn certificates(preflight: &mut Preflight, key: &str, path: &Path) {
    if let Some(text) = preflight.file(key, path)
        && let Err(error) = certificates_from_pem(&text)
    {
        preflight.fault(key, format!("no certificate in {}: {}", path.display(), ErrorChain(&error)));
    }
}

fn bundle(ready: &AgentSettings, format: BundleFormat, content: &[u8]) -> Result<(), String> {
    let trust_domain = ready.trust_domain.clone();
    let bundle = match format {
        BundleFormat::Pem => {
            X509Bundle::from_pem(trust_domain, content).map_err(|error| ErrorChain(&error).to_string())
        }
        BundleFormat::Spiffe => Bundle::from_json(trust_domain, content)
            .map(|bundle| bundle.x509_bundle())
            .map_err(|error| ErrorChain(&error).to_string()),
    }?;
    if bundle.is_empty() { Err("it holds no authority".into()) } else { Ok(()) }
}
