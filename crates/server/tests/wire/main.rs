//! A real server, called with the generated clients over its admin socket and over TLS.
//!
//! Each file is one service. Nothing sleeps: a test waits for an answer, for a message of a stream, or moves the clock.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod agent_admin;
mod agent_attest;
mod agent_x509pop;
mod audit;
mod authority;
mod authorization;
mod backup;
mod by_hand;
mod downstream;
mod entry_change;
mod entry_create;
mod entry_list;
mod entry_sync;
mod federated_bundles;
mod federated_entries;
mod follow;
mod following;
mod health_probes;
mod jwt;
mod jwt_authority;
mod live;
mod local_authority;
mod malformed;
mod model;
mod relationships;
mod roles;
mod support;
mod svid;
mod telemetry;
mod upstream;
mod wit;
mod wit_authority;
mod withheld;
