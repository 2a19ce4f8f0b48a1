//! `--print-defaults`: a file that says what holds when nothing is set.

use super::SOCKET_PATH;

/// A whole configuration file with the defaults; required keys stand in it as comments.
pub fn print_defaults() -> String {
    format!(
        r#"agent {{
    # trust_domain = "example.org"                # required
    # server_address = "127.0.0.1"                # required
    # server_port = 8081                          # required
    data_dir = "."
    socket_path = "{SOCKET_PATH}"
    # trust_bundle_path = "./bundle.pem"          # one of these three is required
    # trust_bundle_url = "https://example.org/bundle.pem"
    insecure_bootstrap = false
    trust_bundle_format = "pem"
    # join_token = "..."                          # for the first start
    # join_token_file = "./join-token"            # the same, from a file
    workload_x509_svid_key_type = "ec-p256"
    log_level = "INFO"
    log_format = "text"
    # log_file = "agent.log"                      # standard output
    log_source_location = false
}}

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
