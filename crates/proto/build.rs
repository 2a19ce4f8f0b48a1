//! Compiles the `.proto` files in Rust, without protoc, and keeps their descriptors for reflection and tests.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;
use prost_types::FileDescriptorSet;

/// The folder of all `.proto` files, seen from this crate.
const ROOT: &str = "../../proto";

/// The Workload API stands alone: it has no package, and its descriptors are what the agent's reflection shows.
const WORKLOAD: &[&str] = &["workload.proto"];

/// Everything the server answers.
const SERVER: &[&str] = &[
    "spire/api/server/agent/v1/agent.proto",
    "spire/api/server/bundle/v1/bundle.proto",
    "spire/api/server/debug/v1/debug.proto",
    "spire/api/server/entry/v1/entry.proto",
    "spire/api/server/localauthority/v1/localauthority.proto",
    "spire/api/server/logger/v1/logger.proto",
    "spire/api/server/svid/v1/svid.proto",
    "spire/api/server/trustdomain/v1/trustdomain.proto",
    "spire/api/types/status.proto",
    "spindle/admin/v1/backup.proto",
    "spindle/admin/v1/roles.proto",
    "spindle/sync/v1/sync.proto",
];

/// Everything the agent answers on its admin socket.
const AGENT: &[&str] = &[
    "spire/agent/debug/v1/debug.proto",
    "spire/api/agent/delegatedidentity/v1/delegatedidentity.proto",
    "spire/api/agent/logger/v1/logger.proto",
];

/// What the agent answers on its broker endpoint.
const BROKER: &[&str] = &["spiffe/broker/brokerapi.proto"];

/// Envoy's SDS, beside the Workload API on the agent's socket.
const ENVOY: &[&str] = &[
    "envoy/service/secret/v3/sds.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
];

/// The library's own envelope holds its content in memory that can be neither shared nor wiped.
const ENVOY_TYPES: &[(&str, &str)] =
    &[(".google.protobuf.Any", "crate::any::Any"), (".google.rpc", "crate::generated::google::rpc")];

/// Messages without a service.
const PLAIN: &[&str] =
    &["spindle/records/v1/records.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    compile("workload", WORKLOAD)?;
    compile("server", SERVER)?;
    compile("agent", AGENT)?;
    compile("broker", BROKER)?;
    compile("envoy", ENVOY)?;
    compile("plain", PLAIN)?;
    generate(ENVOY, ENVOY_TYPES)?;
    // In one go, for the code of a package that several sets share would be overwritten by the last of them.
    generate(&[WORKLOAD, SERVER, AGENT, BROKER, PLAIN].concat(), &[])
}

fn compile(name: &str, files: &[&str]) -> Result<(), Box<dyn Error>> {
    keep(name, protox::compile(files, [ROOT])?)
}

/// Writes the code of `files`. The `types` are not among it, but found at their Rust paths.
fn generate(files: &[&str], types: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(files, [ROOT])?;
    let mut builder = tonic_prost_build::configure();
    for (proto_path, rust_path) in types {
        builder = builder.extern_path(*proto_path, *rust_path);
    }
    builder
        // Cloning a message must not copy certificates, and equal maps must encode to equal bytes.
        .bytes(".")
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Writes the descriptors beside the generated code, without the comments.
fn keep(name: &str, mut descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join(format!("{name}.descriptors.bin"));
    Ok(std::fs::write(path, descriptors.encode_to_vec())?)
}
