# A sample for `spindle-agent files -config examples/files.hcl`: it keeps the files of an nginx current.
# Every key has a flag of the same meaning; a flag wins. What is commented out shows the default or an alternative.

# Kept by this program alone: it must be empty, or not exist yet.
dir = "/run/nginx-svid"

# Where the Workload API is; without it SPIFFE_ENDPOINT_SOCKET counts.
socket_path = "/tmp/spire-agent/public/api.sock"

# Which identity, when the agent has several: by SPIFFE ID, by hint, or by both. The first one without either.
# spiffe_id = "spiffe://example.org/web"
# hint = "external"

# Names of the files; "" leaves one out.
cert_file = "tls.crt"
key_file = "tls.key"
bundle_file = "ca.crt"
combined_file = "tls.pem"

# Authorities of other trust domains as federated.NAME.pem.
federated_bundles = false

# Keys to check JWT-SVIDs with, of all trust domains by SPIFFE ID, as JSON. Left out when not named.
# jwt_bundles_file = "jwt_bundles.json"

# Bundles alone, bundle.NAME.pem for each trust domain, for a program that checks others and has no identity itself.
bundles_only = false

# Tokens, each for one service; renewed when half their time is over.
# jwt_svid "billing.token" {
#     audience = ["billing"]
# }

# Who may read the keys: 0400, 0440, 0600 or 0640, and whose the files are.
key_mode = "0600"
# owner = "www-data"
# group = "www-data"

# How long the files before a change stay for readers that are in the middle of them.
grace = "1m"

# When the agent takes the identity back: remove the files, or keep them.
on_withdrawal = "remove"

# What to do after a change of certificate, key or bundles. A failure is tried again.
reload {
    signal = "HUP"
    pid_file = "/run/nginx.pid"
    # process = "nginx"
    # pid = 1
    # Instead of a signal; no shell comes between.
    # command = ["nginx", "-s", "reload"]
    # timeout = "30s"
}

# log_level = "info"
# log_format = "text"
# log_file = "/var/log/svid-files.log"
# log_source_location = false
