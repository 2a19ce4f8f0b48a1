# An agent beside the server of server.hcl. Its first start needs a token and the server's trust bundle:
#
#     spindle-server bundle show > .data/bundle.pem
#     spindle-server token generate -spiffeID spiffe://example.org/node
#     spindle-agent run -config examples/agent.hcl -joinToken TOKEN
#
# Later starts go on with the identity that is kept in data_dir. What is marked with (reload), and log_level, can be changed while the
# agent runs: send it SIGHUP.

agent {
    trust_domain = "example.org"

    # The server, and how it is recognised on the first contact. Instead of trust_bundle_path there may stand
    # trust_bundle_url (https), or insecure_bootstrap = true, which believes whoever answers first.
    server_address = "127.0.0.1"
    server_port = 8081
    trust_bundle_path = "./.data/bundle.pem"
    trust_bundle_format = "pem"

    # The agent's own identity and bundle. Keep it private.
    data_dir = "./.data/agent"

    # Where workloads connect. They find it by SPIFFE_ENDPOINT_SOCKET=unix:///tmp/spire-agent/public/api.sock
    socket_path = "/tmp/spire-agent/public/api.sock"

    # Kind of key of workloads' SVIDs.
    workload_x509_svid_key_type = "ec-p256"

    log_level = "INFO"
    log_format = "text"
    # Instead of standard output; SIGUSR2 opens it anew after it was renamed.
    # log_file = "agent.log"
}

plugins {
    # Where the agent's own private keys are kept: disk or memory (a restart needs a new token).
    KeyManager "disk" {
        plugin_data {
            directory = "./.data/agent"
        }
    }

    NodeAttestor "join_token" {
        plugin_data {}
    }

    # In its place, for a node with a certificate: no token is needed then, and an evicted agent comes back by itself. The
    # files are read anew for each attestation. spiffe_endpoint_socket takes the certificate from another agent instead. (reload)
    # NodeAttestor "x509pop" {
    #     plugin_data {
    #         private_key_path = "./.data/node.key"
    #         certificate_path = "./.data/node.pem"
    #         intermediates_path = "./.data/intermediates.pem"
    #     }
    # }

    # Tells local callers apart: unix:uid, unix:gid, unix:user, unix:group, unix:supplementary_gid and, with
    # discover_workload_path, unix:path and unix:sha256. (reload)
    WorkloadAttestor "unix" {
        plugin_data {
            discover_workload_path = true

            # No sha256 of larger programs, in bytes; 0 is no limit.
            workload_size_limit = 0
        }
    }
}
