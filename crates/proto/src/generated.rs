//! What the compiler made of the `.proto` files, in one tree: generated paths climb from package to package.
//!
//! Its lints are not ours to satisfy, so they are off for this file alone.
#![allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    reason = "generated code"
)]

/// The SPIFFE Workload API.
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// Standards of SPIFFE that have a package.
pub mod spiffe {
    /// The SPIFFE Broker API.
    pub mod broker {
        tonic::include_proto!("spiffe.broker");
    }
}

/// What SPIRE's server, command line and agents speak.
pub mod spire {
    /// What SPIRE keeps outside of its public API's package.
    pub mod agent {
        /// A look inside the agent.
        pub mod debug {
            /// Version 1.
            pub mod v1 {
                tonic::include_proto!("spire.agent.debug.v1");
            }
        }
    }

    /// SPIRE's public API.
    pub mod api {
        /// Messages that several services share.
        pub mod types {
            tonic::include_proto!("spire.api.types");
        }

        /// The services of an agent's admin socket.
        pub mod agent {
            /// Identities in the name of workloads.
            pub mod delegatedidentity {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.agent.delegatedidentity.v1");
                }
            }

            /// How much is logged.
            pub mod logger {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.agent.logger.v1");
                }
            }
        }

        /// The services of a server.
        pub mod server {
            /// Agents: join, renew, manage.
            pub mod agent {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.agent.v1");
                }
            }

            /// Trust bundles.
            pub mod bundle {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.bundle.v1");
                }
            }

            /// A look inside the server.
            pub mod debug {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.debug.v1");
                }
            }

            /// Registration entries.
            pub mod entry {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.entry.v1");
                }
            }

            /// Authorities by hand.
            pub mod localauthority {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.localauthority.v1");
                }
            }

            /// How much is logged.
            pub mod logger {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.logger.v1");
                }
            }

            /// Signing.
            pub mod svid {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.svid.v1");
                }
            }

            /// Federation relationships.
            pub mod trustdomain {
                /// Version 1.
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.trustdomain.v1");
                }
            }
        }
    }
}

/// Our own packages, in the tree that generated paths expect.
pub mod spindle {
    /// Roles, and what else operators can do with our servers beyond SPIRE's API.
    pub mod admin {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("spindle.admin.v1");
        }
    }

    /// How our agents learn what they are authorised for.
    pub mod sync {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("spindle.sync.v1");
        }
    }

    /// What a server keeps in its store.
    pub mod records {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("spindle.records.v1");
        }
    }
}

/// What Envoy speaks.
pub mod envoy {
    /// Values that all of its configuration uses.
    pub mod config {
        /// The core.
        pub mod core {
            /// Version 3.
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }

    /// Settings of extensions.
    pub mod extensions {
        /// Of transport sockets.
        pub mod transport_sockets {
            /// Of TLS.
            pub mod tls {
                /// Version 3.
                pub mod v3 {
                    tonic::include_proto!("envoy.extensions.transport_sockets.tls.v3");
                }
            }
        }
    }

    /// How resources are discovered.
    pub mod service {
        /// The messages.
        pub mod discovery {
            /// Version 3.
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }

        /// The service for secrets.
        pub mod secret {
            /// Version 3.
            pub mod v3 {
                tonic::include_proto!("envoy.service.secret.v3");
            }
        }
    }

    /// Small types.
    pub mod r#type {
        /// Version 3.
        pub mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
}

/// The rich error model of gRPC.
pub mod google {
    /// Status and details.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
