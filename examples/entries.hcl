# Entries as `spindle-server entry apply` reads them, from this file or from all files of a directory:
#
#     spindle-server entry apply -file examples/entries.hcl -set example -dryRun
#     spindle-server entry apply -file examples/entries.hcl -set example
#     spindle-server entry apply -file examples/entries.hcl -set example -prune
#
# The first says what it would do (exit status 2), the second does it, and a second time it finds nothing to do. The third
# deletes, too, what this set once made and the file no longer names. `entry lint -file` looks for mistakes without a
# server. The same keys in JSON are read as well, and so is SPIRE's {"entries": [ … ]}.

# Entries for servers of another trust domain are refused.
trust_domain = "example.org"

# The entry gets the ID example.web and is found again by it: any of its fields can be changed here.
entry "web" {
    spiffe_id = "spiffe://example.org/web"

    # Who may fetch it: an agent, the name that a join token gave to one, or a node alias.
    parent_id = "spiffe://example.org/node"

    # What a workload must show, all of it, as type:value.
    selectors = ["unix:uid:1000", "unix:gid:1000"]

    # Lifetimes in seconds or as durations; the server's defaults without them.
    x509_svid_ttl = "1h"
    jwt_svid_ttl = 300

    # DNS names of the certificate; the first one is its common name, too.
    dns_names = ["web.example.org"]

    # Tells identities of one workload apart.
    hint = "internal"
}

entry "reporter" {
    spiffe_id = "spiffe://example.org/reporter"
    parent_id = "spiffe://example.org/node"
    selectors = ["unix:path:/usr/bin/reporter"]

    # When the entry ends, in seconds since 1970.
    entry_expiry = 4102444800

    # The X509-SVID is made when the workload asks for it, not before; JWT-SVIDs carry a unique jti.
    additional_attributes {
        disable_x509_svid_prefetch = true
        jwt_svid_include_jti = true
    }

    # Left out: federates_with (names of trust domains), admin, downstream, store_svid.
}

# Entries without names, found again by parent, SPIFFE ID and selectors, or by an entry_id of their own.
entries = [
    {
        spiffe_id = "spiffe://example.org/database"
        parent_id = "spiffe://example.org/node"
        selectors = ["unix:user:postgres"]
    },
]
