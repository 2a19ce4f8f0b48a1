# A server for one trust domain. Start it in the repository with
#
#     spindle-server run -config examples/server.hcl
#
# Keys and blocks are SPIRE's. `spindle-server run --print-defaults` shows what holds when a key is not set, and
# `spindle-server validate -config FILE` checks a file and the places it names without starting anything. What is marked
# with (reload) can be changed while the server runs: send it SIGHUP.

server {
    # The name that all SPIFFE IDs of this server begin with: spiffe://example.org/... It cannot be changed later.
    trust_domain = "example.org"

    # State lives below this directory: the store and the keys of the authority. Keep it private and back it up.
    data_dir = "./.data/server"

    # Where agents connect, over TLS.
    bind_address = "127.0.0.1"
    bind_port = 8081

    # Where this machine's operators connect: spindle-server entry create and so on. Who may open the socket is the
    # administrator of the trust domain.
    socket_path = "/tmp/spire-server/private/api.sock"

    # The authority that signs: kind of key (ec-p256, ec-p384, rsa-2048, rsa-4096), lifetime and name. The next one is
    # made and published long before the present one ends.
    ca_key_type = "ec-p256"
    ca_ttl = "24h"
    ca_subject {
        country = ["US"]
        organization = ["SPIFFE"]
        common_name = ""
    }

    # Lifetime of workloads' X509-SVIDs whose entry names none, and of agents' SVIDs. Agents renew at half of it. (reload)
    default_x509_svid_ttl = "1h"
    agent_ttl = "1h"

    # JWT-SVIDs: lifetime of those whose entry names none, kind of key (that of ca_key_type when not set), and the issuer they
    # name, if a verifier asks for one. disable_jwt_svids = true makes a server without them.
    default_jwt_svid_ttl = "5m"   # (reload)
    jwt_key_type = "ec-p256"
    # jwt_issuer = "https://issuer.example.org"

    # WIT-SVIDs, tokens that are bound to a key of the workload. There are none unless the flag names them; whoever reads the bundle
    # document must know their keys by then, as SPIRE does since 1.15.3.
    # experimental {
    #     feature_flags = ["wit-svid"]
    #     wit_key_type = "ec-p256"                   # that of ca_key_type when not set
    #     wit_issuer = "spiffe://example.org"
    # }

    # Workloads with these identities may manage the server over TLS. (reload)
    admin_ids = []

    # Callers that may do a part of that: reader (looks), operator (agents, tokens, entries that give nobody power), and
    # registrar (entries within limits). Named by SPIFFE ID, or by unix:uid:NUMBER or unix:gid:NUMBER for this machine's
    # users and groups, who then may do that over the local socket instead of everything.
    # roles {
    #     reader "spiffe://example.org/monitor" {}
    #     registrar "spiffe://example.org/ci" {
    #         path_prefix = "/ci/"
    #         parent_path_prefix = "/spire/agent/"
    #         verbs = ["create", "update"]
    #         max_x509_svid_ttl = "1h"
    #     }
    # }

    # How often one caller may attest and have SVIDs signed is bounded; here the bounds can be taken off. (reload) Beyond the
    # line of CSRs that wait to be signed, calls are told when to come back.
    ratelimit {
        attestation = true
        signing = true
        signing_queue = 10000
    }

    # Agents whose SVID ended so long ago are forgotten. Those that joined with a token only if prune_tofu_nodes says so:
    # they cannot come back by themselves.
    prune_attested_nodes_expired_for = "720h"
    prune_tofu_nodes = false
    prune_attested_nodes_batch_size = 1000

    # One line in the log for each call: who, what, and with what outcome.
    audit_log_enabled = false

    # panic, fatal, error, warn, info, debug or trace. (reload) `spindle-server logger set` changes it as well.
    log_level = "INFO"
    log_format = "text"
    # Instead of standard output; SIGUSR2 opens it anew after it was renamed.
    # log_file = "server.log"
}

# Answers over HTTP whether the server is alive and ready.
health_checks {
    listener_enabled = false
    bind_address = "localhost"
    bind_port = "8080"
    live_path = "/live"
    ready_path = "/ready"
}

plugins {
    # Where records are kept: sled or redb (embedded, one server), or memory (gone at the end).
    DataStore "sled" {
        plugin_data {
            directory = "./.data/server/store"
        }
    }

    # Where the authority's private keys are kept: disk (a file for its owner alone) or memory (a restart makes a new
    # authority).
    KeyManager "disk" {
        plugin_data {
            keys_path = "./.data/server/keys.json"
        }
    }

    # Who signs this server's authority. Without it the authority is its own root. The files are read anew for each
    # authority: replace them, then `spindle-server localauthority x509 prepare` and `activate`. (reload)
    # UpstreamAuthority "disk" {
    #     plugin_data {
    #         cert_file_path = "./.data/upstream.crt"
    #         key_file_path = "./.data/upstream.key"
    #         # Roots of an intermediate; not needed when the certificate signs itself.
    #         # bundle_file_path = "./.data/upstream_bundle.crt"
    #     }
    # }

    # How a new agent proves itself: with a token that works once, from `spindle-server token generate`.
    NodeAttestor "join_token" {
        plugin_data {}
    }

    # Or with a certificate of an authority of yours. Instead of ca_bundle_path there may stand ca_bundle_paths (a list), or
    # mode = "spiffe", which takes SVIDs of this trust domain whose path begins with svid_prefix ("/spire-exchange/"). (reload)
    # NodeAttestor "x509pop" {
    #     plugin_data {
    #         ca_bundle_path = "./.data/nodes-ca.pem"
    #         agent_path_template = "/x509pop/{{ .Fingerprint }}"
    #         max_intermediates = 4
    #         max_rsa_key_size = 8192
    #         verify_client_ip = false
    #     }
    # }
}
