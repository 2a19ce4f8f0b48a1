//! A real gRPC service behind both listeners, called through both dialers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;
mod tls_identity;
mod tls_protocol;
mod tls_unix;
mod unix;
