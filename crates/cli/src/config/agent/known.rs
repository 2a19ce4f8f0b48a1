//! Every key of SPIRE's agent file, and what this version does with it.

use crate::config::keys::Support::{NoEffect, NoEffectBut, NotYet, Yes};
use crate::config::keys::{Key, NO_PROFILING};

pub(super) const TOP: &[Key] =
    &[("agent", Yes), ("plugins", Yes), ("health_checks", Yes), ("telemetry", Yes)];

pub(super) const AGENT: &[Key] = &[
    ("trust_domain", Yes),
    ("data_dir", Yes),
    ("server_address", Yes),
    ("server_port", Yes),
    ("socket_path", Yes),
    ("admin_socket_path", Yes),
    ("disable_workload_api", Yes),
    ("disable_sds_api", Yes),
    ("authorized_delegates", Yes),
    ("sds", Yes),
    ("trust_bundle_path", Yes),
    ("trust_bundle_url", Yes),
    ("trust_bundle_unix_socket", Yes),
    ("trust_bundle_spiffe_workload_api", Yes),
    ("trust_bundle_format", Yes),
    ("insecure_bootstrap", Yes),
    ("rebootstrap_mode", Yes),
    ("rebootstrap_delay", Yes),
    ("join_token", Yes),
    ("join_token_file", Yes),
    ("workload_x509_svid_key_type", Yes),
    ("availability_target", Yes),
    ("x509_svid_cache_max_size", Yes),
    ("jwt_svid_cache_max_size", Yes),
    ("allowed_foreign_jwt_claims", Yes),
    ("allow_unauthenticated_verifiers", Yes),
    ("log_level", Yes),
    ("log_format", Yes),
    ("log_file", Yes),
    ("log_source_location", Yes),
    ("log_selectors", Yes),
    ("profiling_enabled", NoEffectBut("false", NO_PROFILING)),
    ("profiling_port", NoEffect(NO_PROFILING)),
    ("profiling_freq", NoEffect(NO_PROFILING)),
    ("profiling_names", NoEffect(NO_PROFILING)),
    ("experimental", Yes),
    // Ours.
    ("caller_limits", Yes),
];

pub(super) const CALLER_LIMITS: &[Key] = &[
    ("connections_per_process", Yes),
    ("connections_per_user", Yes),
    ("calls_per_process", Yes),
    ("calls_per_user", Yes),
    ("attestations_per_process", Yes),
    ("attestations_per_user", Yes),
];

pub(super) const SDS: &[Key] = &[
    ("default_svid_name", Yes),
    ("default_bundle_name", Yes),
    ("default_all_bundles_name", Yes),
    ("disable_spiffe_cert_validation", Yes),
];

pub(super) const EXPERIMENTAL: &[Key] = &[
    ("sync_interval", Yes),
    ("use_sync_authorized_entries", Yes),
    ("require_pq_kem", Yes),
    ("jwt_svid_cache_hit_timeout", Yes),
    ("ratelimit", Yes),
    ("broker", Yes),
    ("feature_flags", Yes),
    ("named_pipe_name", NotYet("use socket_path")),
    ("admin_named_pipe_name", NotYet("use admin_socket_path")),
];

pub(super) const RATE_LIMIT: &[Key] = &[
    ("fetch_x509_svid", Yes),
    ("fetch_jwt_svid", Yes),
    ("fetch_x509_bundles", Yes),
    ("fetch_jwt_bundles", Yes),
    ("stream_secrets", Yes),
    ("fetch_secrets", Yes),
];

pub(super) const BROKER: &[Key] = &[("socket_path", Yes), ("bind_address", Yes), ("brokers", Yes)];

pub(super) const ONE_BROKER: &[Key] = &[("id", Yes), ("allowed_reference_types", Yes)];

pub(super) const REFERENCE_TYPE: &[Key] = &[("type_url", Yes), ("allow_over_tcp", Yes)];
