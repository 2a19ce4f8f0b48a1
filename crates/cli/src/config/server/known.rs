//! Every key of SPIRE's server file, and what this version does with it.

use crate::config::keys::Support::{NoEffect, NoEffectBut, NotYet, Only, Yes};
use crate::config::keys::{Key, NO_PROFILING};

const IN_MEMORY: &str = "all entries are held in memory and change at once";

pub(super) const TOP: &[Key] =
    &[("server", Yes), ("plugins", Yes), ("health_checks", Yes), ("telemetry", Yes)];

pub(super) const SERVER: &[Key] = &[
    ("trust_domain", Yes),
    ("data_dir", Yes),
    ("bind_address", Yes),
    ("bind_port", Yes),
    ("socket_path", Yes),
    ("ca_key_type", Yes),
    ("ca_ttl", Yes),
    ("ca_subject", Yes),
    ("default_x509_svid_ttl", Yes),
    ("agent_ttl", Yes),
    ("admin_ids", Yes),
    ("log_level", Yes),
    ("log_format", Yes),
    ("log_file", Yes),
    ("log_source_location", Yes),
    ("experimental", Yes),
    ("jwt_key_type", Yes),
    ("default_jwt_svid_ttl", Yes),
    ("jwt_issuer", Yes),
    ("disable_jwt_svids", Yes),
    ("audit_log_enabled", Yes),
    ("ratelimit", Yes),
    ("roles", Yes),
    ("proxy_protocol_trusted_cidrs", Only("[]")),
    ("prune_attested_nodes_expired_for", Yes),
    ("prune_attested_nodes_batch_size", Yes),
    ("prune_tofu_nodes", Yes),
    ("max_attested_node_info_staleness", NoEffect(IN_MEMORY)),
    ("profiling_enabled", NoEffectBut("false", NO_PROFILING)),
    ("profiling_port", NoEffect(NO_PROFILING)),
    ("profiling_freq", NoEffect(NO_PROFILING)),
    ("profiling_names", NoEffect(NO_PROFILING)),
    ("federation", NotYet("bundles of other trust domains are set with `bundle set`")),
];

pub(super) const CA_SUBJECT: &[Key] = &[("country", Yes), ("organization", Yes), ("common_name", Yes)];

pub(super) const RATE_LIMIT: &[Key] = &[("attestation", Yes), ("signing", Yes), ("signing_queue", Yes)];

pub(super) const ROLES: &[Key] = &[("reader", Yes), ("registrar", Yes), ("operator", Yes)];

pub(super) const REGISTRAR: &[Key] = &[
    ("path_prefix", Yes),
    ("parent_path_prefix", Yes),
    ("verbs", Yes),
    ("max_x509_svid_ttl", Yes),
    ("max_jwt_svid_ttl", Yes),
    ("allow_admin", Yes),
    ("allow_downstream", Yes),
];

pub(super) const EXPERIMENTAL: &[Key] = &[
    ("cache_reload_interval", NoEffect(IN_MEMORY)),
    ("full_cache_reload_interval", NoEffect(IN_MEMORY)),
    ("events_based_cache", NoEffect(IN_MEMORY)),
    ("prune_events_older_than", NoEffect(IN_MEMORY)),
    ("event_timeout", NoEffect(IN_MEMORY)),
    ("sql_transaction_timeout", NoEffect(IN_MEMORY)),
    ("agent_spiffe_id_as_selector", Yes),
    ("auth_opa_policy_engine", NotYet("")),
    ("require_pq_kem", Only("false")),
    ("wit_key_type", Yes),
    ("wit_issuer", Yes),
    ("feature_flags", Yes),
    ("named_pipe_name", NotYet("use socket_path")),
];
