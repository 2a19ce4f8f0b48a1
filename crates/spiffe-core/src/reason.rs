//! The closed set of reasons for a refusal.
//!
//! The code that decides returns one of these; status detail, log event, metric label and command output show the same
//! one. A reason says which rule refused; who and what stand in fields beside it. Codes are stable once released.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $remedy:literal;)+) => {
        /// Why something was refused. The doc of each variant says which rule it stands for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The stable code, in snake case.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)+ }
            }

            /// What the operator can try, in one sentence.
            pub fn remedy(self) -> &'static str {
                match self { $(Reason::$name => $remedy,)+ }
            }
        }
    };
}

reasons! {
    /// The call lacks `workload.spiffe.io: true` (Workload Endpoint 3).
    SecurityHeaderMissing = "security_header_missing", "send the metadata `workload.spiffe.io: true` with every call";
    /// The calling process ended before it could be attested.
    CallerGone = "caller_gone", "keep the calling process alive until it has its answer";
    /// The process behind the connection is no longer the one that opened it.
    CallerChanged = "caller_changed", "open a new connection after the process has changed its user or program";
    /// No attestor could tell anything about the caller.
    AttestationFailed = "attestation_failed", "look at the agent's log for the attestor that failed";
    /// No entry's selectors are all shown by the caller.
    NoMatchingEntry = "no_matching_entry", "create an entry whose selectors this process shows, below this agent";
    /// The process that a delegate asked for has ended.
    WorkloadGone = "workload_gone", "open a stream for a process that runs";
    /// A call to the broker endpoint lacks `broker.spiffe.io: true` (Broker Endpoint 3).
    BrokerHeaderMissing = "broker_header_missing", "send the metadata `broker.spiffe.io: true` with every call";
    /// The caller of the broker endpoint has an identity, and it is no broker's.
    NotABroker = "not_a_broker", "list the caller's SPIFFE ID under experimental.broker.brokers in the agent's configuration";
    /// The broker may not name workloads in that way, or not over TCP.
    ReferenceNotAllowed = "reference_not_allowed", "add the type to the broker's allowed_reference_types, for TCP with allow_over_tcp";
    /// A broker names no workload, or in a way that is not understood.
    ReferenceInvalid = "reference_invalid", "name one workload, by the number of its process or as a Kubernetes object";
    /// The workload that a broker names is not there.
    WorkloadNotFound = "workload_not_found", "name a workload that runs on this agent's node";
    /// The caller has identities, and none of them is a delegate.
    NotADelegate = "not_a_delegate", "list one of the caller's SPIFFE IDs in authorized_delegates of the agent's configuration";
    /// Entries match, but none has a valid SVID yet.
    SvidNotReady = "svid_not_ready", "wait, and look at the agent's log for why signing is late";
    /// The workload has entries, but a proxy asks for the secret of none of them.
    SecretNotFound = "secret_not_found", "ask for the SPIFFE ID or a trust domain of an entry of this workload, or for default, ROOTCA or ALL";
    /// A proxy did not take the secrets that it was sent.
    SecretRejected = "secret_rejected", "look at the proxy's log, and compare the secret's kind with where its configuration uses it";
    /// The agent has not finished its first sync.
    AgentStarting = "agent_starting", "wait until the agent has reached its server";
    /// The agent is being stopped.
    AgentStopping = "agent_stopping", "wait until the agent is back and open the stream anew";
    /// An agent runs already with that directory or socket.
    AgentRunning = "agent_running", "stop the other agent, or choose another data directory and socket path";
    /// There is no usable trust bundle to recognise the server by.
    TrustBundleUnusable = "trust_bundle_unusable", "write the server's bundle with `bundle show` and point trust_bundle_path at it";
    /// The agent has no identity and nothing to get one with.
    JoinTokenNeeded = "join_token_needed", "generate a token with `token generate` and start the agent with it";
    /// The method is not offered.
    NotSupported = "not_supported", "use a method that this version offers";
    /// The caller is of a class that may not call the method.
    MethodNotAllowed = "method_not_allowed", "call over the server's local socket, or with an admin identity; `can` tells what a caller may do";
    /// The caller's role may not do this to entries.
    RoleVerb = "role_verb", "ask an administrator for a role with that verb, or to do it";
    /// The entry's SPIFFE ID lies outside the role's path prefix.
    RolePath = "role_path", "use a SPIFFE ID below the path prefix that the message names";
    /// The entry's parent lies outside the role's path prefix for parents.
    RoleParent = "role_parent", "use a parent ID below the path prefix that the message names";
    /// The entry's SVIDs would live longer than the role allows.
    RoleTtl = "role_ttl", "set a TTL within the limit that the message names";
    /// The entry has a flag that the role may not handle.
    RoleFlag = "role_flag", "leave the flag out, or ask an administrator";
    /// The identity may administer the server, or leads to one that may.
    RolePower = "role_power", "use another SPIFFE ID, or ask an administrator: this one would give you more than your role";
    /// The caller's role may not choose a join token.
    RoleToken = "role_token", "leave the token out, so that the server makes one";
    /// The identity has no such role.
    RoleNotFound = "role_not_found", "list the roles with `role show`; those of the configuration are changed there";
    /// The server does not have the method.
    MethodUnknown = "method_unknown", "compare the versions of client and server: this server lacks the method";
    /// The agent's SVID has expired.
    AgentExpired = "agent_expired", "let the agent attest again";
    /// The agent is not in the server's list.
    AgentNotAttested = "agent_not_attested", "let the agent attest again";
    /// The agent presents an SVID that is no longer its current one.
    AgentNotActive = "agent_not_active", "let the agent attest again";
    /// The agent is banned.
    AgentBanned = "agent_banned", "evict the agent (`agent evict`) to let it attest again";
    /// The agent must attest anew instead of renewing.
    AgentMustReattest = "agent_must_reattest", "let the agent attest again";
    /// The join token was never made, or has been used.
    JoinTokenUnknown = "join_token_unknown", "generate a new token with `token generate`; each works once";
    /// The join token is past its end.
    JoinTokenExpired = "join_token_expired", "generate a new token with `token generate`, with a longer -ttl";
    /// No node attestor of that name is configured.
    AttestorUnknown = "attestor_unknown", "configure the node attestor on the server, or use join_token";
    /// Nobody that the server trusts vouches for the node's certificate, at this time and for this purpose.
    NodeNotTrusted = "node_not_trusted", "check the dates of the node's certificate, and that the server trusts its authority (ca_bundle_path)";
    /// The node's certificate or key is malformed, too large, or of a kind that cannot prove itself.
    NodeCertificateUnusable = "node_certificate_unusable", "give the node a certificate with an RSA or EC key and the key usage digitalSignature";
    /// The node did not prove that the certificate is its own.
    NodeProofFailed = "node_proof_failed", "check that the private key on the node is the one of its certificate";
    /// The node calls from an address that its certificate does not have.
    NodeAddressMismatch = "node_address_mismatch", "put the node's address into its certificate, or turn verify_client_ip off";
    /// The node's certificate lacks what its agent would be named after.
    NodeNotNamed = "node_not_named", "compare agent_path_template with what the node's certificate contains";
    /// A request field is missing or malformed.
    BadRequest = "bad_request", "correct the field that the message names";
    /// The CSR cannot be parsed, or its signature does not verify.
    BadCsr = "bad_csr", "send a DER PKCS#10 request signed by its own key";
    /// The key in the CSR is of a kind or size that is not signed.
    BadKey = "bad_key", "use an EC P-256 or P-384 key, or RSA with 2048 to 4096 bits";
    /// The server's configuration switches JWT-SVIDs off.
    JwtSvidsDisabled = "jwt_svids_disabled", "take disable_jwt_svids out of the server's configuration, or use X509-SVIDs";
    /// A token is not in the form of its kind: its serialization, header or claims.
    TokenMalformed = "token_malformed", "send the token as it was issued, whole, and of the kind that is asked for";
    /// A token's algorithm is none that SVIDs may have, or does not go with the key.
    TokenAlgorithm = "token_algorithm", "have the token signed with one of the nine algorithms of JWT-SVID 2.1, by a key of that kind";
    /// No key that is trusted for that token's subject has signed it.
    TokenNotTrusted = "token_not_trusted", "check that the bundle of the token's trust domain is known here, and that the token was issued with a key that is still in it";
    /// The token has expired.
    TokenExpired = "token_expired", "fetch a new token; if it is new, check the clocks on both sides";
    /// The token is not valid yet.
    TokenNotYetValid = "token_not_yet_valid", "check the clocks on both sides";
    /// The token is for others.
    TokenAudience = "token_audience", "fetch a token for the audience that the receiver expects, or correct what it expects";
    /// The token lives longer than its receiver allows.
    TokenLifetime = "token_lifetime", "have tokens issued for a shorter time, or allow longer ones where they are checked";
    /// A token that is worth nothing without a proof of possession came without one.
    ProofMissing = "proof_missing", "send a proof of possession with the WIT-SVID, made for this request";
    /// The proof of possession does not fit the token, the request or the time.
    ProofRefused = "proof_refused", "make the proof for this request, with the key of the token, and check the clocks on both sides";
    /// The token was shown before, to a receiver that takes each only once.
    TokenReplayed = "token_replayed", "fetch a new token for each request; if nobody did use it before, look for who has a copy";
    /// The server's configuration does not switch WIT-SVIDs on.
    WitSvidsDisabled = "wit_svids_disabled", "put feature_flags = [\"wit-svid\"] into the experimental block of the server's configuration, or use X509-SVIDs";
    /// The entry does not exist, or the agent may not have it.
    EntryNotAuthorized = "entry_not_authorized", "check the entry's parent ID against the agent's ID";
    /// An entry with the same parent, SPIFFE ID and selectors exists.
    EntryExists = "entry_exists", "update the existing entry instead";
    /// The entry does not exist.
    EntryNotFound = "entry_not_found", "list the entries with `entry show`";
    /// The agent does not exist.
    AgentNotFound = "agent_not_found", "list the agents with `agent list`";
    /// The name lies in another trust domain.
    WrongTrustDomain = "wrong_trust_domain", "use a SPIFFE ID of this server's trust domain";
    /// The entry federates with a trust domain whose bundle is not there.
    BundleNotFound = "bundle_not_found", "set the bundle of that trust domain with `bundle set`; `bundle list` shows which are there";
    /// A bundle of that trust domain is there already.
    BundleExists = "bundle_exists", "replace the bundle with `bundle set`";
    /// Entries federate with the trust domain whose bundle is to go.
    BundleInUse = "bundle_in_use", "take the trust domain out of the entries, or delete with -mode dissociate or -mode delete";
    /// The server's own trust domain stands where only another one can.
    OwnTrustDomain = "own_trust_domain", "name another trust domain; the server keeps the bundle of its own";
    /// There is a relationship with that trust domain already.
    RelationshipExists = "relationship_exists", "change the relationship with `federation update`";
    /// There is no relationship with that trust domain.
    RelationshipNotFound = "relationship_not_found", "list the relationships with `federation list`";
    /// Something of that name exists.
    AlreadyExists = "already_exists", "choose another name, or leave it out to have one made up";
    /// The message is larger than the receiver takes.
    MessageTooLarge = "message_too_large", "send fewer items in one call";
    /// The message did not arrive in time after the call was opened.
    MessageLate = "message_late", "send the message as soon as the call is open";
    /// The server has no active authority yet.
    ServerStarting = "server_starting", "wait until the server has an active authority";
    /// The server is being stopped.
    ServerStopping = "server_stopping", "wait until the server is back; agents come back by themselves";
    /// There is no such authority, or it is out of reach of the operation.
    AuthorityNotFound = "authority_not_found", "list the authorities with `localauthority x509 show`, `localauthority jwt show` or `localauthority wit show`";
    /// An authority stands at another point of its life than the operation needs.
    AuthorityState = "authority_state", "go step by step: prepare, activate, taint the old one, revoke it when everything is replaced";
    /// The server's authority is signed upstream, so it is not distrusted by itself.
    UpstreamAuthority = "upstream_authority", "use `upstreamauthority taint` and `upstreamauthority revoke` with the root's key identifier";
    /// The server's authority is its own root.
    NoUpstreamAuthority = "no_upstream_authority", "use `localauthority x509 taint` and `localauthority x509 revoke`";
    /// A new authority could not be made.
    AuthorityFailed = "authority_failed", "look at the server's log: the key manager, the store or the upstream authority failed";
    /// The store refused or failed.
    StoreFailed = "store_failed", "look at the server's log: disk full, or a damaged store";
    /// The peer's certificate is not trusted.
    PeerNotTrusted = "peer_not_trusted", "check that both sides hold the current trust bundle";
    /// The peer has another SPIFFE ID than expected.
    PeerWrongId = "peer_wrong_id", "check the address and the trust domain in the configuration";
    /// The peer's certificate has expired or is not valid yet.
    PeerExpired = "peer_expired", "check the clocks on both sides";
    /// The peer cannot be reached.
    Unreachable = "unreachable", "check the address, and that the other side runs";
    /// The other side did not answer in time.
    TooSlow = "too_slow", "look at the load and the log of the other side";
    /// The other side's answer makes no sense.
    BadAnswer = "bad_answer", "check that both sides run versions that understand each other";
    /// The server refused and gave no reason that is known here.
    RefusedByServer = "refused_by_server", "look at the server's log";
    /// The machine refused: a disk, a file, a socket.
    LocalFailure = "local_failure", "look at the log for what failed on this machine: owner, mode, free space";
    /// A fault of the program.
    Internal = "internal", "look at the log, and report what it says";
    /// A bound on work at hand was reached.
    Overloaded = "overloaded", "come back later";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Reason;

    #[test]
    fn codes_are_distinct_snake_case_and_each_has_a_remedy() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let code = reason.to_string();
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
            assert!(!reason.remedy().is_empty() && !reason.remedy().ends_with('.'), "{code}");
        }
    }
}
