//! A running provider as its clients see it: real sockets, TLS and HTTP.

mod bounds;
mod documents;
mod fake;
mod help;
mod sources;
mod tls;
