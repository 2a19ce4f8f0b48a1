//! Every key of SPIRE's provider file, and what this version does with it.

use crate::config::keys::Key;
use crate::config::keys::Support::{NotYet, Yes};

pub(super) const TOP: &[Key] = &[
    ("domains", Yes),
    ("jwt_issuer", Yes),
    ("jwks_uri", Yes),
    ("server_path_prefix", Yes),
    ("allow_insecure_scheme", Yes),
    ("set_key_use", Yes),
    ("log_level", Yes),
    ("log_format", Yes),
    ("log_path", Yes),
    ("log_requests", Yes),
    ("server_api", Yes),
    ("workload_api", Yes),
    ("file", Yes),
    ("acme", Yes),
    ("serving_cert_file", Yes),
    ("insecure_addr", Yes),
    ("listen_socket_path", Yes),
    ("health_checks", Yes),
    ("experimental", Yes),
];

pub(super) const EXPERIMENTAL: &[Key] = &[("listen_named_pipe_name", NotYet("use listen_socket_path"))];

pub(super) const NAMED_PIPE: &[Key] = &[("named_pipe_name", NotYet("name a Unix socket"))];

const SERVER_API: &[Key] = &[("address", Yes), ("poll_interval", Yes), ("experimental", Yes)];

const WORKLOAD_API: &[Key] =
    &[("socket_path", Yes), ("trust_domain", Yes), ("poll_interval", Yes), ("experimental", Yes)];

const FILE: &[Key] = &[("path", Yes), ("poll_interval", Yes)];

/// The keys of a source's block.
pub(super) fn source(block: &str) -> &'static [Key] {
    match block {
        "server_api" => SERVER_API,
        "workload_api" => WORKLOAD_API,
        _ => FILE,
    }
}

/// `addr` is ours: SPIRE listens on port 443 of all addresses.
pub(super) const ACME: &[Key] =
    &[("cache_dir", Yes), ("directory_url", Yes), ("email", Yes), ("tos_accepted", Yes), ("addr", Yes)];

pub(super) const SERVING_CERT_FILE: &[Key] =
    &[("cert_file_path", Yes), ("key_file_path", Yes), ("file_sync_interval", Yes), ("addr", Yes)];

pub(super) const HEALTH_CHECKS: &[Key] = &[("bind_port", Yes), ("ready_path", Yes), ("live_path", Yes)];
