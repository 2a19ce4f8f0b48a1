//! `--print-defaults`: a file that says what holds when nothing is set.

/// A whole configuration file with the defaults; what is required or chosen stands in it as comments.
pub fn print_defaults() -> &'static str {
    r#"# domains = ["oidc.example.org"]                 # required: the names that clients ask for

# jwt_issuer = "https://oidc.example.org"         # made of the name that a client asks for
# jwks_uri = "https://oidc.example.org/keys"      # made of jwt_issuer, or of that name
server_path_prefix = "/"
allow_insecure_scheme = false
set_key_use = false

# server_api {                                    # one of these three is required
#     address = "unix:///tmp/spire-server/private/api.sock"
#     poll_interval = "10s"
# }
# workload_api {
#     socket_path = "/tmp/spire-agent/public/api.sock"
#     trust_domain = "example.org"
#     poll_interval = "10s"                       # between tries: the agent pushes changes
# }
# file {
#     path = "./bundle.json"
#     poll_interval = "10s"
# }

# acme {                                          # one of these four is required
#     directory_url = "https://acme-v02.api.letsencrypt.org/directory"
#     cache_dir = "./.acme-cache"
#     email = "admin@example.org"
#     tos_accepted = true
#     addr = ":443"
# }
# serving_cert_file {
#     cert_file_path = "./cert.pem"
#     key_file_path = "./key.pem"
#     file_sync_interval = "1m"
#     addr = ":443"
# }
# insecure_addr = ":8080"
# listen_socket_path = "/run/oidc-discovery-provider/server.sock"

# health_checks {                                 # off without this block
#     bind_port = 8008
#     ready_path = "/ready"
#     live_path = "/live"
# }

log_level = "INFO"
log_format = "text"
# log_path = "oidc.log"                           # standard output
log_requests = false
"#
}
