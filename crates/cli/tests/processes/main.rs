//! The real binaries as processes: killed at any moment, restored from backups, on a full disk, minting tokens, with
//! certificates for nodes, under a new authority, as a broker.
#![allow(clippy::unwrap_used, reason = "tests; the setting for tests does not reach helper functions")]

mod admin;
mod apply;
mod authority;
mod backup;
mod broker;
mod domain;
mod foreign;
mod full_disk;
mod import;
mod jwt_profile;
mod process;
mod sigkill;
mod tokens;
mod x509pop;
