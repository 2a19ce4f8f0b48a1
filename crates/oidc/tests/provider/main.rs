//! A running provider as its clients see it: real sockets, TLS and HTTP.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bounds;
mod documents;
mod fake;
mod help;
mod sources;
mod tls;
