//! Every key of SPIRE's agent file, and what this version does with it.

use crate::config::keys::Key;
use crate::config::keys::Support::{NoEffect, NotYet, Only, Yes};

const NO_JWT: &str = "this version issues no JWT-SVIDs";
const NO_PROFILING: &str = "profiling is off";
const NO_SDS: &str = "this version does not speak Envoy's SDS";

pub(super) const TOP: &[Key] =
    &[("agent", Yes), ("plugins", Yes), ("health_checks", Yes), ("telemetry", NotYet(""))];

pub(super) const AGENT: &[Key] = &[
    ("trust_domain", Yes),
    ("data_dir", Yes),
    ("server_address", Yes),
    ("server_port", Yes),
    ("socket_path", Yes),
    ("trust_bundle_path", Yes),
    ("trust_bundle_url", Yes),
    ("trust_bundle_unix_socket", Yes),
    ("trust_bundle_format", Yes),
    ("insecure_bootstrap", Yes),
    ("join_token", Yes),
    ("join_token_file", Yes),
    ("workload_x509_svid_key_type", Yes),
    ("allow_unauthenticated_verifiers", Yes),
    ("log_level", Yes),
    ("log_format", Yes),
    ("log_file", Yes),
    ("log_source_location", Yes),
    ("log_selectors", NoEffect("selectors stand in the log of refusals only")),
    ("experimental", Yes),
    ("admin_socket_path", NotYet("")),
    ("authorized_delegates", Only("[]")),
    ("trust_bundle_spiffe_workload_api", NotYet("use trust_bundle_path or trust_bundle_url")),
    ("rebootstrap_mode", Only("never")),
    ("rebootstrap_delay", NoEffect("the agent never bootstraps again")),
    ("disable_workload_api", Only("false")),
    ("disable_sds_api", NoEffect(NO_SDS)),
    ("sds", NotYet("this version does not speak Envoy's SDS")),
    ("allowed_foreign_jwt_claims", NoEffect(NO_JWT)),
    ("availability_target", NotYet("")),
    ("x509_svid_cache_max_size", NoEffect("all entries of this agent are kept ready")),
    ("jwt_svid_cache_max_size", NoEffect(NO_JWT)),
    ("profiling_enabled", Only("false")),
    ("profiling_port", NoEffect(NO_PROFILING)),
    ("profiling_freq", NoEffect(NO_PROFILING)),
    ("profiling_names", NoEffect(NO_PROFILING)),
];

pub(super) const EXPERIMENTAL: &[Key] = &[
    ("sync_interval", Yes),
    ("use_sync_authorized_entries", NoEffect("the server pushes changes")),
    ("require_pq_kem", Only("false")),
    ("jwt_svid_cache_hit_timeout", NoEffect(NO_JWT)),
    ("ratelimit", NotYet("")),
    ("broker", NotYet("")),
    ("feature_flags", Only("[]")),
    ("named_pipe_name", NotYet("use socket_path")),
    ("admin_named_pipe_name", NotYet("")),
];
