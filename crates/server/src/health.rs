//! Health probes over HTTP: two paths that answer 200 or 500, with what is wrong as JSON, by SPIRE's names.
//!
//! The checks are made when somebody asks, so an answer is never older than [`checks::FRESH_FOR`]. What a caller can cost is
//! bounded: one request a connection, a few connections at once, one round of checks a second.

mod checks;
mod listener;

pub(crate) use checks::Checks;
pub(crate) use listener::serve;
