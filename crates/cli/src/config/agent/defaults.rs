//! `--print-defaults`: a file that says what holds when nothing is set.

use super::SOCKET_PATH;
use crate::config::telemetry::default_telemetry;

/// A whole configuration file with the defaults; required keys stand in it as comments.
pub fn print_defaults() -> String {
    let telemetry = default_telemetry("spire_agent");
    format!(
        r#"agent {{
    # trust_domain = "example.org"                # required
    # server_address = "127.0.0.1"                # required
    # server_port = 8081                          # required
    data_dir = "."
    socket_path = "{SOCKET_PATH}"
    # admin_socket_path = "/tmp/spire-agent/private/admin.sock"
    disable_workload_api = false
    disable_sds_api = false
    # trust_bundle_path = "./bundle.pem"          # one of these four is required
    # trust_bundle_url = "https://example.org/bundle.pem"
    # trust_bundle_spiffe_workload_api = "unix:///run/other/api.sock"
    insecure_bootstrap = false
    # trust_bundle_unix_socket = "/run/bundle.sock"   # to fetch trust_bundle_url over
    trust_bundle_format = "pem"
    rebootstrap_mode = "never"
    rebootstrap_delay = "10m"
    # join_token = "..."                          # for the first start
    # join_token_file = "./join-token"            # the same, from a file
    workload_x509_svid_key_type = "ec-p256"
    # availability_target = "24h"                 # X509- and WIT-SVIDs are renewed at half of their life
    x509_svid_cache_max_size = 1000
    jwt_svid_cache_max_size = 1000
    allow_unauthenticated_verifiers = false
    allowed_foreign_jwt_claims = []
    authorized_delegates = []
    log_level = "INFO"
    log_format = "text"
    # log_file = "agent.log"                      # standard output
    log_source_location = false
    log_selectors = []
    sds {{
        default_svid_name = "default"
        default_bundle_name = "ROOTCA"
        default_all_bundles_name = "ALL"
        disable_spiffe_cert_validation = false
    }}
    experimental {{
        sync_interval = "5s"
        use_sync_authorized_entries = true
        require_pq_kem = false
        # jwt_svid_cache_hit_timeout = "10s"      # 30s
        ratelimit {{
            fetch_x509_svid = 0
            fetch_jwt_svid = 0
            fetch_x509_bundles = 0
            fetch_jwt_bundles = 0
            stream_secrets = 0
            fetch_secrets = 0
        }}
        # broker {{                                # off
        #     socket_path = "/tmp/spire-agent/broker/broker.sock"
        #     bind_address = "0.0.0.0:8443"
        #     brokers = [
        #         {{
        #             id = "spiffe://example.org/broker"
        #             allowed_reference_types = [{{ type_url = "*", allow_over_tcp = false }}]
        #         }},
        #     ]
        # }}
        feature_flags = []
    }}
}}

health_checks {{
    listener_enabled = false
    bind_address = "localhost"
    bind_port = 80
    live_path = "/live"
    ready_path = "/ready"
}}

{telemetry}
plugins {{
    # KeyManager "disk" {{                         # in data_dir
    #     plugin_data {{
    #         directory = "."
    #     }}
    # }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    WorkloadAttestor "unix" {{
        plugin_data {{
            discover_workload_path = false
            workload_size_limit = 0
        }}
    }}
}}
"#
    )
}
