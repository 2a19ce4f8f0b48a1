//! `validate`: checks file, flags and the places they name, and starts nothing.

use spindle_runtime::LogTarget;

use super::run::{Args, flags, settings};
use crate::config::server::{KeyChoice, ServerSettings, StoreKind, UpstreamChoice};
use crate::console::{Console, Vars};
use crate::error::Failure;
use crate::preflight::{self, Invalid, Preflight};

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let checked = check(args, console.vars);
    preflight::print(console, "server", checked)
}

fn check(args: &Args, vars: Vars<'_>) -> Result<(Vec<String>, Result<(), Invalid>), Failure> {
    let ready = flags::ready(args, &flags::items(args, vars)?)?;
    let notes = ready.notes.clone();
    let places = places(&ready);
    settings::config(ready)?;
    Ok((notes, places.into_result("server")))
}

fn places(ready: &ServerSettings) -> Preflight {
    let mut preflight = Preflight::default();
    preflight.directory("server.data_dir", &ready.data_dir);
    if ready.store.kind != StoreKind::Memory {
        preflight.directory("plugins.DataStore", &ready.store.directory);
    }
    if let KeyChoice::Disk(path) = &ready.keys {
        preflight.file_to_make("plugins.KeyManager", path);
    }
    if let Some(UpstreamChoice::Disk { cert_file_path, key_file_path, bundle_file_path }) = &ready.upstream {
        for path in [cert_file_path, key_file_path].into_iter().chain(bundle_file_path) {
            preflight.file("plugins.UpstreamAuthority", path);
        }
    }
    preflight.socket("server.socket_path", &ready.socket_path);
    preflight.address("server.bind_address", ready.bind_address);
    if let Some(listener) = &ready.operations.health_checks {
        preflight.address("health_checks.bind_address", listener.address.ip());
    }
    if let LogTarget::File(path) = &ready.logs.target {
        preflight.log_file("server.log_file", path);
    }
    preflight
}
