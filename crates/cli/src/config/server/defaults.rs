//! `--print-defaults`: a file that says what holds when nothing is set.

use spindle_server::{JwtSettings, ServerConfig};

use super::{BIND_ADDRESS, BIND_PORT, CA_TTL_SECS, SOCKET_PATH, X509_SVID_TTL_SECS};
use crate::config::telemetry::default_telemetry;
use crate::duration::print_secs;

/// A whole configuration file with the defaults; the two required keys stand in it as comments.
pub fn print_defaults() -> String {
    let (ca_ttl, svid_ttl) = (print_secs(CA_TTL_SECS), print_secs(X509_SVID_TTL_SECS));
    let jwt_svid_ttl = print_secs(JwtSettings::TTL_SECS);
    let signing_queue = ServerConfig::SIGNING_QUEUE_MAX;
    let telemetry = default_telemetry("spire_server");
    format!(
        r#"server {{
    # trust_domain = "example.org"   # required
    # data_dir = "./data/server"     # required
    bind_address = "{BIND_ADDRESS}"
    bind_port = {BIND_PORT}
    socket_path = "{SOCKET_PATH}"
    ca_key_type = "ec-p256"
    ca_ttl = "{ca_ttl}"
    ca_subject {{
        country = ["US"]
        organization = ["SPIFFE"]
        common_name = ""
    }}
    default_x509_svid_ttl = "{svid_ttl}"
    # agent_ttl = "{svid_ttl}"           # as default_x509_svid_ttl
    disable_jwt_svids = false
    # jwt_key_type = "ec-p256"       # as ca_key_type
    default_jwt_svid_ttl = "{jwt_svid_ttl}"
    jwt_issuer = ""                  # tokens name no issuer
    admin_ids = []
    # roles {{}}                       # nobody has a role
    # ratelimit {{
    #     attestation = true         # one a second of each caller
    #     signing = true             # 500 SVIDs a second of each caller
    #     signing_queue = {signing_queue}
    # }}
    log_level = "INFO"
    log_format = "text"
    # log_file = "server.log"        # standard output
    log_source_location = false
    audit_log_enabled = false
    # prune_attested_nodes_expired_for = "720h"   # agents are kept
    # prune_tofu_nodes = false
    # prune_attested_nodes_batch_size = 1000
    # experimental {{
    #     feature_flags = []         # "wit-svid" switches WIT-SVIDs on
    #     wit_key_type = "ec-p256"   # as ca_key_type
    #     wit_issuer = ""            # tokens name no issuer
    # }}
}}

health_checks {{
    listener_enabled = false
    bind_address = "localhost"
    bind_port = "80"
    live_path = "/live"
    ready_path = "/ready"
}}

{telemetry}
plugins {{
    DataStore "sled" {{
        plugin_data {{
            # directory = "./data/server/store"        # store, below data_dir
        }}
    }}
    # KeyManager "disk" {{                              # keys.json, below data_dir
    #     plugin_data {{
    #         keys_path = "./data/server/keys.json"
    #     }}
    # }}
    # UpstreamAuthority "disk" {{                       # none: the server's authority is its own root
    #     plugin_data {{
    #         cert_file_path = ""
    #         key_file_path = ""
    #         # bundle_file_path = ""                    # none: the certificate is the root itself
    #     }}
    # }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
}}
"#
    )
}
